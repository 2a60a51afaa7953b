"""What ``msgm COMMAND --help`` prints: the options in groups, each with its default, made from the code."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from .signature import Option

WIDTH, COLUMN = 80, 26


def page(name: str, function: Callable[..., None], found: Sequence[Option]) -> str:
    """The help of a command."""
    told = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")[0].strip()
    needed = [_named(o) for o in found if o.required]
    lines = [" ".join(["usage: msgm", name, *needed, "[options]"]), ""]
    for paragraph in told.split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), WIDTH), ""]
    for group in dict.fromkeys(option.group for option in found if option.group):
        lines += [f"{group}:", *(line for o in found if o.group == group for line in _entry(o)), ""]
    lines += [
        *_lines("--config FILE", "a YAML file of options; what is typed after it wins"),
        *_lines("--print-config", "print such a file of all options, and end"),
        "",
        "In brackets: the default.",
    ]
    return "\n".join(lines) + "\n"


def _named(option: Option) -> str:
    """The option with what it takes: ``--steps N``, ``--[no-]flip``, ``MODEL``."""
    key = option.key.removesuffix(".name").replace("_", "-")
    if option.positional:
        return key.upper()
    if option.kind is bool:
        return f"--[no-]{key}"
    return f"{'-' if len(key) == 1 else '--'}{key} {_takes(option)}"


def _takes(option: Option) -> str:
    if option.key == "forget":
        return "RULE"
    kinds = get_args(option.kind) if get_origin(option.kind) is not Literal else ()
    kinds = kinds or (option.kind,)
    for kind, word in ((int, "N"), (float, "X"), (Path, "PATH")):
        if kind in kinds:
            return word
    return "NAME"


def _entry(option: Option) -> list[str]:
    return _lines(_named(option), " ".join(filter(None, [option.text, _choices(option.kind), shown(option.default)])))


def _choices(kind: Any) -> str:
    """What a Literal allows."""
    words = [str(word) for k in (kind, *get_args(kind)) if get_origin(k) is Literal for word in get_args(k)]
    return f"({', '.join(words)})" if words and get_origin(kind) is Literal else ""


def shown(default: Any) -> str:
    """The default as it stands in the help: ``[300]``; nothing where the text says what happens without."""
    if default is None or default is inspect.Parameter.empty or default == []:
        return ""
    if isinstance(default, bool):
        return "[yes]" if default else "[no]"
    return f"[{default}]"


def _lines(head: str, text: str) -> list[str]:
    """One entry, its text wrapped in the second column."""
    wrapped = textwrap.wrap(text, WIDTH - COLUMN, break_on_hyphens=False) or [""]
    first = f"  {head}"
    if len(first) > COLUMN - 2:
        return [first, *(" " * COLUMN + line for line in wrapped)]
    return [f"{first:<{COLUMN}}{wrapped[0]}", *(" " * COLUMN + line for line in wrapped[1:])]
