"""How cost grows: with images, resolution, width, steps, batch and threads, each varied alone.

Fresh networks of the package's CPU shape (space-to-depth 2, two levels) on noise: what they say does not matter to the
clock. Three kinds of work: an evaluation (sampling), an evaluation with its divergence (likelihood), a training step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from common import Report, arguments, growth, interleaved, main, timed
from msgm.likelihood import log_likelihood
from msgm.model.modes import evaluating
from msgm.model.networks import UNetPreset
from msgm.model.score import ScoreModel
from msgm.process.sde import VESDE
from msgm.sampling import Heun

SIZE, WIDTH, BATCH = 28, 24, 32


def model(size: int = SIZE, width: int = WIDTH) -> ScoreModel:
    """An untrained score model for size x size grey images."""
    network = UNetPreset(size=size, patch=2, channels=(width, 2 * width), attention=(size // 4,)).build(1)
    return ScoreModel(network, VESDE(), shape=(1, size, size), patch=2)


def sampling(of: ScoreModel, batch: int) -> None:
    """One evaluation."""
    with evaluating(of):
        of.noise(torch.randn(batch, *of.shape), torch.rand(batch))


def likelihood(of: ScoreModel, batch: int) -> None:
    """One evaluation with its divergence by one probe."""
    x = torch.randn(batch, *of.shape, requires_grad=True)
    out = of.noise(x, torch.rand(batch))
    torch.autograd.grad(out, x, torch.ones_like(out))


def training(of: ScoreModel, batch: int) -> None:
    """Forward and backward of a step."""
    of.zero_grad()
    (of.noise(torch.randn(batch, *of.shape), torch.rand(batch))).square().mean().backward()


WORK: dict[str, Callable[[ScoreModel, int], None]] = {
    "sampling": sampling,
    "likelihood": likelihood,
    "training": training,
}


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    cores = os.cpu_count() or 1
    options = arguments(
        __doc__ or "",
        given,
        rounds=(2, 5, "rounds"),
        sizes=((16, 28), (16, 28, 32, 48, 64), "sides of the images in pixels"),
        widths=((16, 32), (16, 24, 32, 48, 64), "channels of the first level"),
        batches=((8, 32), (1, 4, 16, 64, 256), "images in a batch"),
        steps=((4, 8), (4, 8, 16, 32), "steps of a whole run"),
        images=((16, 32), (16, 64, 256), "images of a whole run"),
        cores=(tuple(sorted({1, cores})), tuple(range(1, cores + 1)), "threads"),
    )
    report = Report(
        name="scaling",
        claim=f"Milliseconds, one thing varied from {SIZE}x{SIZE} images, {WIDTH} channels, batches of {BATCH}; "
        "`power` is p where the time grows as size^p.",
        options=options,
    )
    ms: dict[str, Callable[[Any], tuple[ScoreModel, int]]] = {
        "resolution": lambda side: (model(size=side), BATCH),
        "width": lambda width: (model(width=width), BATCH),
        "batch": lambda batch: (model(), batch),
    }
    powers: dict[str, dict[str, float]] = {}
    for title, values in (("resolution", options.sizes), ("width", options.widths), ("batch", options.batches)):
        tasks = {}
        for value in values:
            of, batch = ms[title](value)
            tasks |= {f"{kind} {value}": partial(timed, partial(work, of, batch)) for kind, work in WORK.items()}
        rows, powers[title] = summary(interleaved(title, tasks, options.rounds), list(WORK), title, values)
        report.tables[title.capitalize()] = rows

    of = model()
    whole: dict[str, Callable[[int, int], object]] = {
        "Heun": lambda n, steps: Heun(of, steps=steps).sample(n),
        "likelihood": lambda n, steps: log_likelihood(of, torch.zeros(n, *of.shape), steps=steps, check=False),
    }
    for title, values in (("steps", options.steps), ("images", options.images)):
        tasks = {
            f"{kind} {value}": partial(timed, partial(work, *((16, value) if title == "steps" else (value, 4))))
            for kind, work in whole.items()
            for value in values
        }
        rows, powers[title] = summary(interleaved(title, tasks, options.rounds), list(whole), title, values)
        report.tables[f"{title.capitalize()} of a whole run"] = rows

    def threaded(threads: int, work: Callable[[], object]) -> float:
        torch.set_num_threads(threads)
        try:
            return timed(work)
        finally:
            torch.set_num_threads(options.threads)

    tasks = {
        f"{kind} {threads}": partial(threaded, threads, partial(work, of, BATCH))
        for kind, work in WORK.items()
        for threads in options.cores
    }
    rows, powers["threads"] = summary(
        interleaved("threads", tasks, options.rounds), list(WORK), "threads", options.cores
    )
    report.tables["Threads"] = rows
    report.facts = {"power": powers}
    return report.write()


def summary(
    seconds: dict[str, list[float]], kinds: Sequence[str], title: str, values: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Median milliseconds of each kind of work at each value, and how they grow with it."""
    rows = [
        {title: value, **{f"{kind} ms": 1000 * median(seconds[f"{kind} {value}"]) for kind in kinds}}
        for value in values
    ]
    if len(values) < 2:
        return rows, {}
    return rows, {kind: growth(values, [row[f"{kind} ms"] for row in rows]) for kind in kinds}


if __name__ == "__main__":
    main(run)
