"""A command line run apart: in a forked child of this process, which has torch imported already, and watched."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BEGAN, CRASHED = 77, 1
"""Exit statuses: the work began, a bug."""
GiB = 2**30


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command line ended: its exit status (minus a signal that killed it), what it said, and what it took.

    ``seconds`` are of this thread's processor, ``wall`` of the clock; ``memory`` is in bytes, above the parent's own.
    """

    pid: int
    status: int
    out: str
    err: str
    seconds: float
    wall: float
    memory: int

    @property
    def hung(self) -> bool:
        """Whether it was killed for its time."""
        return self.status == -signal.SIGKILL


def preload() -> None:
    """Import what commands import on their way: each child would spend its time on it."""
    import datasets  # noqa: F401
    import diffusers
    import jinja2  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import rich.progress
    import rich.table  # noqa: F401
    import scipy.stats  # noqa: F401

    import msgm.cli.commands
    import msgm.cli.reader
    import msgm.experiments.demo.main
    import msgm.experiments.toy.main  # noqa: F401

    assert diffusers.UNet2DModel


def run(
    action: Callable[[], object],
    place: Path,
    *,
    limit: float = 60.0,
    memory: int = 4 * GiB,
    strike: tuple[float, int] | None = None,
) -> Ended:
    """Do it in a child with so much more memory than now, killed after ``limit`` seconds.

    Files of its output go to ``place``. ``strike``: seconds, and a signal that it gets after them.
    """
    outs = [place / name for name in ("out.txt", "err.txt")]
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_inside(action, outs, memory))
    status, used = None, None
    while status is None:
        pid, code, used = os.wait4(child, os.WNOHANG)
        if pid:
            status = os.waitstatus_to_exitcode(code)
        elif strike is not None and time.monotonic() - began > strike[0]:
            os.kill(child, strike[1])
            strike = None
        elif time.monotonic() - began > limit:
            os.kill(child, signal.SIGKILL)
            _, code, used = os.wait4(child, 0)
            status = os.waitstatus_to_exitcode(code)
        else:
            time.sleep(0.003)
    assert used is not None
    # What a child has from the start; of the libraries' files, which it maps again, all that it reads is its own.
    status_of = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own = 1024 * int(status_of["RssAnon"].split()[0])
    said = [path.read_text(encoding="utf-8", errors="backslashreplace") for path in outs]
    return Ended(
        pid=child, status=status, out=said[0], err=said[1], seconds=used.ru_utime + used.ru_stime,
        wall=time.monotonic() - began, memory=max(0, 1024 * used.ru_maxrss - own),
    )  # fmt: skip


def command(words: Sequence[str], *, until_work: bool = False) -> Callable[[], object]:
    """The command line; ``until_work`` ends it with `BEGAN` where its first progress bar is to appear."""

    # Before the child is there: a signal is to meet the command, and not what brings it here.
    from msgm.cli.main import main

    def action() -> None:
        if until_work:
            import rich.progress

            rich.progress.Progress.__init__ = lambda *given, **named: os._exit(BEGAN)  # type: ignore[method-assign]
        main([str(word) for word in words])

    return action


def _inside(action: Callable[[], object], outs: Sequence[Path], memory: int) -> int:
    for number, path in zip((1, 2), outs, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    status = CRASHED
    try:
        action()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return status
