"""The command line: finds the command, lets jsonargparse read its options, and turns errors into one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from ast import literal_eval
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any, NoReturn, get_type_hints

COMMANDS = {
    "demo": "forget 3 and 7 in a trained MNIST model, and prove it: table, report.html, results.json",
    "train": "train a score model from scratch, plainly or with any unlearning method",
    "train-judge": "train the classifier (with a junk class) that judges samples",
    "unlearn": "fine-tune a copy of a trained model so that it forgets what a rule selects",
    "sample": "draw images from a model into PNG files and a grid",
    "nll": "exact likelihoods of the retained and the forgotten test images",
    "inpaint": "fill in the unknown pixels of images, and measure what with",
    "reconstruct": "rebuild images from their own latents, and measure how well",
    "evaluate": "unlearning ratio, junk, likelihoods: one table, results.json and a report",
    "audit": "attack a model with its weights in hand: what an adversary gets back, and a verdict",
    "sweep": "many methods and settings with one budget: one table, and which of them no other beats",
    "reproduce": "an experiment of the paper again; toy: with exact answers, in minutes",
    "inspect": "how a model is read: its family, process, prediction, size and weights",
    "convert": "write a model of another family down as a folder of ours",
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
    """Entry point.

    Exit status: 0, 1 for a bug, 2 for bad input, 3 for a diverged run, 128 + n for signal n: 130 for Ctrl-C.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 2
        print(OVERVIEW.format(commands="\n".join(f"  {k:<{width}}{v}" for k, v in COMMANDS.items())), end="")
        return
    if argv[0] == "--version":
        from .. import __version__

        print(f"msgm {__version__}")
        return
    name = argv[0]
    if name not in COMMANDS:
        _fail(2, f"no command {name!r}; known: {', '.join(COMMANDS)}")
    from ..errors import UserError

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not where nohup has it ignored
            signal.signal(number, _interrupt)
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
        _fail(128 + getattr(error, "number", signal.SIGINT), str(error) or "interrupted")


def _run(name: str, argv: list[str]) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from ..training.loop import Diverged
    from . import commands

    function = getattr(commands, name.replace("-", "_"))
    given = _parse(name, function, argv)
    if "command" in signature(function).parameters:
        given["command"] = shlex.join(["msgm", name, *argv])
    try:
        function(**given)
    except Diverged as error:
        _fail(3, str(error))


def _parse(name: str, function: Callable[..., None], argv: list[str]) -> dict[str, Any]:
    """Options of a command's own parameters and of the fields of its settings, all on one level.

    A name that several settings have (``seed``) is one option, for all of them.
    """
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def format_help(self, *args: Any, **kwargs: Any) -> str:
            return re.sub(r"--\w+", lambda option: option[0].replace("_", "-"), super().format_help(*args, **kwargs))

    description, _, details = (function.__doc__ or "").partition("\n    Args:")
    parser = Parser(prog=f"msgm {name}", description=description.strip(), exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    hints = get_type_hints(function)
    positional = {"model", "experiment"} & set(hints)
    for key in positional:
        help = re.search(rf"{key}: (.+)", details)[1]  # type: ignore[index]
        parser.add_argument(key, type=hints[key], help=help)
    groups: dict[str, Any] = {key: kind for key, kind in hints.items() if is_dataclass(kind)}
    parser.add_function_arguments(function, as_group=False, skip={*groups, "command", *positional})
    names = {key: [field.name for field in fields(kind)] for key, kind in groups.items()}
    there: set[str] = set()
    for key, kind in groups.items():
        parser.add_class_arguments(kind, as_group=False, skip=there & set(names[key]))
        there |= set(names[key])
        hints |= get_type_hints(kind)
    flags = {f"--{key}" for key, kind in hints.items() if kind is bool}
    try:
        given = parser.parse_args(_spell(argv, flags)).as_dict()
    except (ArgumentError, TypeError) as error:
        message = " ".join(str(error).split())
        _fail(2, f"{message} (msgm {name} --help lists the options)")
    given.pop("config", None)
    settings = {key: kind(**{name: given[name] for name in names[key]}) for key, kind in groups.items()}
    return {key: value for key, value in given.items() if key not in there} | settings


def _spell(argv: list[str], flags: set[str]) -> list[str]:
    """``--save-every`` as ``--save_every``, ``-n`` as ``--n``, a bare ``--resume`` as ``--resume=true``.

    All of ``--set NAME=VALUE`` become one JSON object, with numbers, True, False and None read as in Python.
    """
    spelt: list[str] = []
    chosen: dict[str, Any] = {}
    for place, word in enumerate(argv):
        if word == "--set" or (place and argv[place - 1] == "--set"):
            if word != "--set":
                name, equals, value = word.partition("=")
                if not equals:
                    _fail(2, f"--set {word}: write --set NAME=VALUE")
                with suppress(ValueError, SyntaxError):
                    chosen[name.replace("-", "_")] = value
                    chosen[name.replace("-", "_")] = literal_eval(value)
            continue
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            option = "--" + option[2:].replace("-", "_")
        elif option == "-n":
            option = "--n"
        following = argv[place + 1] if place + 1 < len(argv) else ""
        if option in flags and not equals and following not in ("true", "false"):
            equals, value = "=", "true"
        spelt.append(option + equals + value)
    return spelt + ([f"--set={json.dumps(chosen)}"] if chosen else [])


def _interrupt(number: int, frame: object) -> NoReturn:
    """What schedulers and closing terminals send is as Ctrl-C."""
    from ..errors import Interrupted

    raise Interrupted(number=number)


def _fail(status: int, message: str) -> NoReturn:
    print(f"msgm: {message}", file=sys.stderr)
    raise SystemExit(status)
