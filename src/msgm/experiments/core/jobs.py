"""Many unlearning runs, each with its audit: each result is stored as it ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Images, Request, Source, Split
from ...errors import UserError
from ...folders import lock
from ...forgetting.methods import Method
from ...formats import Reading, load
from ...formats.networks import factory_of
from ...formats.tensors import weights_sha256
from ...metrics import quantities
from ...metrics.judge import Judge
from ...metrics.measured import Measured
from ...metrics.shares import rules_of
from ...metrics.worth import Worth, worth_for
from ...model.score import Precision, ScoreModel
from ...progress import Tick, bar
from ...report.pictures import grid, png, save_samples
from ...report.results import Result
from ...report.samples import clear
from ...status import FINISHED, Status, refused
from ...storage import write_bytes
from ...training.earlier import Earlier
from ...training.loop import Diverged, Watch, unlearn
from ...training.runs import STATE, RunSpec, completed, read_log
from ...training.settings import UnlearnSettings
from .engines import Engine, available
from .evaluate import EvaluateSettings, check, evaluate, retain_confidence
from .pieces import Piece, prepare
from .pool import run_all
from .selection import Selection, SelectSettings

GRID, PART = "grid.png", "measured.json"
TRAINING = 0.7
"""Share of a run's time that its training takes, roughly: for the progress bar."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all runs have in common, by name: it goes to other processes. ``judge`` is a folder, or demo.

    ``confidence`` is another, or the same, for methods that weigh images by a judge's confidence.
    """

    model: str
    reading: Reading = Reading()
    data: Source
    request: Request
    earlier: Earlier = "forget"
    judge: str
    confidence: str | None = None
    evaluation: EvaluateSettings
    selection: SelectSettings | None = None
    device: str = "cpu"
    precision: Precision = "fp32"
    compile: bool = False
    command: str = ""

    @property
    def place(self) -> str:
        """Where models are audited."""
        return "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a method and a seed. Without a method, the audit of the model that the runs start from.

    Args:
        name: of the run, in tables.
        out: its folder.
        task: what it has in common with others.
        method: of unlearning.
        settings: of its training.
        shown: samples in ``grid.png``.
        samples: a folder for all of the samples.
    """

    name: str
    out: Path
    task: Task
    method: Method | None = None
    settings: UnlearnSettings
    shown: int = 36
    samples: Path | None = None

    @property
    def refusal(self) -> str:
        """Why the method cannot run with what the task gives; empty where it can."""
        if self.method is not None and self.method.power and self.task.confidence is None:
            return f"method {self.method.name} weighs images by a judge's confidence, and none is given"
        return ""

    def identity(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """What the row depends on; ``common`` is that of the task (`common_identity`)."""
        method = self.method.to_dict() if self.method is not None else None
        identity = {**common, "method": method, "settings": asdict(self.settings)}
        if self.method is not None and self.method.power and self.task.confidence is not None:
            identity["confidence"] = weights_sha256(Judge.load(self.task.confidence))
        return identity


@lru_cache(maxsize=1)
def inputs(task: Task) -> tuple[ScoreModel, Split, Images, Judge | None]:
    """The model, the training images in two, the test images and the judge. Raises UserError where they do not fit.

    For a request without a rule there is no judge; one that names training images is measured on these.
    """
    model, request = task.reading.load(task.model), task.request
    judge = Judge.load(task.judge) if rules_of(request) is not None else None
    test = task.data.open("train" if request.lists else "test")
    check(model, judge, request, test)
    return model, request.split(task.data.open()), test, judge


def judge_of(task: Task) -> Worth | None:
    """What the judge of all runs is worth for the request, if one is asked."""
    _, split, test, judge = inputs(task)
    return worth_for(judge, split.request, test) if judge is not None else None


def common_identity(task: Task) -> dict[str, Any]:
    """The model, data, rule, judge and settings that all runs have in common, for JSON."""
    model, split, test, judge = inputs(task)
    return {
        "model": weights_sha256(model.network),
        "request": split.to_dict(),
        "data": split.digest,
        "test": test.digest,
        "judge": weights_sha256(judge) if judge is not None else None,
        "selection": asdict(task.selection) if task.selection is not None else None,
        "evaluation": asdict(task.evaluation),
        **({"precision": task.precision} if task.precision != "fp32" else {}),
    }


def perform_all(
    jobs: Sequence[Job],
    *,
    title: str,
    workers: int = 2,
    engine: Engine = "local",
    resume: bool = False,
    progress: bool = True,
    before: Callable[[Sequence[Job]], object] = lambda left: None,
) -> list[Result]:
    """The results of all jobs, in order, from ``workers`` processes of one thread each (1: in this process).

    A run that diverges, or that cannot be made, has a result whose status says so. With ``resume`` finished runs are
    read, interrupted ones go on from their last saved state, and refused ones are tried again. ``before`` is told what
    is left to do, before any of it is done. ``engine``: see `run_all`.

    Raises UserError, before any work, where a folder holds another run, and for a judge that cannot tell what is to be
    forgotten.
    """
    if workers < 1:
        raise UserError(f"workers must be 1 or more; got {workers}")
    available(engine)
    for task in {job.task for job in jobs}:
        if (worth := judge_of(task)) is not None:
            worth.check()
    common = {task: common_identity(task) for task in {job.task for job in jobs}}
    pieces = [
        Piece(key=job.name, folder=job.out, identity=job.identity(common[job.task]), run=partial(perform, job))
        for job in jobs
    ]
    for piece in pieces:
        if resume and piece.done and Result.from_dict(piece.result).status.kind == "refused":
            shutil.rmtree(piece.folder)
    left = prepare(pieces, resume=resume)
    before([job for job, piece in zip(jobs, pieces, strict=True) if piece in left])
    with bar(title, len(jobs), done=len(jobs) - len(left), show=progress) as tick:

        def note(amount: float, note: str = "") -> None:
            tick(amount, note=f"{sum(piece.done for piece in pieces)} of {len(pieces)} runs")

        run_all(left, workers=workers, engine=engine, tick=note)
    return [Result.from_dict(piece.result) for piece in pieces]


def perform(job: Job, tick: Tick) -> dict[str, Any]:
    """Do what is left of a job; ``tick`` is told shares of it that sum to one. Returns its row."""
    report = _Report(tick, job.settings.steps)
    model, split, test, judge = inputs(job.task)
    cost, status = {}, FINISHED
    method = job.method.name if job.method is not None else model.record.get("method", {}).get("name", "standard")
    if job.method is not None:
        try:
            model, seconds, status = _made(job, model, split, judge, report)
            cost = _cost(job, seconds)
        except _Refused as refusal:
            status = refused(str(refusal))
    result = Result(model=job.name, method=method)
    if status.finished:
        model.to(job.task.place)
        result, subject = evaluate(
            model, name=job.name, method=method, judge=judge, request=split.request, test=test,
            settings=job.task.evaluation, stored=job.out / PART, progress=False,
        )  # fmt: skip
        write_bytes(job.out / GRID, png(grid(subject.pixels[: job.shown], columns=round(job.shown**0.5))))
        if job.samples is not None:
            clear(job.samples)
            save_samples(job.samples, subject.pixels)
    (job.out / PART).unlink(missing_ok=True)
    report.finish()
    return replace(result, measured={**result.measured, **cost}, status=status, seed=job.settings.seed).to_dict()


class _Refused(Exception):
    """The method cannot be used on this model and data."""


def _made(
    job: Job, parent: ScoreModel, split: Split, judge: Judge | None, report: _Report
) -> tuple[ScoreModel, float | None, Status]:
    """The unlearned model, the seconds it took if it was made in one go, and how the run ended."""
    assert job.method is not None
    if completed(job.out):
        with lock(job.out):  # clears that of a run which was killed as it ended
            model = load(job.out, module_factory=factory_of(parent.network))
        return model, None, Status.from_dict(model.record["status"])
    if job.refusal:
        raise _Refused(job.refusal)
    began, whole = time.monotonic(), not (job.out / STATE).exists()
    try:
        with _selected(job, parent, split, judge) as (part, watch):
            report.inner = watch
            model = unlearn(
                parent, part, method=job.method, settings=job.settings, confidence=_confidence(job, part), watch=report,
                earlier=job.task.earlier,
                run=RunSpec(
                    folder=job.out, resume=True, overwrite=True, device=job.task.device,
                    precision=job.task.precision, compile=job.task.compile, command=job.task.command,
                    progress=False,
                ),
            )  # fmt: skip
        status = FINISHED
    except Diverged as error:
        model, status = error.model, error.status
    except UserError as error:
        # Of a run that was under way it is not the method that is at fault.
        if not whole:
            raise
        raise _Refused(str(error)) from error
    return model, time.monotonic() - began if whole else None, status


def _confidence(job: Job, split: Split) -> Tensor | None:
    if job.method is None or not job.method.power or job.task.confidence is None:
        return None
    return retain_confidence(Judge.load(job.task.confidence), split, progress=False)


@contextmanager
def _selected(job: Job, parent: ScoreModel, split: Split, judge: Judge | None) -> Iterator[tuple[Split, Watch | None]]:
    """What to train on, and who watches: with a selection, without its held-out images."""
    if job.task.selection is None:
        yield split, None
        return
    if judge is None:
        raise UserError(f"{split.request} names single images, which no judge can watch; leave out the selection")
    with Selection(
        job.task.selection, split=split, judge=judge, parent=parent, steps=job.settings.steps, out=job.out
    ) as watch:
        yield watch.split, watch


def _cost(job: Job, seconds: float | None) -> dict[str, Measured]:
    """Steps taken and images seen, of both sets, as the log has them; the seconds, where they are known."""
    log = read_log(job.out)
    seen = sum(1 + (line["forget"] is not None) for line in log)
    found = {quantities.STEPS: len(log), quantities.IMAGES: job.settings.batch * seen, quantities.SECONDS: seconds}
    return {quantity.name: quantity.of(value) for quantity, value in found.items() if value is not None}


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
