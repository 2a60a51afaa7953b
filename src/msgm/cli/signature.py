"""The options of a command, found in the signature of its function.

A parameter is an option; the fields of a settings object are options on the same level. What has a name has its own
options under its key: ``--data cifar10 --data.size 32``, and what is chosen by name (a `Choice`) those of the thing:
``--method deflect --method.contrast 3``. Each is described where it stands, in the ``Args`` of a function, a class or
a part of a method.
"""

from __future__ import annotations

import inspect
import re
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..choice import Choice
from ..errors import UserError

Names = Mapping[str, str]
"""The names chosen so far, by key: ``{"method": "siss", "method.combine": "pcgrad"}``."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """``--key``; ``default`` is what the help shows, ``unset`` an option that is not there unless it is given."""

    key: str
    kind: Any
    default: Any
    text: str
    group: str
    unset: bool = False
    positional: bool = False

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def passed(self) -> Any:
        """The default as jsonargparse has it."""
        if self.unset:
            return SUPPRESS
        return None if self.required else self.default


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a `Choice` is made from: the things ``known`` by name, and the parts by role that a thing may be given."""

    known: Mapping[str, Callable[..., Any]]
    parts: Mapping[str, Mapping[str, Callable[..., Any]]]
    many: bool
    optional: bool


def chosen(hint: Any) -> Chosen | None:
    """What ``Annotated[Choice, known, parts]``, ``Annotated[Choice | None, known]`` or a tuple of the first says."""
    many = get_origin(hint) is tuple
    inner = get_args(hint)[0] if many else hint
    kind, known, *parts = get_args(inner) if get_origin(inner) is Annotated else (None, {})
    if kind not in (Choice, Choice | None):
        return None
    return Chosen(known=known, parts=parts[0] if parts else {}, many=many, optional=kind is not Choice)


def described(thing: Callable[..., Any]) -> dict[str, str]:
    """What the ``Args`` of its docstring say of each; of a class also those of the classes it comes from."""
    thing = thing.func if isinstance(thing, partial) else thing
    found: dict[str, str] = {}
    for source in reversed(thing.__mro__) if isinstance(thing, type) else (thing,):
        _, _, block = inspect.cleandoc(source.__doc__ or "").partition("\nArgs:\n")
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", block.split("\n\n")[0], re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def takes(make: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Kind and default of everything that it can be given in words, by name."""
    inner: Any = make.func if isinstance(make, partial) else make
    hints = get_type_hints(inner if is_dataclass(inner) or not isinstance(inner, type) else inner.__init__)  # type: ignore[misc]
    own = [p for p in inspect.signature(make).parameters.values() if p.default is not p.empty]
    return {p.name: (hints[p.name], p.default) for p in own if _plain(hints[p.name])}


def _plain(kind: Any) -> bool:
    return kind in (int, float, str, bool, NoneType, Path) or (
        get_origin(kind) is Literal or (bool(get_args(kind)) and all(map(_plain, get_args(kind))))
    )


def options(function: Callable[..., Any], names: Names) -> list[Option]:
    """All options of a command, of those that are chosen by name the ones that go with ``names``."""
    hints, texts = get_type_hints(function, include_extras=True), described(function)
    found: dict[str, Option] = {}
    for p in inspect.signature(function).parameters.values():
        if p.name == "command":  # the words themselves
            continue
        positional = p.kind is p.POSITIONAL_OR_KEYWORD
        for option in _expanded(p.name, hints[p.name], p.default, texts.get(p.name, ""), "Options", names, positional):
            found.setdefault(option.key, option)  # a setting that several objects have is one option, for all of them
    return list(found.values())


def _expanded(
    key: str, hint: Any, default: Any, text: str, group: str, names: Names, positional: bool = False
) -> Iterator[Option]:
    choice = chosen(hint)
    if choice is not None:
        yield from _of_choice(key, choice, default, text, names)
    elif is_dataclass(hint):
        hints, texts = get_type_hints(hint, include_extras=True), described(hint)  # type: ignore[arg-type]
        named = "name" in hints
        for field in fields(hint):
            value = inspect.Parameter.empty if field.default is MISSING else field.default
            value = value if default is inspect.Parameter.empty else getattr(default, field.name)
            inner, told = f"{key}.{field.name}" if named else field.name, texts.get(field.name, text)
            yield from _expanded(inner, hints[field.name], value, told, key.capitalize() if named else text, names)
    else:
        yield Option(key=key, kind=hint, default=default, text=text, group=group, positional=positional)


def _of_choice(key: str, choice: Chosen, default: Any, text: str, names: Names) -> Iterator[Option]:
    if choice.many:
        yield Option(key=key, kind=list[dict[str, Any]], default=[], text=text, group=key.capitalize())
        return
    name = names.get(key, default.name if default is not None else None)
    title = key.capitalize() if name is None else f"{key.capitalize()} {name}"
    shown = default.name if default is not None else None
    kind = str | None if choice.optional else str
    yield Option(key=f"{key}.name", kind=kind, default=shown, text=text, group=title)
    if name is not None:
        yield from of_named(key, choice, name, default, names)


def of_named(key: str, choice: Chosen, name: str, default: Choice | None, names: Names) -> Iterator[Option]:
    """The options of the thing of this name, and of its parts."""
    make = Choice(name).maker(key, choice.known)
    given = dict(default.options) if default is not None and default.name == name else {}
    whole = make() if choice.parts else None
    parts = {role: getattr(whole, role) for role in ("retain", *choice.parts)} if choice.parts else {}
    texts: dict[str, str] = {}
    for part in (*parts.values(), whole):
        texts |= described(type(part)) if part is not None else {}
    texts |= described(make)
    title = f"{key.capitalize()} {name}"
    for option, (kind, value) in takes(make).items():
        yield Option(
            key=f"{key}.{option}", kind=kind, default=given.get(option, value), text=texts.get(option, ""), group=title
        )
    for role, known in choice.parts.items():
        yield Option(
            key=f"{key}.{role}.name", kind=str, default=None, unset=True, group=title,
            text=f"another part: {', '.join(known)}.",
        )  # fmt: skip
    for role in parts:
        named = names.get(f"{key}.{role}")
        part = Choice(named).maker(role, choice.parts[role])() if named else parts[role]
        group = f"{role.capitalize()} {named}" if named else ""  # without a heading it is left out of the help
        for option, (kind, _) in takes(type(part)).items() if part is not None else ():
            yield Option(
                key=f"{key}.{role}.{option}", kind=kind, default=getattr(part, option), unset=True,
                text=described(type(part)).get(option, ""), group=group,
            )  # fmt: skip


def values(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the function is called with, from what was read."""
    hints = get_type_hints(function, include_extras=True)
    return {name: _value(name, hint, given) for name, hint in hints.items() if name not in ("return", "command")}


def _value(key: str, hint: Any, given: Mapping[str, Any]) -> Any:
    choice = chosen(hint)
    if choice is not None and not choice.many and not isinstance(given[key], Mapping):
        raise UserError(f"--{key}: expected a table with a name; got {str(given[key])[:40]!r}")
    if choice is not None and choice.many:
        return tuple(choice_of(each) for each in given[key])
    if choice is not None:
        return choice_of(given[key]) if given[key]["name"] is not None else None
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint, include_extras=True)
        given = given[key] if "name" in hints else given
        return hint(**{f.name: _value(f.name, hints[f.name], given) for f in fields(hint)})
    return given[key]


def choice_of(given: Mapping[str, Any]) -> Choice:
    """``{"name": "siss", "mix": 0.3, "combine": {"name": "pcgrad"}}`` as a choice: combine before combine.alpha."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, values: Mapping[str, Any]) -> None:
        for key, value in sorted(values.items(), key=lambda item: item[0] != "name"):
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                flat[f"{prefix}{key}".removesuffix(".name")] = value

    walk("", given)
    name = flat.pop("name")
    return Choice(name, tuple(flat.items()))


def several(function: Callable[..., Any]) -> dict[str, Chosen]:
    """What may be chosen more than once, by key."""
    hints = get_type_hints(function, include_extras=True)
    return {name: choice for name, hint in hints.items() if (choice := chosen(hint)) is not None and choice.many}


def heads_of(found: Iterable[Option]) -> set[str]:
    """The keys of what is given by name."""
    return {option.key.removesuffix(".name") for option in found if option.key.endswith(".name")}
