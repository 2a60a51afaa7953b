"""Images of each set, edited: pictures before and after, what they are worth, one file of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data import Images, Request
from ...errors import UserError
from ...folders import Making, Opened, opened
from ...metrics.judge import Judge
from ...metrics.restoration import Restored, check_judge, restored
from ...progress import Tick, bar
from ...report.comparison import UNKNOWN, comparison
from ...report.page import commit, write_json
from ...report.pictures import png, save_samples
from ...report.samples import PICTURES
from ...storage import write_bytes
from ..core.parts import parts

SHOWN = 16
"""Images of each set in comparison.png."""
SETS, COLUMNS = ("all", "retain", "forget"), ("before", "masked", "after")
PLACES = [f"{key}/{column}/{PICTURES}" for key in SETS for column in COLUMNS]
MADE = Making(kind="set of edited images", names=(*PLACES, "comparison.png", "results.json"), anew=True)


def edit(
    *,
    images: Images,
    how: Callable[[Tensor, Tick], Tensor],
    out: Path,
    n: int,
    known: Tensor | None = None,
    request: Request | None = None,
    judge: Judge | None = None,
    judged_by: str | None = None,
    record: Mapping[str, Any],
    overwrite: bool = False,
) -> dict[str, Restored]:
    """Edit the first images of each set, and write all there is to see of it.

    Args:
        images: to be edited.
        how: gives the edited pixels (N, C, H, W), uint8, of some; it is told of progress.
        out: folder for ``SET/before``, ``masked`` and ``after``, ``comparison.png`` and ``results.json``.
        n: images of each set.
        known: bool, True where pixels are known; where all are, None.
        request: parts the images.
        judge: of the edited images.
        judged_by: the judge's name, for the record.
        record: what else ``results.json`` is to say: of the model, the settings, the command.
        overwrite: replace the edited images that are in the folder.

    Raises UserError, before any work, where a set is empty, the judge is one of other images or the folder must not be
    written.
    """
    if n < 1:
        raise UserError(f"n must be 1 or more; got {n}")
    sets = {key: part.select(slice(n)) for key, part in parts(images, request).items()}
    if judge is not None:
        check_judge(judge, images, request)
    size = 4 * sum(map(len, sets.values())) * (math.prod(images.shape) + 200)
    with opened(out, replace(MADE, identity=dict(record), size=size), overwrite=overwrite) as place:
        groups, found = {}, {}
        for key, part in sets.items():
            before = part.rows()
            with bar(f"{key}: {len(part)} images", len(part)) as tick:
                after = how(before, tick)
            masked = {} if known is None else {"masked": before.where(known, UNKNOWN)}
            groups[key] = {"before": before, **masked, "after": after}
            region = None if known is None else ~known
            found[key] = restored(part, after, region=region, judge=judge, request=request)
        rule = request.words if request is not None else None
        _write(place, groups, {**record, "commit": commit(), "rule": rule, "judge": judged_by, "sets": found})
    return found


def _write(place: Opened, groups: Mapping[str, Mapping[str, Tensor]], results: Mapping[str, Any]) -> None:
    """The pictures first, and last what refers to them."""
    out = place.path
    place.clear()
    for key, columns in groups.items():
        for column, pixels in columns.items():
            save_samples(out / key / column, pixels)
    shown = {key: {name: pixels[:SHOWN] for name, pixels in columns.items()} for key, columns in groups.items()}
    write_bytes(out / "comparison.png", png(comparison(shown)))
    write_json(out / "results.json", results)
    place.end()
