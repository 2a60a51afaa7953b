"""A model's files are put in their places in one step, as far as whoever reads the folder can tell.

They are written beside their places first. Then a marker says which names are about to change; each is renamed; the
marker goes last. A folder with a marker in it is half-written, and no one takes it for a model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from ..storage import read_json, write_json

MARKER = ".publishing.json"


def refuse_half_written(folder: Path) -> None:
    """UserError for a folder in which a save was killed."""
    if (folder / MARKER).exists():
        raise UserError(
            f"{folder} is half-written: a save was stopped in the middle of it. Make the model again, resumed or "
            f"overwritten, or delete the folder"
        )


@contextmanager
def published(folder: Path, before: Collection[str]) -> Iterator[Path]:
    """A place to write files; when it is left without an error they are moved into the folder.

    ``before`` are the names, relative to the folder, of what an earlier model put there: those that are not written
    again are removed, and nothing else in the folder is touched.
    Raises UserError where a file or folder that is not among them stands in the way.
    """
    clear(folder)
    before = {*before, *_marked(folder)}
    staging = folder / f".model.{os.getpid()}.tmp"
    staging.mkdir(parents=True)
    try:
        yield staging
        new = sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file())
        for name in new:
            if (folder / name).exists() and name not in before:
                raise UserError(f"{folder / name} was not written by msgm and is not replaced; choose another folder")
        old = [name for name in before if name not in new and (folder / name).is_file()]
        write_json(folder / MARKER, {"new": new, "old": old})
        for name in new:
            _replace(staging / name, folder / name)
        for name in old:
            (folder / name).unlink()
            _prune((folder / name).parent, folder)
        (folder / MARKER).unlink()
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _marked(folder: Path) -> list[str]:
    """The names that a save which was killed was about to write or remove."""
    if not (folder / MARKER).is_file():
        return []
    marked = read_json(folder / MARKER)
    return [name for key in ("new", "old") for name in marked.get(key, [])]


def _replace(new: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(new, place)


def _prune(empty: Path, root: Path) -> None:
    while empty != root and not any(empty.iterdir()):
        empty.rmdir()
        empty = empty.parent


def clear(folder: Path) -> None:
    """Remove what saves that were killed have left beside their places."""
    for left in folder.glob(".model.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
