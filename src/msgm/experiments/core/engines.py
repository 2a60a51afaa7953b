"""Pieces of work on several machines: as tasks of a Ray cluster, or as jobs of SLURM. Who schedules them is theirs.

All machines have the same disk under the same paths, and this package. Results are files in the pieces' folders, so
what is resumed does not depend on the engine that began it.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, Literal, Protocol

import torch

from ...errors import UserError
from ...progress import Tick
from .pieces import Piece

Engine = Literal["local", "ray", "slurm"]
Outcome = tuple[object, ...]
"""``done``; ``stopped`` by a signal; ``failed`` and the error."""

NEEDS = {"ray": "ray", "slurm": "submitit"}
CLUSTER, DAY = "slurm", 24 * 60
"""submitit's name for it; minutes that a job may take unless SBATCH_TIMELIMIT says otherwise."""
PATIENCE = 60.0
"""Seconds that what is ended has to save its state."""


def available(engine: Engine) -> None:
    """Raise UserError where the engine's package is not installed, or there is no SLURM here."""
    if engine in NEEDS and find_spec(NEEDS[engine]) is None:
        raise UserError(
            f"{engine} needs the package {NEEDS[engine]}; install the extra: pip install 'msgm[{engine}]'",
            option="engine",
        )
    if engine == CLUSTER and shutil.which("sbatch") is None:
        raise UserError("slurm needs sbatch, which is not here; start on a machine of the cluster", option="engine")


def lost() -> UserError:
    """What is said where a process or a machine is gone."""
    return UserError(
        "a process ended unexpectedly, for want of memory perhaps; what is finished is kept: resume, on fewer of them "
        "if need be",
        option="resume",
    )


def settle(outcome: Outcome) -> None:
    """Raise what is told of a piece that is not done."""
    if outcome[0] == "stopped":
        raise KeyboardInterrupt
    if outcome[0] == "failed":
        raise outcome[1]  # type: ignore[misc]


def outcome_of(piece: Piece, tick: Tick) -> Outcome:
    """Do a piece in this process. SIGINT breaks it off, or is answered by a training that is under way."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        piece.do(tick)
        return ("done",)
    except KeyboardInterrupt:
        return ("stopped",)
    except Exception as error:
        if not isinstance(error, UserError):
            error.add_note(f"in a worker:\n{traceback.format_exc()}")
        return "failed", error
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Cluster(Protocol):
    """Where pieces are done, each under a handle."""

    def submit(self, pieces: Sequence[Piece]) -> Mapping[Any, Piece]:
        """All of them, at once."""

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Those that have ended, after a second at most."""

    def outcome(self, handle: Any) -> Outcome:
        """Of one that has ended. Raises UserError for one that is lost."""

    def cancel(self, handles: Sequence[Any]) -> None:
        """End them, and wait until they have saved their state."""


def run_on(
    engine: Engine, pieces: Sequence[Piece], *, threads: int, tick: Tick, ended: Callable[[Piece], object]
) -> None:
    """Do all pieces on a cluster, each with so many threads. However this ends, nothing goes on after it."""
    with _clusters()[engine](pieces, threads) as cluster:
        under_way = dict(cluster.submit(pieces))
        try:
            while under_way:
                for handle in cluster.ended(list(under_way)):
                    settle(cluster.outcome(handle))
                    piece = under_way.pop(handle)
                    tick(piece.cost, note=piece.key)
                    ended(piece)
        except BaseException:
            cluster.cancel(list(under_way))
            raise


def _clusters() -> Mapping[str, Callable[[Sequence[Piece], int], AbstractContextManager[Cluster]]]:
    return {"ray": _ray, "slurm": _slurm}


def _away(folder: Path, threads: int, piece: Piece) -> Outcome:
    """A piece, in a process somewhere else, from the same folder as here."""
    os.chdir(folder)
    torch.set_num_threads(threads)
    return outcome_of(piece, lambda amount, note="": None)


class _Ray:
    def __init__(self, threads: int) -> None:
        self.threads = threads

    def submit(self, pieces: Sequence[Piece]) -> Mapping[Any, Piece]:
        import ray

        most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if most < self.threads:
            raise UserError(f"no machine of the Ray cluster has {self.threads} CPUs; take fewer threads")
        # A training that was broken off by its machine is not begun again behind our back: it is resumed.
        task = ray.remote(num_cpus=self.threads, num_gpus=min(1, ray.cluster_resources().get("GPU", 0)), max_retries=0)(
            _away
        )
        return {task.remote(Path.cwd(), self.threads, piece): piece for piece in pieces}

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        import ray

        ready: Sequence[Any] = ray.wait(list(handles), timeout=1.0)[0]
        return ready

    def outcome(self, handle: Any) -> Outcome:
        import ray

        try:
            found: Outcome = ray.get(handle)
        except ray.exceptions.TaskCancelledError:
            return ("stopped",)
        except ray.exceptions.RayError as error:
            raise lost() from error
        return found

    def cancel(self, handles: Sequence[Any]) -> None:
        import ray

        for handle in handles:
            ray.cancel(handle)
        if handles:
            _, left = ray.wait(list(handles), num_returns=len(handles), timeout=PATIENCE)
            for handle in left:
                ray.cancel(handle, force=True)


@contextmanager
def _ray(pieces: Sequence[Piece], threads: int) -> Iterator[Cluster]:
    """The cluster that RAY_ADDRESS names, or that was started here; else one of this machine alone, for the time."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    there = {name: value for name, value in os.environ.items() if name.startswith(("MSGM_", "HF_"))}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": there})
    for number, handler in handlers.items():  # Ray has put its own in their place
        signal.signal(number, handler)
    try:
        yield _Ray(threads)
    finally:
        ray.shutdown()


class _Slurm:
    def __init__(self, folder: Path, threads: int) -> None:
        import submitit

        self.folder, self.threads = folder, threads
        self.executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        self.executor.update_parameters(name="msgm", nodes=1, timeout_min=DAY, cpus_per_task=threads)

    def submit(self, pieces: Sequence[Piece]) -> Mapping[Any, Piece]:
        jobs = self.executor.map_array(partial(_job, self.folder, Path.cwd(), self.threads), pieces)
        return dict(zip(jobs, pieces, strict=True))

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        found = [job for job in handles if job.done()]
        if not found:
            time.sleep(1.0)
        return found

    def outcome(self, handle: Any) -> Outcome:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            found: Outcome = handle.result()
        except (FailedJobError, UncompletedJobError) as error:
            raise lost() from error
        return found

    def cancel(self, handles: Sequence[Any]) -> None:
        for job in handles:
            job.cancel(check=False)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not all(job.done() for job in handles):
            time.sleep(0.1)


@contextmanager
def _slurm(pieces: Sequence[Piece], threads: int) -> Iterator[Cluster]:
    """Jobs of SLURM. What they wait for lies in a folder beside the pieces'; they end where it is gone."""
    folder = (pieces[0].folder.parent / ".jobs" / str(time.time_ns())).resolve()
    # Those of a run that was killed would write beside ours.
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield _Slurm(folder, threads)
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def _job(folder: Path, here: Path, threads: int, piece: Piece) -> Outcome:
    """A piece as a job: what SLURM sends before it kills is as Ctrl-C."""

    def stop(number: int, frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, stop)
    Thread(target=_end_without, args=(folder,), daemon=True).start()
    return _away(here, threads, piece)


def _end_without(folder: Path, every: float = 5.0) -> None:
    """Nothing may be written any more once the folder is gone: another run may be at work there."""
    while folder.exists():
        time.sleep(every)
    os._exit(1)
