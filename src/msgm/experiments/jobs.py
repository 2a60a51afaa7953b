"""Many unlearning runs, each with its audit, in several processes: each result is stored as it ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import EMBEDDED, RECORD, embedded, load, weights_sha256
from ..data import ForgetRequest, ImageData, Split, load_data
from ..errors import UserError
from ..evaluation.audit import EvaluateSettings, check, evaluate
from ..evaluation.judge import Judge
from ..evaluation.report import Row, grid, png, write_json
from ..evaluation.selection import Selection, SelectSettings
from ..forgetting.methods import Method
from ..progress import bar
from ..runs import read_log
from ..score import ScoreModel
from ..storage import read_json, write_bytes
from ..training import Diverged, UnlearnSettings, Watch, unlearn

JOB, ROW, GRID = "job.json", "row.json", "grid.png"
TRAINING = 0.7
"""Share of a run's time that its training takes, roughly: for the progress bar."""

Tick = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all runs have in common, by name: it goes to other processes. ``judge`` is a folder, or demo."""

    model: str
    data: str
    data_dir: str | None = None
    image_size: int | None = None
    rule: str
    judge: str
    evaluation: EvaluateSettings
    selection: SelectSettings | None = None
    device: str = "cpu"
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a method and a seed. Without a method, the audit of the model that the runs start from."""

    name: str
    out: Path
    task: Task
    method: Method | None = None
    settings: UnlearnSettings

    def identity(self, common: str) -> dict[str, Any]:
        """What the row depends on; ``common`` is the `fingerprint` of the task."""
        method = self.method.to_dict() if self.method is not None else None
        return {"task": common, "method": method, "settings": asdict(self.settings)}


@lru_cache(maxsize=1)
def inputs(task: Task) -> tuple[ScoreModel, Split, ImageData, Judge]:
    """The model, the training images in two, the test images and the judge. Raises UserError where they do not fit."""
    source = {"data_dir": task.data_dir, "image_size": task.image_size}
    model, request = load(task.model), ForgetRequest(task.rule)
    judge = Judge.load(embedded("judge") if task.judge == EMBEDDED else task.judge)
    test = load_data(task.data, split="test", **source)  # type: ignore[arg-type]
    check(model, judge, request, test)
    return model, request.split(load_data(task.data, **source)), test, judge  # type: ignore[arg-type]


def fingerprint(task: Task) -> str:
    """Hash of the model, data, rule, judge and settings that all runs have in common."""
    model, split, test, judge = inputs(task)
    selection = asdict(task.selection) if task.selection is not None else None
    parts = [weights_sha256(model.network), split.to_dict(), test.sha256, weights_sha256(judge), selection]
    return hashlib.sha256(json.dumps([*parts, asdict(task.evaluation)], sort_keys=True).encode()).hexdigest()


def perform_all(
    jobs: Sequence[Job], *, title: str, workers: int = 2, resume: bool = False, progress: bool = True
) -> list[Row]:
    """The rows of all jobs, in order, from ``workers`` processes of one thread each (1: in this process).

    A run that diverges, or that its method refuses, has a row whose ``status`` says so. With ``resume`` finished
    runs are read and interrupted ones go on from their last saved state. Ctrl-C saves the runs under way.

    Raises UserError, before any work, where a folder holds another run.
    """
    if workers < 1:
        raise UserError(f"workers must be 1 or more; got {workers}")
    common = {task: fingerprint(task) for task in {job.task for job in jobs}}
    identities = [json.loads(json.dumps(job.identity(common[job.task]))) for job in jobs]
    for job, identity in zip(jobs, identities, strict=True):
        if resume and (job.out / JOB).exists() and read_json(job.out / JOB) != identity:
            raise UserError(f"{job.out} was begun with other settings, data or parent; use the same or another folder")
    for job, identity in zip(jobs, identities, strict=True):
        if not resume:
            shutil.rmtree(job.out, ignore_errors=True)
        if not (job.out / JOB).exists():
            write_json(job.out / JOB, identity)
    left = [job for job in jobs if not (job.out / ROW).exists()]
    done = len(jobs) - len(left)
    with bar(title, len(jobs), done=done, show=progress) as tick:

        def note(amount: float) -> None:
            finished = sum((job.out / ROW).exists() for job in jobs)
            tick(amount, note=f"{finished} of {len(jobs)} runs")

        try:
            if workers == 1 or len(left) < 2:
                for job in left:
                    perform(job, note)
            else:
                _in_processes(left, min(workers, len(left)), note)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command with --resume goes on") from None
    return [Row.from_dict(read_json(job.out / ROW)) for job in jobs]


def perform(job: Job, tick: Tick, stop: Callable[[], bool] = lambda: False) -> None:
    """Do what is left of a job and store its row; ``tick`` is called with shares of the job that sum to one."""
    report = _Report(tick, job.settings.steps, stop)
    model, split, test, judge = inputs(job.task)
    seconds, extra = None, {"status": "finished", "seed": job.settings.seed}
    method = job.method.name if job.method is not None else "standard"
    if job.method is not None:
        try:
            model, seconds = _made(job, model, split, judge, report)
        except UserError as error:
            extra["status"] = f"refused: {error}"
        else:
            extra |= {"status": model.record["status"], **_cost(job)}
    if extra["status"] == "finished":
        model.to("cuda" if job.task.device != "cpu" and torch.cuda.is_available() else "cpu")
        row, pixels = evaluate(
            model, name=job.name, method=method, judge=judge, request=split.request, test=test,
            settings=job.task.evaluation, seconds=seconds, progress=False,
        )  # fmt: skip
        extra = {**row.extra, **extra}
        write_bytes(job.out / GRID, png(grid(pixels[:36].cpu(), columns=6)))
        measured = row.to_dict() | extra
    else:
        measured = Row(model=job.name, method=method, seconds=seconds, extra=extra).to_dict()
    write_json(job.out / ROW, measured)
    report.finish()


def _made(job: Job, parent: ScoreModel, split: Split, judge: Judge, report: _Report) -> tuple[ScoreModel, float | None]:
    """The unlearned model, and the seconds it took if it was made in one go."""
    assert job.method is not None
    if (job.out / RECORD).exists():
        return load(job.out), None
    began, whole = time.monotonic(), not (job.out / "log.jsonl").exists()
    with _selected(job, parent, split, judge) as (part, watch):
        report.inner = watch
        try:
            model = unlearn(
                parent, part, method=job.method, settings=job.settings, out=job.out, resume=True, overwrite=True,
                device=job.task.device, progress=False, command=job.task.command, watch=report,
            )  # fmt: skip
        except Diverged as error:
            model = error.model
    return model, time.monotonic() - began if whole else None


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
    """A `Watch` that tells how far a run is, passes on a request to stop, and lets another watch look."""

    def __init__(self, tick: Tick, steps: int, stop: Callable[[], bool]) -> None:
        self.tick, self.steps, self.stop = tick, steps, stop
        self.told = 0.0
        self.inner: Watch | None = None

    def __call__(self, step: int, average: ScoreModel) -> bool:
        share = TRAINING * step / self.steps
        self.tick(share - self.told)
        self.told = share
        if self.stop():
            os.kill(os.getpid(), signal.SIGINT)  # the loop ends this step and saves
        return self.inner is not None and self.inner(step, average)

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return self.inner.ship(average) if self.inner is not None else {}

    def finish(self) -> None:
        self.tick(1 - self.told)


def _in_processes(jobs: Sequence[Job], workers: int, tick: Tick) -> None:
    """Each job in a fresh interpreter's process; ticks come back through a queue."""
    context = get_context("spawn")
    with context.Manager() as manager:
        ticks, stop = manager.Queue(), manager.Event()

        def drain() -> None:
            while not ticks.empty():
                tick(ticks.get())

        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet)
        try:
            running: set[Future[None]] = {pool.submit(_worker, job, ticks, stop) for job in jobs}
            while running:
                ended, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                drain()
                for future in ended:
                    future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, for want of memory perhaps; the same command with --resume goes on, "
                "with fewer --workers if need be"
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            drain()


def _quiet() -> None:
    """One thread each; Ctrl-C is for the run's own loop, which saves, and for the process that waits."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _worker(job: Job, ticks: Any, stop: Any) -> None:
    if not stop.is_set():
        perform(job, ticks.put, stop.is_set)
