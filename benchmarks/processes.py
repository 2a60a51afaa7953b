"""Two processes of one thread against one: seconds of an unlearning step, of the same batch.

All of them stay, and take their steps in turn; the steps are those of `msgm.unlearn`, timed from one to the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from common import Report, arguments, interleaved, main, ratio
from msgm.cli.options import Data, images_of
from msgm.data import ForgetRequest
from msgm.forgetting.methods import METHODS
from msgm.formats import load
from msgm.model.score import ScoreModel
from msgm.training.loop import unlearn
from msgm.training.runs import RunSpec
from msgm.training.settings import UnlearnSettings
from team import team

RULE = "label in [3, 7]"
RECIPES = ("deflect", "siss")


class Clock:
    """Watches a run, and notes when each step has ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, step: int, average: ScoreModel) -> bool:
        self.times.append(time.perf_counter())
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        """Nothing."""
        return {}


def seconds(folder: str, recipe: str, batch: int, steps: int) -> float:
    """Of a step, after one that is not counted; in each process."""
    model, clock = load(folder), Clock()
    split = ForgetRequest(RULE).split(images_of(model, Data().of(model), "train"))
    settings, run = UnlearnSettings(steps=steps + 1, batch=batch), RunSpec(device="cpu", progress=False)
    method = METHODS[recipe]()
    method = replace(method, combine=replace(method.combine, every=1))
    unlearn(model, split, method=method, settings=settings, run=run, watch=clock)
    return (clock.times[-1] - clock.times[1]) / steps


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        batches=((16,), (16, 64), "images a step, and as many to forget"),
        steps=(3, 6, "steps of each in a round"),
        rounds=(3, 5, "rounds"),
    )
    report = Report(
        name="processes",
        claim="`ratio`: how many times longer a step of one process takes than the same step of two, all of one "
        "thread; 2 is the most there can be. Of the first recipe at the largest batch; the table has the rest.",
        options=options,
    )
    rows = []
    with ExitStack() as stack:
        sizes = {size: stack.enter_context(team(size, options.threads)) for size in (1, 2)}

        def timed(size: int, recipe: str, batch: int) -> float:
            return float(sizes[size](seconds, options.model, recipe, batch, options.steps)[0])

        for batch in options.batches:
            tasks = {f"{size} {name}": partial(timed, size, name, batch) for name in RECIPES for size in sizes}
            found = interleaved(f"batch {batch}", tasks, options.rounds)
            for name in RECIPES:
                faster = ratio(found[f"1 {name}"], found[f"2 {name}"])
                rows.append(
                    {
                        "recipe": name,
                        "batch": batch,
                        "one, ms": 1000 * median(found[f"1 {name}"]),
                        "two, ms": 1000 * median(found[f"2 {name}"]),
                        "times faster": faster["ratio"],
                        "least, most": f"{faster['least']:.2f}, {faster['most']:.2f}",
                    }
                )
                if name == RECIPES[0]:
                    report.facts = {**faster, "efficiency": faster["ratio"] / 2}
    report.tables["One step"] = rows
    return report.write()


if __name__ == "__main__":
    main(run)
