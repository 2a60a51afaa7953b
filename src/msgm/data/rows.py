"""The rows of a table beside images: CSV, JSON lines or Parquet. No row is read by what could crash on it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .hugging import first_line, whole

WIDEST = 100_000
"""Columns of a table at most."""
KINDS: Sequence[tuple[str, Callable[[str], Any]]] = (
    (r"\s*[+-]?\d{1,30}\s*", int),
    (r"(?i:true|false)", lambda cell: cell.lower() == "true"),
    (r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", float),
)
"""Whole numbers, yes and no, numbers; what is none of them is text."""


def records(path: Path, texts: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows, all with the kinds of their columns; in CSV the first of ``texts`` that is there is text at any rate.

    Raises UserError naming the file, and where it can the line.
    """
    read = {".csv": lambda path: _csv(path, texts), ".jsonl": _lines, ".parquet": _parquet}[path.suffix]
    try:
        yield from read(path)
    except UserError:
        raise
    except Exception as problem:  # whichever of csv, json and pyarrow finds it
        raise UserError(f"{path}: not a table in {path.suffix[1:].upper()} ({first_line(problem)})") from problem


def _csv(path: Path, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A class may be called None or NA; only an empty cell is a missing value. Spaces after a comma are no part."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, skipinitialspace=True)
        heads = [head.strip() for head in next(lines, [])]
        if len(set(heads)) < len(heads) or len(heads) > WIDEST:
            raise UserError(f"{path}: columns have names of their own, at most {WIDEST}; found {_some(heads)}")
        rows = [row for row in lines if row]
    if odd := next((row for row in rows if len(row) > len(heads)), None):
        raise UserError(f"{path}: a row has {len(odd)} cells for {len(heads)} columns: {_some(odd)}")
    text = next((head for head in texts if head in heads), None)
    kinds = [
        str if head == text else _kind([row[place] for row in rows if place < len(row) and row[place]])
        for place, head in enumerate(heads)
    ]
    for row in rows:
        yield {name: kind(cell) if cell else None for name, kind, cell in zip(heads, kinds, row, strict=False)}


def _kind(cells: Sequence[str]) -> Callable[[str], Any]:
    """What all cells of a column are."""
    return next((kind for form, kind in KINDS if all(re.fullmatch(form, cell, re.ASCII) for cell in cells)), str)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or len(row) > WIDEST:
                raise UserError(f"{path}, line {number}: not a JSON object of at most {WIDEST} entries")
            yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    for file in whole([path]):
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1000):
            yield from batch.to_pylist()


def _some(words: Sequence[str]) -> str:
    return ", ".join(word[:20] for word in words[:5]) + (", …" if len(words) > 5 else "") or "nothing"
