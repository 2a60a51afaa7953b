"""What is asked to be forgotten: a rule over the columns of a data set, or a list; and the two sets that it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import Images
from .rules import known_values, parse


class Request:
    """Which images are to be forgotten: a rule, or a list. It is data, and one entry of a record."""

    def mask(self, data: Images) -> Tensor:
        """Which rows are meant: bool (N,)."""
        raise NotImplementedError

    def split(self, data: Images) -> Split:
        """The data in two, each part in its old order. UserError if none or all of them are meant."""
        mask = self.mask(data)
        if not mask.any():
            raise UserError(f"{self} selects none of the {len(data)} images of {data.name}{self.why_none(data)}")
        if mask.all():
            everything = f"{self} selects all {len(data)} images of {data.name}"
            raise UserError(f"{everything}: none would be left to retain; narrow it")
        return Split(whole=data, retain=data.select(~mask), forget=data.select(mask), request=self)

    def why_none(self, data: Images) -> str:
        """What to add where nothing is selected."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Its entry in a record, which `request_of` reads."""
        raise NotImplementedError


@dataclass(frozen=True)
class ForgetRequest(Request):
    """A rule that says which images are to be forgotten.

    A rule compares columns with whole numbers, or the label with class names if it has them, by ``==``,
    ``!=``, ``<``, ``<=``, ``>``, ``>=``, chained too (``2 < label <= 5``), by ``in`` and ``not in`` with a
    list; ``and``, ``or``, ``not`` and parentheses join comparisons. A column whose name is no identifier is
    put in quotes: ``"5_o_Clock_Shadow" == 1``.
    Raises UserError for anything else.

    >>> ForgetRequest("label in [3, 7]").to_dict()
    {'rule': 'label in [3, 7]'}
    """

    rule: str

    def __post_init__(self) -> None:
        parse(self.rule)

    def __str__(self) -> str:
        return f"rule {self.rule!r}"

    def mask(self, data: Images) -> Tensor:
        """Which rows the rule selects: bool (N,). UserError for a column or class name that the data lack."""
        predicate, _ = parse(self.rule)
        return predicate(data)

    def why_none(self, data: Images) -> str:
        """The comparisons that hold for no image."""
        never = [comparison for comparison in parse(self.rule)[1] if not comparison(data).any()]
        return "".join(f"; {item} holds for none: {known_values(item.column, data)}" for item in never)

    def to_dict(self) -> dict[str, Any]:
        return {"rule": self.rule}


@dataclass(frozen=True)
class FileRequest(Request):
    """The images with these file names, or in these folders, as far as their paths are written here.

    ``cat/3.png`` means every image whose path ends so, ``cat`` every image in a folder of this name.
    """

    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"the list of {len(self.files)} files"

    def mask(self, data: Images) -> Tensor:
        """UserError for a name that no image has, and for one that several files have."""
        if not len(data.files):
            raise UserError(f"{data.name}: its images have no file names; say which by a rule or by row numbers")
        paths = [Path(_inner(str(data.files[row]))).parts for row in data.index.tolist()]
        mask = torch.zeros(len(data), dtype=torch.bool)
        for name in self.files:
            wanted = Path(name).parts
            hits = [i for i, path in enumerate(paths) if path[-len(wanted) :] == wanted]
            if len(hits) > 1:
                raise UserError(f"{name}: {len(hits)} files of {data.name} are called so; write more of the path")
            hits = hits or [i for i, path in enumerate(paths) if _within(wanted, path[:-1])]
            if not hits:
                raise UserError(f"{name}: {data.name} has no such file or folder")
            mask[hits] = True
        return mask

    def to_dict(self) -> dict[str, Any]:
        return {"files": list(self.files)}


@dataclass(frozen=True)
class IndexRequest(Request):
    """The images with these row numbers, from 0."""

    index: tuple[int, ...]

    def __str__(self) -> str:
        return f"the list of {len(self.index)} row numbers"

    def mask(self, data: Images) -> Tensor:
        """UserError for a number that is no row's."""
        for row in self.index:
            if not 0 <= row < len(data):
                raise UserError(f"row {row}: {data.name} has rows 0 to {len(data) - 1}")
        mask = torch.zeros(len(data), dtype=torch.bool)
        mask[list(self.index)] = True
        return mask

    def to_dict(self) -> dict[str, Any]:
        return {"index": list(self.index)}


def request_of(entry: Mapping[str, Any]) -> Request:
    """The request that a record's entry ``request`` says."""
    if "files" in entry:
        return FileRequest(tuple(entry["files"]))
    return IndexRequest(tuple(entry["index"])) if "index" in entry else ForgetRequest(entry["rule"])


def _inner(name: str) -> str:
    """The path of an image within a larger file, if it has one."""
    found = re.fullmatch(r".*, row \d+ \((.+)\)", name)
    return found[1] if found else name


def _within(folder: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return any(path[i : i + len(folder)] == folder for i in range(len(path)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images in two, ``retain`` and ``forget``, and why. Both are selections from ``whole``: no pixels are copied."""

    whole: Images
    retain: Images
    forget: Images
    request: Request

    @property
    def digest(self) -> str:
        """That of the whole."""
        return self.whole.digest

    @cached_property
    def duplicates(self) -> int:
        """How many retained images are, pixel for pixel, also among those to forget."""
        return int(np.isin(self.retain.marks, self.forget.marks).sum())

    @property
    def notes(self) -> list[str]:
        """Lines that someone who is about to train on this should see."""
        if not self.duplicates:
            return []
        return [f"{self.duplicates} of the retained images are also, pixel for pixel, among those to forget"]

    def hold_out(self, share: float, seed: int = 0) -> tuple[Split, Images]:
        """The split without a random share of both its parts, and that share as one set: retained, then forgotten.

        At least two images of each part are held out. Raises UserError where fewer than two of a part would be left.
        """
        if not 0 < share < 1:
            raise UserError(f"the share to hold out must lie between 0 and 1; got {share}")
        generator, kept, held = torch.Generator().manual_seed(seed), [], []
        for part in (self.retain, self.forget):
            order = torch.randperm(len(part), generator=generator)
            count = max(2, round(share * len(part)))
            if len(part) - count < 2:
                raise UserError(f"{len(part)} images of {part.name} are too few to hold out {share:.0%} of them")
            kept.append(part.select(order[count:].sort().values))
            held.append(part.select(order[:count].sort().values))
        return replace(self, retain=kept[0], forget=kept[1]), held[0].join(held[1])

    def to_dict(self) -> dict[str, Any]:
        """The record of the split: the request, how many images are on each side, and on both."""
        both = {"duplicates": self.duplicates} if self.duplicates else {}
        return {**self.request.to_dict(), "retain": len(self.retain), "forget": len(self.forget), **both}
