"""Pieces of work on several processes of one thread each, which end with the one that started them, or elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread

import torch

from ...errors import Interrupted
from ...progress import Tick
from .engines import Engine, lost, outcome_of, run_on, settle
from .pieces import Piece


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    pieces: Sequence[Piece],
    *,
    workers: int,
    tick: Tick,
    ended: Callable[[Piece], object] = lambda piece: None,
    engine: Engine = "local",
) -> None:
    """Do each piece, on ``workers`` processes (in this one if there is one only); what they tell is told here.

    ``ended`` is told of each piece that is done. Another ``engine`` takes the pieces to other machines, as many at a
    time as it has room for, with one thread each, or with those of this process where there is one worker.

    An error of any ends all. Ctrl-C, or SIGINT to this process alone, ends all, too: training saves its state after the
    step, and what was stored stays. However this process ends, SIGKILL included, its workers end with it.
    """
    try:
        if engine != "local":
            if pieces:
                threads = torch.get_num_threads() if workers == 1 else 1
                run_on(engine, pieces, threads=threads, tick=tick, ended=ended)
        elif workers == 1 or len(pieces) < 2:
            for piece in pieces:
                piece.do(tick)
                ended(piece)
        else:
            with _workers(min(workers, len(pieces))) as lines:
                _spread(pieces, lines, tick, ended)
    except KeyboardInterrupt as stop:
        raise Interrupted.by(stop, "interrupted; what is finished is kept") from None


def _spread(pieces: Sequence[Piece], lines: Sequence[Connection], tick: Tick, ended: Callable[[Piece], object]) -> None:
    """Give each worker a piece, and the next one when it has done it."""
    waiting = iter(pieces)
    busy = {line: next(waiting) for line in lines}
    for line, piece in busy.items():
        line.send(piece)
    while busy:
        ready = wait(list(busy))
        for line in [line for line in lines if line in ready]:
            try:
                said, *more = line.recv()
            except (EOFError, OSError):
                raise lost() from None
            if said == "tick":
                tick(*more)
            else:
                settle((said, *more))
                ended(busy.pop(line))
                if (following := next(waiting, None)) is not None:
                    busy[line] = following
                    line.send(following)


@contextmanager
def _workers(number: int) -> Iterator[list[Connection]]:
    """The lines to as many workers, which end with this block: at once where it ends by an error."""
    # Forked processes would inherit locks of torch's threads.
    context, lines, processes = get_context("spawn"), [], []
    # A process that is still starting takes over what is ignored here: Ctrl-C is not its end.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            lines.append(ours)
            processes.append(process)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield lines
    except BaseException:
        _interrupt(processes)
        raise
    finally:
        for line in lines:
            line.close()
        for process in processes:
            process.join()


def _interrupt(processes: Sequence[BaseProcess]) -> None:
    """Where a terminal has sent SIGINT to all of them, they get it twice, which does no harm."""
    for process in processes:
        with suppress(ProcessLookupError):
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGINT)


def _work(line: Connection) -> None:
    """What a worker does: piece by piece, until there is nobody to tell."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()

    def tick(amount: float, note: str = "") -> None:
        line.send(("tick", amount, note))

    with suppress(EOFError, OSError):
        while True:
            line.send(outcome_of(line.recv(), tick))


def _end_with_parent() -> None:
    """Nothing may be written any more once the process that started this one is gone: another may use the folder."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
