"""The demo: the Standard digits model, three ways to make it forget, before and after on one page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ...data import ForgetRequest, Source
from ...folders import Making, opened
from ...forgetting.methods import DEFAULT, METHODS, Method, orthogonal, unseen
from ...formats import load
from ...formats.native import EMBEDDED
from ...metrics.shares import forget_classes
from ...report.page import commit, write_html, write_json
from ...report.pictures import picture
from ...report.results import Results
from ...training.runs import read_log
from ...training.settings import UnlearnSettings
from ..core.estimate import room_for
from ..core.evaluate import EvaluateSettings, beside
from ..core.jobs import GRID, Job, Task, inputs, judge_of, perform_all

MADE = Making(kind="demo", names=("models", "samples", "results.json", "report.html"))
RULE = "label in [3, 7]"


def models() -> dict[str, Method]:
    """What the demo compares with the Standard model, the default method last."""
    return {
        "Unseen": unseen(),
        # The paper's alpha = 0.99, every 4th step, changes nothing visible in so few steps (docs/method.md).
        "Orthogonal": orthogonal(alpha=0.7, every=1),
        "Moderated": METHODS[DEFAULT](),
    }


def demo(
    out: Path,
    *,
    unlearning: UnlearnSettings,
    evaluation: EvaluateSettings,
    command: str,
    resume: bool = False,
    overwrite: bool = False,
) -> Results:
    """Unlearn, sample with the same noise before and after, judge, measure likelihoods, and write the report.

    Writes ``models/<name>``, ``samples/<name>/*.png``, ``results.json`` and ``report.html`` into ``out``.
    """
    with opened(out, MADE, resume=resume, overwrite=overwrite) as place:
        task = Task(
            model=EMBEDDED, data=Source("demo"), request=ForgetRequest(RULE), judge=EMBEDDED, evaluation=evaluation,
            command=command,
        )  # fmt: skip
        methods: dict[str, Method | None] = {"Standard": None, **models()}
        jobs = [
            Job(
                name=name, out=out / "models" / name.lower(), task=task, method=method, settings=unlearning, shown=100,
                samples=out / "samples" / name.lower(),
            )
            for name, method in methods.items()
        ]  # fmt: skip
        room_for(out, jobs, 1)
        rows = perform_all(jobs, title="Demo", workers=1, resume=resume, before=place.begin)
        parent, split, _, judge = inputs(task)
        rows[1:] = beside(rows[0], rows[1:], judge, forget_classes(split.request, judge))
        budget = {"size": "small", "unlearning": asdict(unlearning), "evaluation": asdict(evaluation)}
        results = Results(
            command=command, seed=evaluation.seed, commit=commit(), budget=budget, rows=rows, judge=judge_of(task)
        )  # fmt: skip
        write_json(out / "results.json", results.to_dict())
        made = {job.name: job.out for job in jobs[1:]}
        write_html(
            out / "report.html",
            results,
            title="Digits 3 and 7, forgotten",
            grids=[(job.name, picture(job.out / GRID)) for job in jobs],
            curves={
                name: [(int(r["step"]), r["retain"], r["forget"]) for r in read_log(at)] for name, at in made.items()
            },
            records={"Standard": parent.record, **{name: load(at).record for name, at in made.items()}},
            notes=[
                "Every grid starts from the same noise: picture k of one model is what picture k of another became."
            ],
        )
    return results
