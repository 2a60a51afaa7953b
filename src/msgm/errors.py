"""What a run can end with but for success: a request that is wrong, or a signal from outside."""

import signal


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


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal: Ctrl-C, or SIGTERM or SIGHUP, which a scheduler and a closed terminal send.

    What was done is saved, and where it is ``resumable`` a run with ``resume`` goes on from there. The command line
    exits with 128 and the ``number``.
    """

    def __init__(self, message: str = "interrupted", number: int = signal.SIGINT, *, resumable: bool = False) -> None:
        super().__init__(message)
        self.number, self.resumable = number, resumable
