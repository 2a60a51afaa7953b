"""Words of the command line, or a file of them, become what a command's function is called with.

jsonargparse reads them; before it does, the words are asked for the names by which things are chosen, as these say
which options there are.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentError
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionYesNo, ArgumentParser

from ..errors import UserError
from ..storage import read_text
from .page import page
from .signature import Chosen, Names, Option, heads_of, of_named, options, several, values


def read(name: str, function: Callable[..., None], words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a command's function. Raises UserError for words that it does not take."""
    many, heads = several(function), heads_of(options(function, {}))
    spelt = _gathered(_spelled(words, heads), many)
    found = options(function, _names(spelt, heads))
    given = _Parser(name, found, page(name, function, found)).read(spelt)
    _in_reach(given)
    for key, choice in many.items():
        given[key] = [_entry(key, choice, each) for each in given[key]]
    return values(function, given)


def _in_reach(given: Mapping[str, Any]) -> None:
    """Raise UserError for a number that no computer counts to, or that is none."""
    for key, value in _flat(given):
        if isinstance(value, int | float) and not abs(value) < 2**63:
            name = _dashed(f"--{key}")
            raise UserError(f"{name}: expected a finite number of at most 18 digits; got {str(value)[:30]}")


LARGEST_CONFIG, DEEPEST = 2**16, 20
"""Bytes of a file of options, and levels in it."""
LONG = 150
"""Characters of what is expected from which on what was typed stands before it."""
PLAINLY = {"int": "a whole number", "float": "a number", "str": "a word", "list": "a list", "NoneType": "null"}


class _Parser(ArgumentParser):
    """jsonargparse's parser of some options, with our page of help, and errors as `UserError`."""

    def __init__(self, name: str, found: Sequence[Option], shown: str) -> None:
        super().__init__(prog=f"msgm {name}", exit_on_error=False, allow_abbrev=False)
        self.shown, self.found = shown, found
        self.add_argument("--config", action="config")
        for option in found:
            if option.positional:
                self.add_argument(option.key, type=option.kind)
            elif option.kind is bool:
                self.add_argument(f"--{option.key}", action=ActionYesNo, default=option.passed)
            else:
                spellings = [f"-{option.key}"] * (len(option.key) == 1) + [f"--{option.key}"]
                self.add_argument(*spellings, type=option.kind, default=option.passed, required=option.required)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        return self.shown

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        try:
            given: dict[str, Any] = self.parse_args(list(words)).as_dict()
        except OverflowError:
            word = next((word for word in words if re.search(r"\d{19}", word)), "an option")
            raise UserError(f"{_dashed(word)[:40]}: expected a finite number of at most 18 digits") from None
        except (ArgumentError, TypeError, ValueError, RecursionError) as error:
            self._refuse(str(error))
        return given

    def _refuse(self, message: str) -> NoReturn:
        """jsonargparse's message in one line of our words."""
        text = " ".join(message.split())
        key, value = re.search(r'^Parser key "([\w.]+)":', text), re.search(r".*G(?:ot|iven) value: (.*)$", text)
        kinds = re.findall(r"Expected a (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.*?)\])", text)
        if key and value and kinds:
            expected = [PLAINLY.get(kind, kind) if kind else f"one of {literals}" for kind, literals in kinds]
            wanted, got = f"expected {' or '.join(dict.fromkeys(expected))}", f"got {value[1]}"
            # A long list is cut off at its end, and what was typed must be read.
            text = f"--{key[1]}: {got}; {wanted}" if len(wanted) > LONG else f"--{key[1]}: {wanted}; {got}"
        elif key:
            text = text.replace(key[0], f"--{key[1]}:")
        elif unknown := re.search(r"(?:unrecognized arguments: |Option ')(?:--)?((\w+)[\w.]*)", text):
            text = f"there is no option --{unknown[1]}{self._near(unknown[2], unknown[1])}"
        raise UserError(f"{_dashed(text)} ({self.prog} --help lists the options)")

    def _near(self, key: str, option: str) -> str:
        """What there is under the same key as an unknown option."""
        role = option.rpartition(".")[0]
        there = [o.key for o in self.found if o.key.rpartition(".")[0] == role != "" and not o.key.endswith(".name")]
        if there:
            return f"; of {role} there are --{', --'.join(there)}"
        named = any(o.key == f"{role}.name" for o in self.found)
        return f"; say first which one: --{role} NAME" if named else ""


def _spelled(words: Sequence[str], heads: Collection[str]) -> list[str]:
    """``--save-every`` as ``--save_every``; ``--method NAME`` as ``--method.name NAME``."""
    spelt = []
    for word in words:
        option, equals, value = word.partition("=")
        if option.startswith("--"):
            option = "--" + option[2:].replace("-", "_")
            option += ".name" * (option[2:] in heads)
        spelt.append(option + equals + value)
    return spelt


def _gathered(words: Sequence[str], many: Collection[str]) -> list[str]:
    """``--method a --method.x 1 --method b`` as one list, ``--method=[{"name": "a", "x": "1"}, {"name": "b"}]``."""
    left = list(words)
    for key in many:
        found: list[dict[str, str]] = []
        rest, left = iter(left), []
        for word in rest:
            option, equals, value = word.partition("=")
            if option == f"--{key}":
                found.append({"name": value if equals else next(rest, "")})
            elif option.startswith(f"--{key}."):
                if not found:
                    raise UserError(f"{option}: say first of which: --{key} NAME")
                found[-1][option.removeprefix(f"--{key}.")] = value if equals else next(rest, "")
            else:
                left.append(word)
        if found:
            left.append(f"--{key}={json.dumps(found)}")
    return left


def _entry(key: str, choice: Chosen, given: Mapping[str, Any]) -> dict[str, Any]:
    """One of a list of choices, checked; each of its options is a value or a list of values to try."""
    name = str(given.get("name"))
    heads = heads_of(of_named(key, choice, name, None, {}))
    flat = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in _flat(given) if k != "name"]
    words = _spelled([f"--{key}.{k}={v}" for k, v in flat], heads)
    found = of_named(key, choice, name, None, _names(words, heads))
    parser = _Parser("sweep", [replace(option, kind=_or_list(option.kind), unset=True) for option in found], "")
    read: dict[str, Any] = parser.read(words).get(key, {})
    return {"name": name} | read


def _or_list(kind: Any) -> Any:
    return kind | list[kind]


def _flat(given: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in given.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs


def _names(words: Sequence[str], heads: Collection[str]) -> Names:
    """What is given by name, the last word of it counting; a file's words count where it is named."""
    names: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option == "--config":
            names |= _names_in(value, heads)
        elif (key := option[2:].removesuffix(".name")) in heads and option.endswith(".name"):
            names[key] = value
    return names


def _names_in(file: str, heads: Collection[str]) -> dict[str, str]:
    """The names in a file of options. What is no YAML is for jsonargparse to complain about; a bomb is refused here."""
    import yaml

    text, found, deep = read_text(Path(file), LARGEST_CONFIG), None, 0
    with suppress(yaml.YAMLError):
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            deep += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or deep > DEEPEST:
                raise UserError(f"{file} has an alias, or more than {DEEPEST} levels; write plainly, option: value")
    with suppress(ValueError, yaml.YAMLError):
        found = yaml.safe_load(text)
    if not isinstance(found, Mapping):
        return {}
    flat = dict(_flat(found))
    return {key: str(flat[f"{key}.name"]) for key in heads if flat.get(f"{key}.name") is not None}


def _dashed(text: str) -> str:
    """Options as people write them."""
    return re.sub(r"--[\w.]+", lambda found: found[0].removesuffix(".name").replace("_", "-"), text)
