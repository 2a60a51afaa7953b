"""What a run can end with but for success: a request that is wrong, or a signal from outside."""

from __future__ import annotations

import signal
from collections.abc import Mapping


class UserError(ValueError):
    """Bad input. Its message is one line that names the thing, what was expected and what to do.

    Args:
        message: the line, in words that hold in Python as well as on a command line.
        option: the setting that mends it, as ``data.size``, where there is one; a face says how it is set there.

    The command line prints it and exits with status 2; nothing has been written by then.
    """

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


def in_range(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise UserError for a field that does not lie from the one number to the other, both allowed, or is NaN."""
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise UserError(f"{name} must lie between {least:g} and {most:g}; got {value}", option=name)


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal: Ctrl-C, or SIGTERM or SIGHUP, which a scheduler and a closed terminal send.

    What was done is saved, and where it is ``resumable`` a run with ``resume`` goes on from there. The command line
    exits with 128 and the ``number``.
    """

    def __init__(self, message: str = "interrupted", number: int = signal.SIGINT, *, resumable: bool = False) -> None:
        super().__init__(message)
        self.number, self.resumable = number, resumable

    @classmethod
    def by(cls, stop: KeyboardInterrupt, message: str) -> Interrupted:
        """One that can be gone on with, by the signal that is behind ``stop``."""
        return cls(message, getattr(stop, "number", signal.SIGINT), resumable=True)
