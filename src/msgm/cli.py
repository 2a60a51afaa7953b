"""The command line: finds the command, lets jsonargparse read its options, and turns errors into one line."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import fields
from inspect import signature
from typing import Any, get_type_hints

COMMANDS = {
    "demo": "forget 3 and 7 in a trained MNIST model, and prove it: table, report.html, results.json",
    "train": "train a score model from scratch, plainly or with any unlearning method",
    "train-judge": "train the classifier (with a junk class) that judges samples",
    "unlearn": "fine-tune a copy of a trained model so that it forgets what a rule selects",
    "sample": "draw images from a model into PNG files and a grid",
    "nll": "exact likelihoods of the retained and the forgotten test images",
    "evaluate": "unlearning ratio, junk, likelihoods: one table, results.json and a report",
    "methods": "the unlearning methods there are, and what each asks",
}

OVERVIEW = """usage: msgm COMMAND [options]

Make an image diffusion model stop generating what it was told not to, and prove it.

{commands}

  msgm COMMAND --help     what a command takes
  msgm --version

Start with: msgm demo --out runs/demo
"""


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit status: 0, 1 for a bug, 2 for bad input, 3 for a diverged run, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 2
        print(OVERVIEW.format(commands="\n".join(f"  {k:<{width}}{v}" for k, v in COMMANDS.items())), end="")
        return
    if argv[0] == "--version":
        from . import __version__

        print(f"msgm {__version__}")
        return
    name = argv[0]
    if name not in COMMANDS:
        _fail(2, f"no command {name!r}; known: {', '.join(COMMANDS)}")
    from .errors import UserError

    try:
        _run(name, argv[1:])
    except UserError as error:
        _fail(2, str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(
            2,
            f"could not read or write{where}: {error.strerror or error}; what was saved before is untouched",
        )
    except KeyboardInterrupt as error:
        _fail(130, str(error) or "interrupted")


def _run(name: str, argv: list[str]) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from jsonargparse import ArgumentParser

    from . import commands

    function = getattr(commands, name.replace("-", "_"))
    parser = ArgumentParser(prog=f"msgm {name}", description=(function.__doc__ or "").split("\n    Args:")[0].strip())
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    parser.add_function_arguments(function, as_group=False, skip={"settings", "command"})
    settings_class = get_type_hints(function).get("settings")
    if settings_class is not None:
        parser.add_class_arguments(settings_class, as_group=False)
    # Options may be spelt with dashes, as people do: --save-every is --save_every.
    argv = [
        a.split("=")[0].replace("-", "_").replace("__", "--", 1) + a[len(a.split("=")[0]) :]
        if a.startswith("--")
        else a
        for a in argv
    ]
    given = parser.parse_args(argv).as_dict()
    given.pop("config", None)
    if settings_class is not None:
        names = {f.name for f in fields(settings_class)}
        given["settings"] = settings_class(**{key: given.pop(key) for key in names})
    if "command" in signature(function).parameters:
        given["command"] = shlex.join(["msgm", name, *argv])
    from .training import Diverged

    try:
        function(**given)
    except Diverged as error:
        _fail(3, str(error))


def _fail(status: int, message: str) -> None:
    print(f"msgm: {message}", file=sys.stderr)
    raise SystemExit(status)
