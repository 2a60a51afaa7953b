"""Folders of images. Every file is read, or it is said why not; what says something about the images is a table."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..errors import UserError
from ..storage import read_text
from .names import nfc
from .rows import records
from .table import NAMED, NoSplit, Table, beside, stamps

TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "validation", "valid")
"""Names of the folders of a split, in any case and also with ``set`` after them; the first that is there is meant."""
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv", "list_attr_celeba.txt")
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path", "image_id")
PARTITION, PARTS = "list_eval_partition.txt", {"train": "0", "test": "2"}
"""CelebA's own split; 1 is a third."""
INNER = (*TRAIN, *TEST, "img_align_celeba")
"""Names of folders that are a part of the one above; what lies beside these says something about their images."""


class File(NamedTuple):
    """A file below a folder: a link that leads nowhere has no bytes. Hundreds of thousands of them are no `Path`s."""

    parts: tuple[str, ...]
    """Its path in the folder; by these files are sorted."""
    path: str
    bytes: int
    changed: int


def read_folder(root: Path, split: str) -> Table:
    """The images of one split: those below ``root/train`` or ``root/test``, or without these all of ``root`` (train).

    Links are followed. Hidden files are no part of it.
    """
    folder, notes = _split_folder(root, split)
    table, partition = _near(folder, *TABLES), _near(folder, PARTITION)
    aside = [path for path in (table, partition) if path is not None]
    notes += [f"taken from outside {folder}: {path}" for path in aside if path.parent != folder]
    images, left = _images(folder, aside)
    notes += left
    names: Mapping[str, Sequence[str]] = {}
    if table is not None:
        rows, lost = _beside(table, folder, images)
        notes += lost
    else:
        # A class has the same number in both splits, even where the test split lacks one.
        train = split_folders(root, TRAIN) if split == "test" else []
        classes = _classes(train[0] if train else folder)
        names = {"label": classes} if classes else {}
        labels = {name: {"label": number} for number, name in enumerate(classes)}
        rows = [(file, _label(file, labels) if labels else {}) for file in images]
    if partition is not None:
        rows, lost = _part(partition, folder, rows, split)
        notes += lost
    files = [(file.path, file.bytes, file.changed) for file, _ in rows] + stamps(aside)
    return Table(
        rows=((file.path, Path(file.path), values) for file, values in rows), total=len(rows),
        title=root.resolve().name, about=f"folder of images {root.resolve().name}", files=files, names=names,
        notes=notes,
    )  # fmt: skip


def read_pictures(root: Path) -> Table:
    """All images below a folder: its folders are neither splits nor classes, and no table is read."""
    images, notes = _images(root, [])
    files, title = [(file.path, file.bytes, file.changed) for file in images], root.resolve().name
    return Table(
        rows=((file.path, Path(file.path), {}) for file in images), total=len(images), title=title,
        about=f"folder of images {title}", files=files, notes=notes,
    )  # fmt: skip


def _images(folder: Path, aside: Sequence[Path]) -> tuple[list[File], list[str]]:
    """The images below, and a line about what is none by its name and does not stand aside."""
    images, others = [], []
    for file in sorted(_walk(str(folder), (), ())):
        if _is_image(file.path):
            images.append(file)
        elif Path(file.path) not in aside:
            others.append("/".join(file.parts))
    notes = [f"left out of {folder}, no images by their names: {_some(others)}"] if others else []
    if not images:
        raise UserError(f"{folder}: no images in it{f' ({notes[0]})' if notes else ''}")
    return images, notes


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _split_folder(root: Path, split: str) -> tuple[Path, list[str]]:
    """The folder of the split, and what lies beside the splits and is left out."""
    train, test = split_folders(root, TRAIN), split_folders(root, TEST)
    if not train and not test:
        if split == "test" and not (root / PARTITION).is_file():
            raise NoSplit(f"{root}: no test split; put the images in {root}/train and {root}/test")
        return root, []
    others = [name for name in _visible(root) if root / name not in (*train, *test)]
    beside = [name for name in others if (root / name).is_dir()]
    if beside and not (train and test):
        alone = (*train, *test)[0].name
        raise UserError(
            f"{root}: is {alone}, beside {', '.join(beside[:NAMED])}, a split or a class? Put the class folders into "
            f"{root}/train/, or take the others out"
        )
    chosen = train if split == "train" else test
    if not chosen:
        raise NoSplit(f"{root}: no {split} split; put the images in {root}/train and {root}/test")
    left = [*beside, *(path.name for path in (*train[1:], *test[1:])), *filter(_is_image, others)]
    return chosen[0], [f"left out, beside the splits in {root}: {_some(left)}"] if left else []


def split_folders(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders that are called so, as `TRAIN` and `TEST` say, in the order of the names."""
    there = [name for name in _visible(root) if _called(name) in names and (root / name).is_dir()]
    return [root / name for name in sorted(there, key=lambda name: names.index(_called(name)))]


def _called(name: str) -> str:
    """``Test``, ``test_set`` and ``testset`` are called ``test``."""
    return re.sub(r"[ _-]?set$", "", name.lower())


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in Image.registered_extensions()


def _visible(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _walk(folder: str, parts: tuple[str, ...], above: tuple[str, ...]) -> Iterator[File]:
    """All files below; links are followed, but not round in a circle, and those that lead nowhere are there, too."""
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder}: a link to a folder that it lies in; remove it")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, (*parts, entry.name), (*above, real))
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                yield File((*parts, entry.name), entry.path, -1, 0)
            else:
                yield File((*parts, entry.name), entry.path, status.st_size, status.st_mtime_ns)


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of the folders with images. One that has splits of its own is refused: it is hardly a class."""
    inner = [folder / name for name in _visible(folder) if (folder / name).is_dir()]
    if odd := next((path for path in inner if split_folders(path, TRAIN) and split_folders(path, TEST)), None):
        raise UserError(f"{odd}: is no class, it holds a train and a test split; name this folder as the data")
    full = [path.name for path in inner if any(_is_image(file.path) for file in _walk(str(path), (), ()))]
    return tuple(sorted({nfc(name) for name in full}))


def _label(file: File, labels: Mapping[str, dict[str, int]]) -> dict[str, int]:
    if len(file.parts) == 1:
        raise UserError(f"{file.path}: lies beside the class folders {', '.join(labels)}; move it into one of them")
    name = nfc(file.parts[0])
    if name not in labels:
        raise UserError(f"{file.path}: class {name!r} is not in the train split ({', '.join(labels)})")
    return labels[name]


def _near(folder: Path, *names: str) -> Path | None:
    """The first of these files in the folder, or where this is a part of the one above, beside it."""
    places = [folder, folder.parent] if _called(folder.name) in INNER else [folder]
    return next((path for place in places for name in names if (path := place / name).is_file()), None)


def _lookup(listing: Path, folder: Path, images: Sequence[File]) -> Callable[[str], File | None]:
    """What a name in a listing means: an image of the folder, or of a split beside it if the listing lies there, too.

    A name is a path from the listing or from the split, or a file's name alone. UserError if several are called so.
    """
    splits = split_folders(listing.parent, (*TRAIN, *TEST)) if listing.parent != folder else []
    others = [split for split in splits if split != folder]
    by_path, by_name = defaultdict(list), defaultdict(list)
    for file in (*images, *(file for other in others for file in _walk(str(other), (), ()))):
        by_path[nfc(os.path.abspath(file.path))].append(file)
        by_name[nfc(file.parts[-1])].append(file)

    def at(place: Path, name: str) -> list[File]:
        return by_path.get(nfc(os.path.abspath(os.path.join(place, name))), [])

    def look(name: str) -> File | None:
        found = at(listing.parent, name) or by_name.get(nfc(name))
        found = found or [file for split in (folder, *others) for file in at(split, name)]
        if len(found) > 1:
            raise UserError(f"{listing}: {name} may be {found[0].path} or {found[1].path}; write more of the path")
        return found[0] if found else None

    return look


def _beside(table: Path, folder: Path, images: Sequence[File]) -> tuple[list[tuple[File, dict[str, Any]]], list[str]]:
    """The images that the table names, in its order, with their values; a line about those that it does not name."""
    look = _lookup(table, folder, images)
    found: dict[str, tuple[File, dict[str, Any]]] = {}
    for name, values in _entries(table):
        file = look(name)
        if file is None:
            like = next((f for f in images if os.path.splitext(f.parts[-1])[0] == name), None)
            mend = f"; write {like.parts[-1]}, with its suffix" if like else ""
            raise UserError(f"{table.parent / name}: named in {table}, but no such file{mend}")
        if file.path in found:
            raise UserError(f"{file.path}: named twice in {table}; leave one row for it")
        found[file.path] = file, values
    here = {file.path for file in images}
    rows = [row for path, row in found.items() if path in here]
    if not rows:
        raise UserError(f"{folder}: no images in it (none is named in {table})")
    return rows, _unnamed(table, images, found)


def _unnamed(listing: Path, images: Sequence[File], named: Mapping[str, object]) -> list[str]:
    """A line about the images that a listing does not name, if there are any."""
    lost = ["/".join(file.parts) for file in images if file.path not in named]
    return [f"left out, not named in {listing}: {_some(lost)}"] if lost else []


def _entries(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if table.name == "list_attr_celeba.txt":
        yield from _attributes(table)
        return
    wanted = FILE_COLUMNS if table.stem == "labels" else FILE_COLUMNS[:1]
    for row in records(table, wanted):
        key = next((name for name in wanted if name in row), None)
        if key is None:
            raise UserError(f"{table}: needs a column {' or '.join(wanted)}; found {', '.join(row) or 'nothing'}")
        if (name := row.pop(key)) in (None, ""):
            raise UserError(f"{table}: a row names no file in its column {key}; fill it in, or take the row out")
        yield str(name), beside(row.items(), f"{table}, {name}")


def _attributes(path: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """CelebA's attributes: how many, their names, then a line an image with 1 or -1 for each; here 1 or 0."""
    lines = read_text(path).splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    if twice := [name for name, columns in Counter(names).items() if columns > 1]:
        raise UserError(f"{path}, line 2: {_some(twice)}: the name of more than one column; each needs its own")
    for number, line in enumerate(lines[2:], start=3):
        file, *values = line.split() or [""]
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise UserError(f"{path}, line {number}: a file name and {len(names)} times 1 or -1 expected")
        found = ((name, int(value == "1")) for name, value in zip(names, values, strict=True))
        yield file, beside(found, f"{path}, {file}")


def _part(
    partition: Path, folder: Path, rows: list[tuple[File, Any]], split: str
) -> tuple[list[tuple[File, Any]], list[str]]:
    """The rows of a split, and a line about those that are in none. The list may name images that are not there."""
    images = [file for file, _ in rows]
    look, part = _lookup(partition, folder, images), dict[str, str]()
    for number, line in enumerate(read_text(partition).splitlines(), start=1):
        if not line.strip():
            continue
        *name, value = line.split()
        if not name or value not in ("0", "1", "2"):
            raise UserError(f"{partition}, line {number}: a file name and 0, 1 or 2 expected, not {line[:60]!r}")
        if (file := look(" ".join(name))) is None:
            continue
        if file.path in part:
            raise UserError(f"{file.path}: named twice in {partition}; leave one line for it")
        part[file.path] = value
    kept = [(file, values) for file, values in rows if part.get(file.path) == PARTS[split]]
    if not kept:
        raise UserError(f"{partition}: says of no image that it is in the {split} split ({PARTS[split]})")
    return kept, _unnamed(partition, images, part)
