"""The command line: finds the command, has its options read, and turns errors into one line."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from inspect import signature
from io import TextIOWrapper
from typing import NoReturn

COMMANDS = {
    "demo": "forget 3 and 7 in a trained MNIST model, and prove it: table, report.html, results.json",
    "train": "train a score model from scratch, plainly or with any unlearning method",
    "train-judge": "train the classifier (with a junk class) that judges samples",
    "request": "which images a request means, and the nearest it would keep, before anything is trained",
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
    "show": "the chain of a model's records, checked: what it was made to forget, request by request",
    "convert": "write a model of another family down as a folder of ours",
    "push": "bring a model to the hub, with a card made from its record and its audit",
    "methods": "the unlearning methods there are, and what each asks",
}

TOGETHER = ("train", "unlearn", "sample", "nll", "evaluate", "audit")
"""What several processes do together, started by torchrun."""
OVERVIEW = """usage: msgm COMMAND [options]

Make an image diffusion model stop generating what it was told not to, and prove it.

{commands}

  msgm COMMAND --help     what a command takes
  msgm --version

Start with: msgm demo --out runs/demo
"""
LONGEST = 300
"""Characters of a message."""
STRUCK: list[int] = []
"""The signals that this command got."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point.

    Exit status: 0, 1 for a bug, 2 for bad input, 3 for a diverged run, 128 + n for signal n: 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # in an ASCII locale ± is written as \xb1
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS)) + 2
        print(OVERVIEW.format(commands="\n".join(f"  {k:<{width}}{v}" for k, v in COMMANDS.items())), end="")
        return
    if argv[0] == "--version":
        from .. import __version__

        print(f"msgm {__version__}")
        return
    if odd := next((word for word in argv if not word.isprintable()), None):
        _fail(2, f"{odd!r} has a character that cannot be printed; leave it out")
    name = argv[0]
    if name not in COMMANDS:
        _fail(2, f"no command {name!r}; known: {', '.join(COMMANDS)}")
    from ..errors import UserError
    from ..processes import here

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # nohup may have it ignored
            signal.signal(number, _interrupt)
    STRUCK.clear()
    try:
        _run(name, argv[1:])
    except Exception as error:
        if STRUCK:  # some libraries take what the handler raises in them for an error of their own
            _fail(128 + STRUCK[0], "interrupted")
        if isinstance(error, UserError):
            _fail(2, f"{error} (--{error.option.replace('_', '-')})" if error.option else str(error))
        if isinstance(error, OSError):
            where = f" ({error.filename})" if error.filename else ""
            _fail(2, f"could not read or write{where}: {error.strerror or error}; what was saved before is untouched")
        raise
    except KeyboardInterrupt as error:
        if not here().first:  # the first says it
            raise SystemExit(128 + getattr(error, "number", signal.SIGINT)) from None
        more = "; the same command with --resume goes on" if getattr(error, "resumable", False) else ""
        _fail(128 + getattr(error, "number", signal.SIGINT), (str(error) or "interrupted") + more)


def _run(name: str, words: Sequence[str]) -> None:
    from ..errors import UserError
    from ..processes import joined, launched

    if name not in TOGETHER and launched() > 1:
        raise UserError(
            f"msgm {name} is for one process, and WORLD_SIZE is {launched()}; several do {', '.join(TOGETHER)}"
        )
    if name != "push":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with joined() as all_of_us, nullcontext() if all_of_us.first else redirect_stdout(open(os.devnull, "w")):
        from ..training.loop import Diverged
        from . import commands
        from .reader import read

        function = getattr(commands, name.replace("-", "_"))
        given = read(name, function, words)
        if "command" in signature(function).parameters:
            given["command"] = shlex.join(["msgm", name, *words])
        try:
            function(**given)
        except Diverged as error:
            _fail(3, str(error))


def _interrupt(number: int, frame: object) -> None:
    """What schedulers and closing terminals send is as Ctrl-C; once is enough."""
    from ..errors import Interrupted

    STRUCK.append(number)
    if isinstance(sys.exception(), KeyboardInterrupt):
        return
    raise Interrupted(number=number)


def _fail(status: int, message: str) -> NoReturn:
    """End with one line of at most `LONGEST` characters, in which nothing moves the terminal's cursor."""
    from ..processes import here

    if not here().says(message):
        raise SystemExit(status)
    line = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in message)
    print(f"msgm: {line if len(line) <= LONGEST else line[: LONGEST - 1] + '…'}", file=sys.stderr)
    raise SystemExit(status)
