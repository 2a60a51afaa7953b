"""A request looked at before anything is trained: how many images, and which are the nearest that would be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Images, Request, Split, request_of
from ...data.near import nearest, thumbnails
from ...errors import UserError
from ...folders import Making, opened
from ...metrics.neighbours import nearest as nearest_pixels
from ...report.comparison import comparison
from ...report.page import write_json
from ...report.pictures import grid, png
from ...storage import read_json, write_bytes

FORGET, NEAREST, COUNTS = "forget.png", "nearest.png", "request.json"
MADE = Making(kind="preview", names=(FORGET, NEAREST, COUNTS), anew=True)
SHOWN, PAIRS, LARGE = 100, 24, 1000
"""Images to be forgotten on the sheet, pairs of nearest ones, and images above which thumbnails are compared."""


def counts(split: Split) -> dict[str, Any]:
    """How many images of each set, of each label, and on both sides."""
    own = split.request.to_dict()
    sizes = {key: value for key, value in split.to_dict().items() if key not in own}
    return {**sizes, "images": len(split.whole), "labels": _labels(split)}


def _labels(split: Split) -> dict[str, dict[str, int]]:
    """Of each label how many images are to be retained and to be forgotten; empty without labels."""
    if "label" not in split.whole.columns:
        return {}
    sets = {"retain": split.retain.labels, "forget": split.forget.labels}
    return {
        str(split.whole.label_names.get(label, label)): {
            key: int((values == label).sum()) for key, values in sets.items()
        }
        for label in split.whole.labels.unique().tolist()
    }


def closest(split: Split) -> tuple[Tensor, Tensor]:
    """Rows of ``retain`` and, for each, the row of ``forget`` that is nearest to it: `PAIRS` of them, nearest first.

    In L2; where there are many of both, in L2 of their thumbnails (`data.near`).
    """
    few = min(len(split.retain), len(split.forget)) <= LARGE
    mine, theirs = thumbnails(split.retain), thumbnails(split.forget)
    if few or not mine.shape[1]:
        return _pairs(split.retain, split.forget)
    distance, partner = nearest(mine, theirs)
    chosen = distance.argsort(stable=True)[:PAIRS]
    return chosen, partner[chosen]


def _pairs(retain: Images, forget: Images) -> tuple[Tensor, Tensor]:
    """By their pixels, the retained images some at a time."""
    found = [nearest_pixels(part, forget) for part in retain.chunks()]
    distance, partner = (torch.cat(each) for each in zip(*found, strict=True))
    chosen = distance.argsort(stable=True)[:PAIRS]
    return chosen, partner[chosen]


def preview(
    split: Split, asked: Request, out: Path, *, command: str = "", overwrite: bool = False
) -> Mapping[str, Any]:
    """Write a sheet of what would be forgotten, one of the nearest that would be kept, and the `counts`.

    ``forget.png`` has up to `SHOWN` images, ``nearest.png`` pairs, ``request.json`` the numbers, and what was ``asked``
    now, of all that the split forgets, and of which images, as `request_in` reads it.
    """
    with opened(out, replace(MADE, identity={"command": command}), overwrite=overwrite) as place:
        kept, partner = closest(split)
        pairs = {"forget": split.forget.rows(partner), "kept": split.retain.rows(kept)}
        told = {
            "command": command, "words": split.request.words, "request": asked.to_dict(), "data": split.whole.to_dict(),
            **counts(split),
        }  # fmt: skip
        place.clear()
        write_bytes(out / FORGET, png(grid(split.forget.rows(slice(SHOWN)))))
        write_bytes(out / NEAREST, png(comparison({"of retained images the nearest": pairs})))
        write_json(out / COUNTS, told)
        place.end()
    return told


def request_in(file: Path, images: Images | None) -> Request:
    """The request that a `preview` looked at. UserError for a file that holds none, and one of other ``images``."""
    told = read_json(file)
    entry, data = told.get("request"), told.get("data") or {}  # older files do not say of which images they are
    if not isinstance(entry, dict) or not isinstance(data, dict):
        raise UserError(f"{file} holds no request; name the {COUNTS} of a preview")
    if images is not None and data.get("sha256", images.digest) != images.digest:
        raise UserError(
            f"{file} is of other images than {images.name} as it is read here: {data.get('name')}, "
            f"sha256 {data['sha256']}, not {images.digest}; look at the request anew, with these"
        )
    return request_of(entry)
