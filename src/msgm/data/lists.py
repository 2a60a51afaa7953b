"""Requests that name images one by one: by file, by row, or by what is in them; and how records have any request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import Images
from .names import nfc
from .requests import AnyRequest, ForgetRequest, Request

SHOWN = 3
"""Names of a list that are spelt out."""


@dataclass(frozen=True)
class FileRequest(Request):
    """The images with these file names, or in these folders, as far as their paths are written here.

    ``cat/3.png`` means every image whose path ends so, ``cat`` every image in a folder of this name below that of the
    data.
    """

    files: tuple[str, ...]

    @property
    def words(self) -> str:
        return _some("file", self.files)

    def __str__(self) -> str:
        return f"the list of {len(self.files)} files"

    def mask(self, data: Images) -> Tensor:
        """Of a selection, those that are in it. UserError for a name that no image has, and for one of several."""
        if not len(data.files):
            raise UserError(f"{data.name}: its images have no file names; say which by a rule or by row numbers")
        names = [nfc(str(name)) for name in data.files]
        inner = [_inner(name) for name in names]
        paths = [Path(within or name).parts for within, name in zip(inner, names, strict=True)]
        above = [0 if within else len(Path(data.root).parts) for within in inner]
        mask = torch.zeros(len(paths), dtype=torch.bool)
        for name in self.files:
            wanted = Path(nfc(name)).parts
            hits = [i for i, path in enumerate(paths) if path[-len(wanted) :] == wanted]
            if len(hits) > 1:
                raise UserError(f"{name}: {len(hits)} files of {data.name} are called so; write more of the path")
            hits = hits or [i for i, path in enumerate(paths) if _within(wanted, path[:-1], above[i])]
            if not hits:
                raise UserError(f"{name}: {data.name} has no such file or folder")
            mask[hits] = True
        return mask[data.index]

    def to_dict(self) -> dict[str, Any]:
        return {"files": list(self.files)}


@dataclass(frozen=True)
class IndexRequest(Request):
    """The images with these row numbers, from 0."""

    index: tuple[int, ...]

    @property
    def words(self) -> str:
        return _some("row", self.index)

    def __str__(self) -> str:
        return f"the list of {len(self.index)} row numbers"

    def mask(self, data: Images) -> Tensor:
        """Of a selection, those that are in it. UserError for a number that is no row's."""
        rows = len(data.store)
        for row in self.index:
            if not 0 <= row < rows:
                raise UserError(f"row {row}: {data.name} has rows 0 to {rows - 1}")
        return torch.isin(data.index, torch.tensor(self.index, dtype=torch.int64))

    def to_dict(self) -> dict[str, Any]:
        return {"index": list(self.index)}


@dataclass(frozen=True)
class ImageRequest(Request):
    """The images that are pixel for pixel one of some: ``marks`` are those of `Images.marks`, in hexadecimal.

    ``how`` says by what they were found, where something found them (`metrics.alike`).
    """

    marks: tuple[str, ...]
    names: tuple[str, ...] = ()
    how: str = ""

    @classmethod
    def of(cls, images: Images, how: str = "") -> ImageRequest:
        """Those that are equal to these."""
        names = [Path(str(images.files[row])).name for row in images.index.tolist()] if len(images.files) else ()
        return cls(tuple(f"{mark:016x}" for mark in images.marks.tolist()), tuple(names), how)

    @property
    def words(self) -> str:
        return f"{len(self.marks)} images, {self.how}" if self.how else _some("image", self.names or self.marks)

    def __str__(self) -> str:
        return f"the list of {len(self.marks)} images"

    def mask(self, data: Images) -> Tensor:
        """UserError, unless ``data`` is a selection, for an image that is not among them."""
        mask = torch.from_numpy(np.isin(data.marks, np.array([int(mark, 16) for mark in self.marks], np.uint64)))
        if len(data) == len(data.store):
            there = {f"{mark:016x}" for mark in data.marks[mask.numpy()].tolist()}
            named = self.names or self.marks
            missing = [name for name, mark in zip(named, self.marks, strict=True) if mark not in there]
            if missing:
                raise UserError(
                    f"{_some('image', missing)} of {len(self.marks)} to forget: not in {data.name}, pixel for pixel, "
                    f"as it is read; leave out what the model was not trained on, or use the files of the data"
                )
        return mask

    def to_dict(self) -> dict[str, Any]:
        said = {"names": list(self.names), "how": self.how}
        return {"images": list(self.marks), **{key: value for key, value in said.items() if value}}


def request_of(entry: Mapping[str, Any]) -> Request:
    """The request that a record's entry ``request`` says. Raises UserError for one that says none."""
    try:
        if "any" in entry:
            return AnyRequest(tuple(request_of(each) for each in entry["any"]))
        if "files" in entry:
            return FileRequest(tuple(map(str, entry["files"])))
        if "images" in entry:
            marks = tuple(f"{int(mark, 16):016x}" for mark in entry["images"])
            return ImageRequest(marks, tuple(entry.get("names", ())), str(entry.get("how", "")))
        return IndexRequest(tuple(map(int, entry["index"]))) if "index" in entry else ForgetRequest(entry["rule"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"the record's request cannot be read ({str(entry)[:60]}); copy the model's folder again"
        ) from None


def _some(what: str, names: Sequence[object]) -> str:
    """``file a.png``, ``5 files: a.png, b.png, c.png, …``"""
    if len(names) == 1:
        return f"{what} {names[0]}"
    return f"{len(names)} {what}s: {', '.join(map(str, names[:SHOWN]))}{', …' if len(names) > SHOWN else ''}"


def _inner(name: str) -> str:
    """The path of an image within a larger file, if it has one."""
    found = re.fullmatch(r".*, row \d+ \((.+)\)", name)
    return found[1] if found else ""


def _within(folder: tuple[str, ...], path: tuple[str, ...], above: int) -> bool:
    """Whether it is a folder of the path, and does not end in the first parts, which are above the images."""
    starts = range(max(0, above + 1 - len(folder)), len(path))
    return any(path[i : i + len(folder)] == folder for i in starts)
