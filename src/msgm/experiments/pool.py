"""Many independent pieces of work on several processes, each with one thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import torch

Item = TypeVar("Item")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    work: Callable[[Item], object], items: Sequence[Item], *, workers: int, done: Callable[[Item], None]
) -> None:
    """``work(item)`` for each, on ``workers`` processes (in this one if there is one only), then ``done(item)`` here.

    ``work`` is a function of a module, or a `functools.partial` of one. An error of any ends all, as does Ctrl-C, after
    what is under way: what they had written stays.
    """
    if workers == 1 or len(items) < 2:
        for item in items:
            work(item)
            done(item)
        return
    # Forked processes would inherit locks of torch's threads.
    context = get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_prepare)
    try:
        under_way = {executor.submit(partial(_quietly, work), item): item for item in items}
        for future in as_completed(under_way):
            if future.result():
                done(under_way[future])
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _prepare() -> None:
    torch.set_num_threads(1)
    # The terminal sends Ctrl-C to all: the parent answers it. Training listens to it too, and ends after its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _quietly(work: Callable[[Item], object], item: Item) -> bool:
    try:
        work(item)
    except KeyboardInterrupt:
        return False
    return True
