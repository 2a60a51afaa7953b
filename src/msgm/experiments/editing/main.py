"""Images of each set, edited: pictures before and after, what they are worth, one file of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data import Images, Request
from ...errors import UserError
from ...metrics.judge import Judge
from ...metrics.restoration import Restored, check_judge, restored
from ...progress import Tick, bar
from ...report.comparison import comparison
from ...report.page import commit, write_json
from ...report.pictures import png, save_samples
from ...report.samples import clear
from ...storage import write_bytes
from ..core.parts import parts

SHOWN = 16
"""Images of each set in comparison.png."""
SETS, COLUMNS = ("all", "retain", "forget"), ("before", "masked", "after")
UNKNOWN = 128
"""Grey of unknown pixels in pictures."""


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

    Raises UserError, before any work, where a set is empty or the judge is one of other images.
    """
    if n < 1:
        raise UserError(f"n must be 1 or more; got {n}")
    sets = {key: part.select(slice(n)) for key, part in parts(images, request).items()}
    if judge is not None:
        check_judge(judge, images, request)
    groups, found = {}, {}
    for key, part in sets.items():
        before = part.rows()
        with bar(f"{key}: {len(part)} images", len(part)) as tick:
            after = how(before, tick)
        masked = {} if known is None else {"masked": before.where(known, UNKNOWN)}
        groups[key] = {"before": before, **masked, "after": after}
        region = None if known is None else ~known
        found[key] = restored(part, after, region=region, judge=judge, request=request)
    for key, column in product(SETS, COLUMNS):
        clear(out / key / column)
    for key, columns in groups.items():
        for column, pixels in columns.items():
            save_samples(out / key / column, pixels)
    shown = {key: {name: pixels[:SHOWN] for name, pixels in columns.items()} for key, columns in groups.items()}
    write_bytes(out / "comparison.png", png(comparison(shown)))
    results = {
        **record,
        "commit": commit(),
        "rule": request.to_dict().get("rule") if request is not None else None,
        "judge": judged_by,
        "sets": found,
    }
    write_json(out / "results.json", results)
    return found
