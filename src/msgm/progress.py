"""The progress bar of everything that takes more than a few seconds: share done, a note, time left; on stderr.

And the notes beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .processes import here

Tick = Callable[..., None]


def note(message: str) -> None:
    """A line to be seen that is no result, on stderr, above a bar."""
    print(f"note: {message}", file=sys.stderr, flush=True)


@contextmanager
def bar(title: str, total: float, *, done: int = 0, show: bool = True) -> Iterator[Tick]:
    """Yields ``tick(amount, note="")``, to be called with what was done since the last call.

    Of several processes the first shows it.
    """
    if not show or not here().first:
        yield lambda amount, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # The time left is judged by the last minutes: some kinds of work report only now and then.
    with Progress(*columns, console=Console(file=sys.stderr), speed_estimate_period=300) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")
        yield lambda amount, note="": progress.update(task, advance=amount, note=note)
        # Shares of images do not add up to the last bit.
        progress.update(task, completed=total)
