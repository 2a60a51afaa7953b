"""Signals that ask a run to stop are answered after a whole step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C; what schedulers send before they kill; what a terminal sends as it closes."""


@contextmanager
def stopping() -> Iterator[Callable[[], int]]:
    """Yields a function that says which signal has come, 0 if none; outside the main thread they act as ever.

    A signal that is ignored, as SIGHUP is under nohup, stays so; but for Ctrl-C, which shells ignore for what they
    start in the background.
    """
    came = 0

    def note(number: int, frame: object) -> None:
        nonlocal came
        came = number

    before = {}
    try:
        for number in SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    except ValueError:
        yield lambda: 0
        return
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
