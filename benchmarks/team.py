"""Work by several processes that meet as those of a launcher do; one that is alone is a process of its own, too."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from msgm.processes import joined

Work = Callable[..., Any]


@contextmanager
def team(size: int, threads: int = 1) -> Iterator[Callable[..., list[Any]]]:
    """Yields ``call(work, ...)``: what each of the processes gives back. They stay until the end of the block."""
    context, port, lines, processes = get_context("spawn"), _free_port(), list[Connection](), list[Any]()
    for rank in range(size):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_member, args=(rank, size, port, threads, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        lines.append(ours)

    def call(work: Work, *given: Any) -> list[Any]:
        for line in lines:
            line.send((work, given))
        return [line.recv() for line in lines]

    try:
        yield call
    finally:
        for line in lines:
            line.close()
        for process in processes:
            process.join()


def _member(rank: int, size: int, port: int, threads: int, line: Connection) -> None:
    told = {"RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ |= {name: str(value) for name, value in told.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(threads)
    with joined():
        while (asked := _next(line)) is not None:
            work, given = asked
            line.send(work(*given))


def _next(line: Connection) -> tuple[Work, Sequence[Any]] | None:
    try:
        return line.recv()  # type: ignore[no-any-return]
    except EOFError:
        return None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
