"""Encoded images and what stands beside them -> pixels, integer columns, and a word on all that is left out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import UserError
from .cache import Writer
from .decode import Decoder, Pixels
from .names import nfc, numbered

T = TypeVar("T")
Row = tuple[str, Path | bytes | None, Mapping[str, Any]]
"""Name of an image, the image, and the values beside it."""

PATIENCE = 3.0
"""Seconds of silence before a progress bar appears."""
NAMED = 10
"""How many of the images that are left out are named."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Images that are not decoded yet. ``names[column]`` are class names; ``files`` say when it must be read again.

    Columns are called as `beside` calls them.
    """

    rows: Iterable[Row]
    total: int | None
    title: str
    about: str
    files: Sequence[tuple[str, int, int]]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


class NoSplit(UserError):
    """The data have no such split."""


def stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change of each file."""
    return [(str(path), (status := path.stat()).st_size, status.st_mtime_ns) for path in paths]


def beside(values: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    """What stands beside an image, by column, names as `nfc` writes them.

    Raises UserError for columns of one name that say different things.
    """
    found: dict[str, Any] = {}
    for name, value in ((nfc(name), value) for name, value in values):
        if name in found and found[name] != value:
            raise UserError(f"{where}: columns of one name, {name}, with different values; rename one of them")
        found[name] = value
    return found


@dataclass(kw_only=True)
class Columns:
    """The values beside the images, column by column."""

    names: Mapping[str, Sequence[str]]
    values: dict[str, list[Any]] = field(default_factory=dict)
    rows: int = 0
    skipped: list[Mapping[str, Any]] = field(default_factory=list)
    """Values beside images that were skipped; a class keeps its number without them."""

    def append(self, row: Mapping[str, Any]) -> None:
        """One more row; what it lacks is missing."""
        for name in row:
            self.values.setdefault(name, [None] * self.rows)
        for name, values in self.values.items():
            values.append(row.get(name))
        self.rows += 1

    def finish(
        self, labels: str | None, where: str, train: Table | None = None
    ) -> tuple[dict[str, Tensor], dict[int, str], dict[str, str]]:
        """Whole columns of whole numbers, the labels' names, and why each other column is left out.

        ``labels`` is the column that becomes ``label``; it may hold names, as ``label`` itself may. Names that are
        whole numbers are these numbers. A class has its number in ``train``, the other split, where it is there.
        """
        columns, dropped = {}, {}
        for name, values in self.values.items():
            if reason := _unfit(values):
                dropped[name] = reason
            else:
                columns[name] = torch.tensor([int(v) for v in values], dtype=torch.int64)
        chosen = nfc(labels or "label")
        if chosen not in self.values:
            if labels is not None:
                known = ", ".join(sorted(columns)) or "none"
                raise UserError(f"{where}: no column {labels!r} to use as labels; known columns: {known}")
            return columns, {}, dropped
        names = [nfc(name) for name in self.names.get(chosen, ())]
        before, written = _classes(train, chosen) if train else ([], None)
        if written not in (None, text := dropped.get(chosen) == TEXT):
            raise UserError(
                f"{where}: column {chosen} has text in one split and numbers in the other; write it alike in both "
                "(metadata.jsonl has text in quotes)"
            )
        if text:
            lost = [value for row in self.skipped if isinstance(value := row.get(chosen), str)]
            called = {value: nfc(value) for value in (*self.values[chosen], *lost)}
            names = sorted(set(called.values()))
            place = {name: i for i, name in enumerate(names)}
            columns[chosen] = torch.tensor([place[called[value]] for value in self.values[chosen]])
            del dropped[chosen]
        elif chosen in dropped:
            raise UserError(f"{where}: column {chosen} cannot be used as labels: {dropped[chosen]}")
        columns["label"] = columns[chosen]
        names = names or before
        number = numbered(before, names)
        numbers = [number[name] for name in names]
        if numbers != list(range(len(names))):
            columns["label"] = _renamed(columns["label"], numbers)
        return columns, {number: name for name, number in number.items()}, dropped


TEXT = "text"


def _unfit(values: Sequence[Any]) -> str:
    """Why values are no column of whole numbers; empty where they are."""
    missing = sum(v is None for v in values)
    if missing:
        return f"{missing} of {len(values)} values are missing"
    if all(isinstance(v, int) for v in values):
        return "" if all(-(2**63) <= v < 2**63 for v in values) else "numbers too large"
    return TEXT if all(isinstance(v, str) for v in values) else "no whole numbers"


def _classes(table: Table, column: str) -> tuple[list[str], bool | None]:
    """The names of a column's classes, and whether they are written there as text; None where either would do."""
    if column in table.names:
        return [nfc(name) for name in table.names[column]], None
    values = (value for _, _, row in table.rows if (value := row.get(column)) is not None)
    first = next(values, None)
    if not isinstance(first, str):  # the others, and with them the bytes of all images, need not be read
        return [], None if first is None else False
    texts = {first, *(value for value in values if isinstance(value, str))}
    return sorted({nfc(value) for value in texts}), True


def _renamed(labels: Tensor, numbers: Sequence[int]) -> Tensor:
    """The number that each class is called; -1, no class, stays."""
    return torch.tensor([*numbers, -1])[labels]


def decode(table: Table, decoder: Decoder, writer: Writer, skip_bad: bool) -> tuple[Columns, list[str], list[str]]:
    """Give each image to the writer; the columns, the images' names, and a line for each that was skipped.

    Sizes and channels must agree, unless the decoder makes them; a grey image among colour ones of a size that was
    asked for becomes colour.
    """
    columns, named, skipped = Columns(names=table.names), [], []
    first, shape = "", (0, 0, 0)
    for name, content, values in waited_for(table.rows, table.total, "reading images"):
        try:
            if content is None:
                raise UserError(f"{name}: no image bytes; the images must be inside the file")
            image = decoder(content, name)
        except UserError as problem:
            if not skip_bad:
                raise
            skipped.append(str(problem))
            columns.skipped.append(values)
            continue
        if first and image.shape != shape and (decoder.size is None or image.shape[1:] != shape[1:]):
            raise UserError(
                f"{name}: {_describe(image.shape)}, but {first} is {_describe(shape)}; {_mend(image, shape)}"
            )
        first, shape = first or name, image.shape if image.shape[0] > shape[0] else shape
        writer.append(image)
        columns.append(values)
        named.append(name)
    if not named:
        some = f"; {skipped[0]}" if skipped else ""
        raise UserError(f"{table.title}: no images in it{some}")
    return columns, named, skipped


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}×{shape[1]} {'grey' if shape[0] == 1 else 'colour'}"


def _mend(image: Pixels, shape: tuple[int, ...]) -> str:
    size = [] if image.shape[1:] == shape[1:] else ["size, to bring all images to one size"]
    mode = [] if len(image) == shape[0] else ["mode (grey or rgb), to bring all images to one mode"]
    return f"give {' and '.join(size + mode)}"


def skipping(skipped: Sequence[str], total: int) -> list[str]:
    """A line about the images that were skipped, if any were."""
    if not skipped:
        return []
    more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return [f"skipped {len(skipped)} of {total} images: {'; '.join(skipped[:NAMED])}{more}"]


def waited_for(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """The items, with a bar on stderr that appears only if they take long and goes when they are through."""
    start, bar = time.monotonic(), None
    try:
        for done, item in enumerate(items, start=1):
            yield item
            if bar is None and time.monotonic() - start > PATIENCE:
                from rich.console import Console
                from rich.progress import Progress

                console = Console(stderr=True)
                bar = Progress(console=console, transient=True, disable=not console.is_terminal)
                bar.start()
                bar.add_task(what, total=total)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)
    finally:
        if bar is not None:
            bar.stop()
