"""Many unlearning runs, each with its audit: each result is stored as it ends."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import ForgetRequest, Images, Source, Split
from ...errors import UserError
from ...forgetting.methods import Method
from ...formats.native import RECORD, load, weights_sha256
from ...metrics.judge import Judge
from ...model.score import ScoreModel
from ...progress import Tick, bar
from ...report.page import Row, write_json
from ...report.pictures import grid, png
from ...storage import read_json, write_bytes
from ...training.loop import Diverged, Watch, unlearn
from ...training.runs import STATE, RunSpec, read_log
from ...training.settings import UnlearnSettings
from .evaluate import EvaluateSettings, check, evaluate, retain_confidence
from .pool import begun, run_all
from .selection import Selection, SelectSettings

JOB, ROW, GRID = "job.json", "row.json", "grid.png"
TRAINING = 0.7
"""Share of a run's time that its training takes, roughly: for the progress bar."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all runs have in common, by name: it goes to other processes. ``judge`` is a folder, or demo.

    ``confidence`` is another, or the same, for methods that weigh images by a judge's confidence.
    """

    model: str
    data: Source
    rule: str
    judge: str
    confidence: str | None = None
    evaluation: EvaluateSettings
    selection: SelectSettings | None = None
    device: str = "cpu"
    command: str = ""

    @property
    def place(self) -> str:
        """Where models are audited."""
        return "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a method and a seed. Without a method, the audit of the model that the runs start from."""

    name: str
    out: Path
    task: Task
    method: Method | None = None
    settings: UnlearnSettings

    @property
    def refusal(self) -> str:
        """Why the method cannot run with what the task gives; empty where it can."""
        if self.method is not None and self.method.power and self.task.confidence is None:
            return f"method {self.method.name} weighs images by a judge's confidence, and none is given (--confidence)"
        return ""

    def identity(self, common: str) -> dict[str, Any]:
        """What the row depends on; ``common`` is the `fingerprint` of the task."""
        method = self.method.to_dict() if self.method is not None else None
        identity = {"task": common, "method": method, "settings": asdict(self.settings)}
        if self.method is not None and self.method.power and self.task.confidence is not None:
            identity["confidence"] = weights_sha256(Judge.load(self.task.confidence))
        return identity


@lru_cache(maxsize=1)
def inputs(task: Task) -> tuple[ScoreModel, Split, Images, Judge]:
    """The model, the training images in two, the test images and the judge. Raises UserError where they do not fit."""
    model, request, judge = load(task.model), ForgetRequest(task.rule), Judge.load(task.judge)
    test = task.data.open("test")
    check(model, judge, request, test)
    return model, request.split(task.data.open()), test, judge


def fingerprint(task: Task) -> str:
    """Hash of the model, data, rule, judge and settings that all runs have in common."""
    model, split, test, judge = inputs(task)
    selection = asdict(task.selection) if task.selection is not None else None
    parts = [
        weights_sha256(model.network),
        split.to_dict(),
        split.digest,
        test.digest,
        weights_sha256(judge),
        selection,
    ]
    return hashlib.sha256(json.dumps([*parts, asdict(task.evaluation)], sort_keys=True).encode()).hexdigest()


def perform_all(
    jobs: Sequence[Job],
    *,
    title: str,
    workers: int = 2,
    resume: bool = False,
    progress: bool = True,
    before: Callable[[Sequence[Job]], object] = lambda left: None,
) -> list[Row]:
    """The rows of all jobs, in order, from ``workers`` processes of one thread each (1: in this process).

    A run that diverges, or that cannot be made, has a row whose ``status`` says so. With ``resume`` finished runs are
    read, interrupted ones go on from their last saved state, and refused ones are tried again. ``before`` is told what
    is left to do, before any of it is done.

    Raises UserError, before any work, where a folder holds another run.
    """
    if workers < 1:
        raise UserError(f"workers must be 1 or more; got {workers}")
    common = {task: fingerprint(task) for task in {job.task for job in jobs}}
    identities = [job.identity(common[job.task]) for job in jobs]
    there = [resume and not _refused(job) and begun(job.out / JOB, i) for job, i in zip(jobs, identities, strict=True)]
    for job, identity, kept in zip(jobs, identities, there, strict=True):
        if not kept:
            shutil.rmtree(job.out, ignore_errors=True)
            write_json(job.out / JOB, identity)
    left = [job for job in jobs if not (job.out / ROW).exists()]
    before(left)
    with bar(title, len(jobs), done=len(jobs) - len(left), show=progress) as tick:

        def note(amount: float, note: str = "") -> None:
            finished = sum((job.out / ROW).exists() for job in jobs)
            tick(amount, note=f"{finished} of {len(jobs)} runs")

        run_all(perform, left, workers=workers, tick=note)
    return [Row.from_dict(read_json(job.out / ROW)) for job in jobs]


def _refused(job: Job) -> bool:
    path = job.out / ROW
    return path.exists() and str(read_json(path).get("status")).startswith("refused")


def perform(job: Job, tick: Tick) -> None:
    """Do what is left of a job and store its row; ``tick`` is told shares of the job that sum to one."""
    report = _Report(tick, job.settings.steps)
    model, split, test, judge = inputs(job.task)
    seconds, extra = None, {"status": "finished", "seed": job.settings.seed}
    method = job.method.name if job.method is not None else model.record.get("method", {}).get("name", "standard")
    if job.method is not None:
        try:
            model, seconds = _made(job, model, split, judge, report)
        except _Refused as refusal:
            extra["status"] = f"refused: {refusal}"
        else:
            extra |= {"status": model.record["status"], **_cost(job)}
    if extra["status"] == "finished":
        model.to(job.task.place)
        row, pixels = evaluate(
            model, name=job.name, method=method, judge=judge, request=split.request, test=test,
            settings=job.task.evaluation, seconds=seconds, progress=False,
        )  # fmt: skip
        write_bytes(job.out / GRID, png(grid(pixels[:36], columns=6)))
        measured = row.to_dict() | extra
    else:
        measured = Row(model=job.name, method=method, seconds=seconds, extra=extra).to_dict()
    write_json(job.out / ROW, measured)
    report.finish()


class _Refused(Exception):
    """The method cannot be used on this model and data."""


def _made(job: Job, parent: ScoreModel, split: Split, judge: Judge, report: _Report) -> tuple[ScoreModel, float | None]:
    """The unlearned model, and the seconds it took if it was made in one go."""
    assert job.method is not None
    if (job.out / RECORD).exists():
        return load(job.out), None
    if job.refusal:
        raise _Refused(job.refusal)
    began, whole = time.monotonic(), not (job.out / STATE).exists()
    try:
        with _selected(job, parent, split, judge) as (part, watch):
            report.inner = watch
            model = unlearn(
                parent, part, method=job.method, settings=job.settings, confidence=_confidence(job, part), watch=report,
                run=RunSpec(
                    folder=job.out, resume=True, overwrite=True, device=job.task.device, command=job.task.command,
                    progress=False,
                ),
            )  # fmt: skip
    except Diverged as error:
        model = error.model
    except UserError as error:
        # Of a run that was under way it is not the method that is at fault.
        if not whole:
            raise
        raise _Refused(str(error)) from error
    return model, time.monotonic() - began if whole else None


def _confidence(job: Job, split: Split) -> Tensor | None:
    if job.method is None or not job.method.power or job.task.confidence is None:
        return None
    return retain_confidence(Judge.load(job.task.confidence), split, progress=False)


@contextmanager
def _selected(job: Job, parent: ScoreModel, split: Split, judge: Judge) -> Iterator[tuple[Split, Watch | None]]:
    """What to train on, and who watches: with a selection, without its held-out images."""
    if job.task.selection is None:
        yield split, None
        return
    with Selection(
        job.task.selection, split=split, judge=judge, parent=parent, steps=job.settings.steps, out=job.out
    ) as watch:
        yield watch.split, watch


def _cost(job: Job) -> dict[str, int]:
    """Steps taken and images seen, of both sets, as the log has them."""
    log = read_log(job.out)
    seen = sum(1 + (line["forget"] is not None) for line in log)
    return {"steps": len(log), "images": job.settings.batch * seen}


class _Report:
    """A `Watch` that tells how far a run is, and lets another watch look."""

    def __init__(self, tick: Tick, steps: int) -> None:
        self.tick, self.steps = tick, steps
        self.told = 0.0
        self.inner: Watch | None = None

    def __call__(self, step: int, average: ScoreModel) -> bool:
        share = TRAINING * step / self.steps
        self.tick(share - self.told)
        self.told = share
        return self.inner is not None and self.inner(step, average)

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return self.inner.ship(average) if self.inner is not None else {}

    def finish(self) -> None:
        self.tick(1 - self.told)
