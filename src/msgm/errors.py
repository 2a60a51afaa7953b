"""The one exception that means: the request itself is wrong, and here is what to do about it."""


class UserError(ValueError):
    """Bad input. Its message is one line that names the thing, what was expected and what to do.

    The command line prints it and exits with status 2; nothing has been written by then.
    """
