"""A training step against the bare forward and backward of its network, and against a plain loop.

All three take steps in turn, on the same batch sizes. Ours are those of `msgm.train` and `msgm.unlearn` as they are,
timed from one step's loss to the next one's: drawing the batch, noising it, clipping, AdamW, average and log are in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

import reference
from common import Report, arguments, interleaved, main, ratio, timed
from msgm.cli.options import images_of, which_images
from msgm.data import ForgetRequest, Split, to_model
from msgm.forgetting.methods import Method, orthogonal, redirect, standard
from msgm.formats.native import load
from msgm.model.score import ScoreModel
from msgm.training.loop import train, unlearn
from msgm.training.runs import RunSpec
from msgm.training.settings import TrainSettings, UnlearnSettings

BARE, PLAIN = 1.05, 1.2
RULE = "label in [3, 7]"
CASES: dict[str, Method] = {
    "train": standard(),
    "unlearn, orthogonal": orthogonal(alpha=0.7, every=1),
    "unlearn, redirect": redirect(),
}


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        batches=((64,), (8, 16, 64), "images a step, and as many to forget"),
        steps=(4, 10, "steps of each in a round"),
        rounds=(3, 7, "rounds"),
    )
    report = Report(
        name="training",
        claim=f"`ratio`: how many times longer a plain loop's step takes than ours (target: {PLAIN} or more); "
        f"`over_bare`: our step against the bare forward and backward of its network (target: {BARE} or less). Both of "
        "unlearning with a forget term on every step, at the largest batch; the table has the rest.",
        options=options,
        notes=[
            "bare: zero_grad, forward, mean of squares, backward of the network alone on a batch that lies ready.",
            "plain loop: looped Adam and average, independent times, retain and forget images in a forward each.",
            "redirect also asks for the exact denoiser of all retained images, a matrix product whose cost is no part "
            "of the network's; it is shown apart.",
        ],
    )
    model = load(options.model)
    split = ForgetRequest(RULE).split(images_of(model, which_images(model), "train"))
    rows = []
    for batch in options.batches:
        seconds = measure(model, split, batch, options)
        rows += [line(case, batch, seconds) for case in CASES]
        extra = [
            a - b for a, b in zip(seconds["msgm, unlearn, redirect"], seconds["msgm, unlearn, orthogonal"], strict=True)
        ]
        report.facts[f"redirect_term_ms_at_batch_{batch}"] = 1000 * median(extra)
    report.tables["One step"] = rows
    last = rows[-len(CASES) + 1]
    alone = rows[-len(CASES)]
    report.facts = {
        "ratio": last["plain/msgm"],
        "target": PLAIN,
        "met": last["plain/msgm"] >= PLAIN,
        "over_bare": last["msgm/bare"],
        "over_bare_target": BARE,
        "over_bare_met": last["msgm/bare"] <= BARE,
        "training_alone": {"ratio": alone["plain/msgm"], "over_bare": alone["msgm/bare"]},
        **report.facts,
    }
    return report.write()


def measure(model: ScoreModel, split: Split, batch: int, options: Any) -> dict[str, list[float]]:
    """Seconds of a step, for each round: bare, plain and ours for each case."""
    tasks: dict[str, Callable[[], float]] = {}
    for case, method in CASES.items():
        tasks[f"bare, {case}"] = bare(model, batch * (1 if method.forget is None else 2), options.steps)
        tasks[f"plain, {case}"] = plain(model, split, method, batch, options)
        tasks[f"msgm, {case}"] = partial(ours, model, split, method, batch, options)
    return interleaved(f"Batch {batch}", tasks, options.rounds)


def bare(model: ScoreModel, batch: int, steps: int) -> Callable[[], float]:
    """Forward and backward of the network alone."""
    x, label = torch.randn(batch, *model.shape), torch.linspace(-4, 4, batch)
    x = pixel_unshuffle(x, model.patch) if model.patch > 1 else x
    network: nn.Module = model.network.train()

    def work() -> None:
        for _ in range(steps):
            network.zero_grad()
            network(x, label).sample.square().mean().backward()

    return lambda: timed(work) / steps


def plain(model: ScoreModel, split: Split, method: Method, batch: int, options: Any) -> Callable[[], float]:
    """The plain loop, drawing its batches as it goes."""
    generator = torch.Generator().manual_seed(options.seed)
    retain, forget = split.retain.rows(), split.forget.rows()
    pool = to_model(retain)
    loop = reference.Loop(model, UnlearnSettings(batch=batch), method, generator)

    def draw(images: Tensor) -> Tensor:
        return to_model(images[torch.randint(len(images), (batch,), generator=generator)], generator)

    def work() -> None:
        for _ in range(options.steps):
            loop.step(draw(retain), draw(forget) if method.forget is not None else None, pool)

    return lambda: timed(work) / options.steps


class Stamps:
    """A `msgm.training.loop.Watch` that notes the time before the first step and after each."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, step: int, average: ScoreModel) -> bool:
        self.seconds.append(time.perf_counter())
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}


def ours(model: ScoreModel, split: Split, method: Method, batch: int, options: Any) -> float:
    """Seconds of a step of `msgm.train` or `msgm.unlearn`; the first is not counted."""
    stamps = Stamps()
    kind, work = (TrainSettings, train) if method.sees_forget else (UnlearnSettings, unlearn)
    settings = replace(kind(), steps=options.steps + 1, batch=batch, seed=options.seed)
    work(model, split, method=method, settings=settings, run=RunSpec(device="cpu", progress=False), watch=stamps)
    return (stamps.seconds[-1] - stamps.seconds[1]) / options.steps


def line(case: str, batch: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """One row of the table."""
    ways = {way: seconds[f"{way}, {case}"] for way in ("bare", "plain", "msgm")}
    over, plain = ratio(ways["msgm"], ways["bare"]), ratio(ways["plain"], ways["msgm"])
    return {
        "case": case,
        "batch": batch,
        **{f"{way} ms": 1000 * median(each) for way, each in ways.items()},
        "msgm/bare": over["ratio"],
        "least, most": f"{over['least']:.3f}, {over['most']:.3f}",
        "plain/msgm": plain["ratio"],
        "least, most of that": f"{plain['least']:.3f}, {plain['most']:.3f}",
    }


if __name__ == "__main__":
    main(run)
