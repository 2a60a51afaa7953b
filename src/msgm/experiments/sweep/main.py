"""Methods and settings side by side: the same budget, the same noise, several seeds, and which no other beats."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from ...choice import Choice
from ...errors import UserError
from ...folders import Making, Opened, opened
from ...forgetting.methods import AUTHORS, METHODS, Method
from ...metrics.shares import forget_classes
from ...report.page import commit, write_html, write_json
from ...report.pareto import criteria, pareto_figure, undominated
from ...report.pictures import picture, write_figure
from ...report.results import Results
from ...report.tables import Columns, judged_sheets, results_sheet
from ...training.settings import UnlearnSettings
from ..core.engines import Engine
from ..core.estimate import forecast, room_for
from ..core.evaluate import EvaluateSettings, beside
from ..core.jobs import GRID, Job, Task, inputs, judge_of, perform_all
from ..core.seeds import over_seeds

MADE = Making(kind="sweep", names=("runs", "results.json", "report.html", "pareto.png", "pareto.svg"))
REPEATED = Making(kind="set of runs", names=("seed-*", "results.json"))
MOST_SEEDS = 1000
COLUMNS: Columns = {"front": lambda row: "" if row.front is None else "yes" if row.front else "no"}
"""Beside those that every table has."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings(UnlearnSettings):
    """The same for each run of a sweep; see `UnlearnSettings`.

    A smaller batch than that of ``msgm unlearn``: all methods, with three seeds each, are to fit in 90 minutes on two
    cores.
    """

    batch: int = 24


@dataclass(frozen=True, kw_only=True)
class SweepEvaluation(EvaluateSettings):
    """How each run of a sweep is audited; see `EvaluateSettings`. Fewer samples and images: the seeds add up."""

    n: int = 200
    nll_images: int = 10
    nll_check: int = 4


def variants(asked: Sequence[Choice], *, authors: bool = False) -> list[Choice]:
    """What to train and compare: each of ``asked``, a list among its options standing for values to try.

    Of several lists every combination is tried; nothing asked is all methods. ``authors`` adds each of them with the
    settings of its authors, where they are others (`AUTHORS`). ``standard`` is not among them: it forgets nothing, and
    the model that all start from stands for it. Raises UserError where nothing is left.

    >>> [str(v) for v in variants([Choice("unseen"), Choice.of("redirect", alpha=[0.4, 0.5])])]
    ['unseen', 'redirect alpha=0.4', 'redirect alpha=0.5']
    """
    found = [
        Choice(choice.name, tuple(zip([key for key, _ in choice.options], each, strict=True)))
        for choice in asked or [Choice(name) for name in METHODS]
        for each in product(*(value if isinstance(value, list) else [value] for _, value in choice.options))
        if choice.name != "standard"
    ]
    if authors:
        names = dict.fromkeys(choice.name for choice in found)
        found += [Choice.of(name, **AUTHORS[name]) for name in names if name in AUTHORS]
    if not found:
        raise UserError("there is nothing to compare with the model itself; name other methods than standard")
    return list(dict.fromkeys(found))


def folder_of(variant: Choice) -> str:
    """Its name as a folder's."""
    return re.sub(r"[^\w.=+-]+", "_", str(variant))


def equal_batch(method: Method, batch: int, steps: int) -> int:
    """Retain images a step with which a method sees as many images in all as one that sees ``batch`` of both sets.

    A forget loss on every step doubles the images, one on every fourth step adds a quarter, none adds nothing.
    """
    forget = sum(method.combine.due(step) for step in range(steps)) if method.forget is not None else 0
    return max(1, round(2 * batch / (1 + forget / steps)))


def sweep(
    task: Task,
    methods: Mapping[Choice, Method],
    *,
    settings: UnlearnSettings,
    seeds: int,
    out: Path,
    workers: int = 2,
    engine: Engine = "local",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Results:
    """Unlearn with every method and seed, audit each with the same noise, and compare.

    Every run takes ``settings.steps`` steps and sees ``2 * settings.batch`` images a step on average. Writes
    ``results.json`` (a row for each variant, over its seeds, after that of the parent), ``report.html``,
    ``pareto.png``, ``pareto.svg`` and each run's model and row under ``runs/``. ``say`` is told how long it will take.
    ``engine`` is that of `run_all`.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"seeds must be 1 or more, and at most {MOST_SEEDS}; got {seeds}")
    with opened(out, MADE, resume=resume, overwrite=overwrite) as place:
        parent = Job(name="parent", out=out / "runs" / "parent", task=task, settings=settings)
        groups = [
            [
                Job(
                    name=str(variant),
                    out=out / "runs" / folder_of(variant) / f"seed-{seed}",
                    task=task,
                    method=method,
                    settings=replace(settings, batch=equal_batch(method, settings.batch, settings.steps), seed=seed),
                )
                for seed in range(settings.seed, settings.seed + seeds)
            ]
            for variant, method in methods.items()
        ]
        # Seed by seed: what is there after half the time compares all variants.
        jobs = [parent, *(job for turn in zip(*groups, strict=True) for job in turn)]
        room_for(out, jobs, workers)
        made = perform_all(
            jobs, title=f"Sweep of {len(jobs) - 1} runs", workers=workers, engine=engine, resume=resume,
            progress=progress, before=_told(place, workers, say, engine),
        )  # fmt: skip
        _, split, _, judge = inputs(task)
        made[1:] = beside(made[0], made[1:], judge, forget_classes(split.request, judge))
        rows = {job.out: row for job, row in zip(jobs, made, strict=True)}
        means = [over_seeds([rows[job.out] for job in group]) for group in groups]
        fronts = undominated(means)
        compared = [
            replace(row, front=good, options=dict(variant.options))
            for row, good, variant in zip(means, fronts, methods, strict=True)
        ]
        budget = {
            "steps": settings.steps,
            "images_per_step": 2 * settings.batch,
            "seeds": list(range(settings.seed, settings.seed + seeds)),
            "criteria": criteria(means),
            "unlearning": asdict(settings),
            "evaluation": asdict(task.evaluation),
        }
        reference = rows[parent.out]
        results = Results(
            command=task.command, seed=settings.seed, commit=commit(), budget=budget, rows=[reference, *compared],
            judge=judge_of(task),
        )  # fmt: skip
        write_json(out / "results.json", results)
        front = write_figure(pareto_figure(compared, reference), out / "pareto")
        _report(out, task, results, front, [parent, *(group[0] for group in groups)])
    return results


def repeat(
    task: Task,
    method: Method,
    *,
    settings: UnlearnSettings,
    seeds: int,
    out: Path,
    workers: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Results:
    """Unlearn with one method and several seeds into ``out/seed-<k>``, and audit each.

    Writes ``results.json``: a row for each seed, then one over all of them.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"seeds must be 1 or more, and at most {MOST_SEEDS}; got {seeds}")
    with opened(out, REPEATED, resume=resume, overwrite=overwrite) as place:
        jobs = [
            Job(
                name=f"seed {seed}", out=out / f"seed-{seed}", task=task, method=method,
                settings=replace(settings, seed=seed),
            )
            for seed in range(settings.seed, settings.seed + seeds)
        ]  # fmt: skip
        room_for(out, jobs, workers)
        rows = perform_all(
            jobs, title=f"Unlearning ({method.name}), {seeds} seeds", workers=workers, resume=resume, progress=progress,
            before=_told(place, workers, say),
        )  # fmt: skip
        total = replace(over_seeds(rows), model=f"mean of {seeds}")
        budget = {"unlearning": asdict(settings), "evaluation": asdict(task.evaluation)}
        results = Results(
            command=task.command, seed=settings.seed, commit=commit(), budget=budget, rows=[*rows, total],
            judge=judge_of(task),
        )  # fmt: skip
        write_json(out / "results.json", results)
    return results


def _told(
    place: Opened, workers: int, say: Callable[[str], object], engine: Engine = "local"
) -> Callable[[Sequence[Job]], object]:
    """Says how long it will take, once nothing is refused any more; of other machines nobody knows."""

    def before(left: Sequence[Job]) -> None:
        place.begin(left)
        say(forecast(left, workers) if engine == "local" else f"{len(left)} runs are left, by {engine}")

    return before


def _report(out: Path, task: Task, results: Results, pareto: bytes, shown: Sequence[Job]) -> None:
    notes = [
        f"front: no other row is at least as good in all of {', '.join(results.budget['criteria'])} and better in one, "
        "by the means. A row of which any run was refused, diverged or failed a check is on no front.",
        "Intervals and ± are over the seeds; the interval of a rate is never narrower than its samples allow.",
        "All models were sampled from the same noise: picture k of one is what picture k of another became.",
    ]
    if task.confidence == task.judge and any(job.method is not None and job.method.power for job in shown):
        notes.append("One judge has weighed the images of a method and judged its samples: its rates flatter.")
    write_html(
        out / "report.html",
        results,
        title=f"Ways to forget: {task.request.words}",
        sheets=[
            results_sheet(results, {**COLUMNS, "status": lambda row: row.said}),
            *judged_sheets(results),
        ],
        figures=[("UR + junk against the NLL of retained images", pareto)],
        grids=[(job.name, picture(job.out / GRID)) for job in shown if (job.out / GRID).exists()],
        notes=notes,
    )
