"""Seconds until a model has forgotten: from the same model, for each recipe, until UR is at most 1 %.

While a recipe trains, the average of its weights, which is what would be shipped, is sampled every few steps with few
evaluations and judged. That is not counted as time. UR falls as well when a model answers with noise: the second time
is until junk is rare, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from common import Report, arguments, main, percent
from msgm.cli.options import images_of, which_images
from msgm.data import ForgetRequest, Images, Split, to_model, to_pixels
from msgm.experiments.core.evaluate import check, retain_confidence
from msgm.forgetting.methods import DEFAULT, METHODS, Method, obtuse, orthogonal
from msgm.formats.native import embedded, load
from msgm.metrics import Judge, Shares, frechet_distance, judged_shares
from msgm.model.score import ScoreModel
from msgm.progress import Tick, bar
from msgm.sampling import build
from msgm.training.loop import Diverged, unlearn
from msgm.training.runs import RunSpec
from msgm.training.settings import UnlearnSettings

UR, JUNK = 0.01, 0.05
RECIPES: dict[str, Callable[[], Method]] = {
    **{name: make for name, make in METHODS.items() if not make().sees_forget},
    # The paper's weights change little in a few hundred steps; these push.
    "orthogonal, alpha .7, every step": partial(orthogonal, alpha=0.7, every=1),
    "obtuse, alpha .5, every step": partial(obtuse, alpha=0.5, every=1),
}


Score = Callable[[ScoreModel], Shares]


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        rule=("label in [3, 7]", "label in [3, 7]", "what to forget"),
        recipes=(("unseen", DEFAULT), tuple(RECIPES), "which recipes"),
        steps=(60, 300, "most steps of each"),
        batch=(32, 64, "images a step, of each set"),
        every=(20, 20, "steps between two looks"),
        n=(100, 500, "samples of a look"),
        nfe=(8, 10, "evaluations of DPM-Solver++ for each"),
        confirm=(200, 1000, "fresh samples that measure the end, with twice the evaluations"),
        judge=(None, None, "folder of a judge; by default the MNIST judge in the package"),
    )
    report = Report(
        name="unlearning",
        claim=f"Seconds until at most {UR:.0%} of {options.n} samples are in the forget classes. `ratio`: "
        f"those of the fastest other recipe over those of {DEFAULT}, the default, both with at most {JUNK:.0%} junk.",
        options=options,
    )
    model = load(options.model)
    request = ForgetRequest(options.rule)
    source = which_images(model)
    split, test = request.split(images_of(model, source, "train")), images_of(model, source, "test")
    judge = Judge.load(options.judge or embedded("judge"))
    forget, chosen = check(model, judge, request, test)
    real = test.select(~chosen)

    rows, curves = [], []
    for name in options.recipes:
        row, curve = measure(model, split, name, judge, forget, real, options)
        rows.append(row)
        curves += [{"recipe": name, **point} for point in curve]
    report.tables = {"Recipes": rows, "Looks": curves}
    times = {row["recipe"]: row["seconds_both"] for row in rows}
    others = [t for name, t in times.items() if name != DEFAULT and t is not None]
    mine = times.get(DEFAULT)
    report.facts = {"ratio": min(others) / mine if others and mine else None, "seconds_of_the_default": mine}
    report.notes = [
        f"A dash: not within {options.steps} steps.",
        "A time is that of the first look at which the samples pass; looks come every "
        f"{options.every} steps, and their {options.n} samples are a draw: the last columns are of fresh samples.",
        "Fréchet distance: judge's features of the fresh samples to the retained test images.",
    ]
    return report.write()


class Look:
    """A `training.loop.Watch`: samples and judges the average every few steps, and ends a run that met both goals."""

    def __init__(self, score: Score, every: int, tick: Tick) -> None:
        self.score, self.every, self.tick = score, every, tick
        self.points: list[dict[str, Any]] = []
        self.steps, self.spent, self.began, self.reached = 0, 0.0, time.perf_counter(), False

    def __call__(self, step: int, average: ScoreModel) -> bool:
        self.steps = step
        if step and step % self.every == 0:
            self.look(average)
            self.reached = passes(self.points[-1]) and passes(self.points[-1], junk=JUNK)
        if step:
            self.tick(1, note=f"UR {self.points[-1]['ur']:.1%}" if self.points else "")
        return self.reached

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}

    def look(self, average: ScoreModel) -> None:
        """Sample and judge the average; the time for it is not the run's."""
        now = time.perf_counter()
        shares = self.score(average)
        point = {"step": self.steps, "seconds": now - self.began - self.spent}
        self.points.append({**point, "ur": shares.value, "junk": shares.junk.value})
        self.spent += time.perf_counter() - now


def passes(point: Mapping[str, Any], junk: float = 1.0) -> bool:
    """Whether a look saw at most 1 % of forget classes, and no more junk than this share."""
    return bool(point["ur"] <= UR and point["junk"] <= junk)


def measure(
    model: ScoreModel, split: Split, name: str, judge: Judge, forget: set[int], real: Images, options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Unlearn by one recipe, looking every few steps: its row, and what each look saw."""

    def draw(average: ScoreModel, n: int, nfe: int, seed: int) -> Tensor:
        return to_model(to_pixels(build("dpm++", average, steps=nfe).sample(n, seed=seed)))

    def score(x: Tensor) -> Shares:
        return judged_shares(judge.predict(x), forget, judge.classes)

    method = RECIPES[name]()
    confidence = retain_confidence(judge, split, progress=False) if method.power else None
    settings = UnlearnSettings(steps=options.steps, batch=options.batch, seed=options.seed)
    with bar(name, options.steps) as tick:
        watch = Look(lambda m: score(draw(m, options.n, options.nfe, options.seed)), options.every, tick)
        try:
            average = unlearn(
                model, split, method=method, settings=settings, confidence=confidence, watch=watch,
                run=RunSpec(device="cpu", progress=False),
            )  # fmt: skip
            status = "reached" if watch.reached else "finished"
        except Diverged as error:
            status, average = f"diverged after {watch.steps} steps", error.model
        if not watch.points or watch.points[-1]["step"] < watch.steps:
            watch.look(average)
    x = draw(average, options.confirm, 2 * options.nfe, options.seed + 1)
    shares = score(x)
    first = {
        key: next((p["seconds"] for p in watch.points if passes(p, junk)), None)
        for key, junk in (("seconds_ur", 1.0), ("seconds_both", JUNK))
    }
    return {
        "recipe": name,
        **first,
        "status": status,
        "steps": watch.steps,
        "seconds": watch.points[-1]["seconds"],
        "ur": percent(shares.unlearning_ratio),
        "junk": percent(shares.junk),
        "frechet_distance": frechet_distance(judge.features(x), judge.features(to_model(real.rows()))),
    }, watch.points


if __name__ == "__main__":
    main(run)
