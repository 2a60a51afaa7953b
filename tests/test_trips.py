"""docs/architecture.md, "Three trips": the rooms that a value enters, traced; none is entered again once it is left."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tiny import FEW_STEPS

import msgm
from msgm.cli.main import main
from msgm.data import Images, Source, Split
from msgm.model.score import ScoreModel
from msgm.sampling import Sampler

PACKAGE = Path(msgm.__file__).parent
PAGE = PACKAGE.parents[1] / "docs" / "architecture.md"
RULE = ["--forget", "label in [3, 7]"]
FEW = ["-n", "1", "--sampler.steps", "3", "--resample", "1"]
TINY = ["-n", "2", "--sampler.steps", "3", "--nll-images", "2", "--nll-check", "1", "--nll-steps", "2"]


@cache
def room(path: str) -> str | None:
    """The room of a file; None outside the package."""
    return Path(path).relative_to(PACKAGE).parts[0].removesuffix(".py") if PACKAGE in Path(path).parents else None


def carries(value: Any, kinds: tuple[type, ...], depth: int = 2) -> bool:
    """Whether it is such a value, or a collection of such."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, kinds) or (depth > 0 and any(carries(each, kinds, depth - 1) for each in inside))


def handed_on(kinds: tuple[type, ...], home: str, run: Callable[[], object]) -> list[tuple[str, str]]:
    """Each (from, to) of two rooms between which such a value is handed as an argument, in order."""
    found = []

    def look(frame: FrameType, event: str, arg: object) -> None:
        if event != "call" or (here := room(frame.f_code.co_filename)) is None or here == home:
            return
        code = frame.f_code
        named = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        if any(carries(frame.f_locals.get(n), kinds) for n in code.co_varnames[:named]):
            caller = frame.f_back
            while caller is not None and room(caller.f_code.co_filename) in (None, home):
                caller = caller.f_back
            if caller is not None and (origin := room(caller.f_code.co_filename)) not in (None, here):
                found.append((str(origin), here))

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def written(what: str) -> list[str]:
    """The rooms of now on the page."""
    now = PAGE.read_text().split(f"**The {what}**")[1].split("2. Now: ")[1].split(".")[0]
    return re.findall("`(.*?)`", now)


MODEL, DATA = ("model", (ScoreModel, Sampler)), ("data", (Images, Source, Split))
TRIPS = {
    "model of `inpaint`": (*MODEL, ["inpaint", "demo", "--mask", "band", "--data", "demo", *FEW]),
    "model of `evaluate`": (*MODEL, ["evaluate", "demo", *RULE, *TINY]),
    "data of `unlearn`": (*DATA, ["unlearn", "demo", *RULE, "--steps", "2", "--batch", "4", *FEW_STEPS]),
}


@pytest.mark.parametrize("what", TRIPS)
def test_no_room_is_entered_again_and_the_page_has_them_all(what: str, tmp_path: Path) -> None:
    home, kinds, words = TRIPS[what]
    steps = handed_on(kinds, home, lambda: main([*words, "--out", str(tmp_path / "out")]))
    rooms = list(dict.fromkeys(["cli", *(each for step in steps for each in step)]))
    assert set(rooms) == set(written(what)), dict.fromkeys(steps)
    order = written(what)
    back = [step for step in steps if order.index(step[1]) < order.index(step[0])]
    assert not back, back
