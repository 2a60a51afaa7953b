"""Many independent pieces of work on several processes, each with one thread; each stores its result as it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...errors import UserError
from ...progress import Tick
from ...storage import read_json

Item = TypeVar("Item")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begun(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the work that ``path`` describes (JSON, written at its start) was begun.

    Raises UserError where it was begun with another identity than this.
    """
    if not path.exists():
        return False
    if read_json(path) != json.loads(json.dumps(identity)):
        raise UserError(
            f"{path.parent} was begun with other settings, data or parent; resume with the same or use another folder"
        )
    return True


def run_all(work: Callable[[Item, Tick], object], items: Sequence[Item], *, workers: int, tick: Tick) -> None:
    """``work(item, tick)`` for each, on ``workers`` processes (in this one if there is one only).

    ``work`` is a function of a module, or a `functools.partial` of one; what it tells ``tick`` is told here. An error
    of any ends all. Ctrl-C, or SIGINT to this process alone, ends all, too: training saves its state after the step,
    and what was stored stays.
    """
    try:
        if workers == 1 or len(items) < 2:
            for item in items:
                work(item, tick)
        else:
            _spread(work, items, min(workers, len(items)), tick)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; what is finished is kept, go on with --resume") from None


def _spread(work: Callable[[Item, Tick], object], items: Sequence[Item], workers: int, tick: Tick) -> None:
    # Forked processes would inherit locks of torch's threads.
    context = get_context("spawn")
    told, stop = context.SimpleQueue(), context.Event()
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(told, stop))

    def listen() -> None:
        while not told.empty():
            amount, note = told.get()
            tick(amount, note=note)

    others = set(active_children())
    # A process that is still starting takes over what is ignored here: Ctrl-C is not its end.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = {executor.submit(_piece, work, item) for item in items}
    signal.signal(signal.SIGINT, before)
    ours = set(active_children()) - others
    try:
        while running:
            ended, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            listen()
            if not all([future.result() for future in ended]):
                raise KeyboardInterrupt
    except BrokenProcessPool:
        raise UserError(
            "a process ended unexpectedly, for want of memory perhaps; go on with --resume, on fewer of them if need be"
        ) from None
    except BaseException:
        stop.set()
        # Where a terminal has sent it to all of them, they get it twice, which does no harm.
        for pid in filter(None, (process.pid for process in ours & set(active_children()))):
            os.kill(pid, signal.SIGINT)
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """What a process of the pool has of the one that waits for it."""

    told: Any
    stop: Any


def _prepare(told: Any, stop: Any) -> None:
    torch.set_num_threads(1)
    _Worker.told, _Worker.stop = told, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _piece(work: Callable[[Item, Tick], object], item: Item) -> bool:
    """Do it, unless all is to end, and say whether it is done.

    SIGINT breaks it off, or is answered by a training that is under way.
    """
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if _Worker.stop.is_set():
            return False
        work(item, lambda amount, note="": _Worker.told.put((amount, note)))
        return True
    except KeyboardInterrupt:
        return False
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
