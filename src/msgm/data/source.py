"""Which images: a name, a place and how to read them. It opens itself and is one entry of every record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import UserError
from .cache import Writer, stored
from .decode import Background, Decoder, Mode, Pixels
from .find import SQUARE, SplitName, find
from .folders import read_pictures
from .images import Images
from .table import NoSplit, Table, decode, skipping

VERSION = 3
"""Of how images are decoded: caches of another version are not read."""


@dataclass(frozen=True)
class Source:
    """Which images, and how they are read.

    ``name`` is one of

    * ``demo``: the MNIST subset that ships with the package (8,000 training and 2,000 test images);
    * ``mnist``, ``cifar10``, ``celeba``, ``stl10``: in ``dir`` or ``dir/name``, as their official archives, unpacked,
      or as any folder below; else from the hub's cache. Of ``celeba`` the middle square is taken, as in the paper;
    * a folder, or its name inside ``dir``: MNIST's idx files; the binary files of CIFAR-10 or STL-10;
      ``train.parquet`` and ``test.parquet``, or shards ``train-*.parquet``, here or in ``data/``; the same of
      WebDataset's ``.tar``; what ``save_to_disk`` wrote; images in ``train/`` and ``test/`` (or ``val/``,
      ``validation/``, in any case); images, all of them the train split. Each sub-folder of images is a class: its
      number is its name, if all are whole numbers, else its place in the order of the names. ``metadata.csv``,
      ``.jsonl`` or ``.parquet`` (column ``file_name``), ``labels.csv`` or ``list_attr_celeba.txt``, in the folder or
      beside its splits, have columns in their place;
    * a ``.parquet`` or ``.tar`` file, which is the train split;
    * ``owner/name`` on the hub.

    Columns of whole numbers and booleans without gaps are kept, the others named (`Images.dropped`). ``labels`` names
    the column to use as ``label``; it may hold text, numbered as folders are. A class has its number of the train
    split in the test split, too. ``size`` crops the middle square and resizes it (bicubic,
    antialiased). ``mode`` is ``grey`` or ``rgb``; without either all images must have one size and mode. Transparent
    pixels lie on ``background``. With ``skip_bad`` an image that cannot be read is skipped and counted, else an error.
    ``recorded`` is the digest that a record has of the training images; where they have changed since, opening
    them is an error unless ``changed`` is ``"ok"``. ``unlike`` names what is read otherwise than on record: a note
    says then that another digest does not tell whether they have.
    """

    name: str
    dir: str | None = None
    size: int | None = None
    labels: str | None = None
    mode: Mode | None = None
    background: Background = "white"
    skip_bad: bool = False
    changed: Literal["refuse", "ok"] = "refuse"
    recorded: str | None = None
    unlike: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Decoder(size=self.size, mode=self.mode, background=self.background)
        if self.changed not in ("refuse", "ok"):
            raise UserError(f"changed must be refuse or ok, not {self.changed!r}")

    def open(self, split: SplitName = "train") -> Images:
        """Read one split: from the cache of decoded images, if nothing has changed since it was made.

        Raises UserError: a name that means nothing, a missing split, a file that is no complete image (named),
        training images that are not those that the record has (both digests are named).
        """
        if split not in ("train", "test"):
            raise UserError(f"split must be train or test, not {split!r}")
        found, square, root = find(self.name, self.dir, split)
        decoder = Decoder(size=self.size, mode=self.mode, background=self.background, square=square)
        if isinstance(found, Table):
            images = self._decoded(found, decoder, self._train() if split == "test" else None)
            images = replace(images, notes=[*found.notes, *images.notes])
        else:
            images = self._raw(found, decoder)
        images = replace(images, source=self.to_dict(), root=root)
        if split == "test" or self.changed == "ok" or self.recorded in (None, images.digest):
            return images
        if self.unlike:
            others = f"read with other {' and '.join(self.unlike)} than the record says"
            told = f"{self.name}: {others}: whether the images have changed since cannot be told"
            return replace(images, notes=[*images.notes, told])
        raise UserError(
            f"{self.name}: these are not the images that the record names: sha256 {images.digest}, recorded "
            f"{self.recorded}; bring those back, or go on with these (changed: ok)"
        )

    def copies(self, folder: Path, channels: int) -> Images:
        """All images below a folder, read as this source's are, which have so many channels."""
        mode: Mode = "grey" if channels == 1 else "rgb"
        decoder = Decoder(size=self.size, mode=mode, background=self.background, square=self.name == SQUARE)
        found = read_pictures(folder)
        images = Source(str(folder))._decoded(found, decoder, None)
        return replace(images, notes=[*found.notes, *images.notes])

    def _raw(self, found: Images, decoder: Decoder) -> Images:
        if self.labels not in (None, "label"):
            raise UserError(f"{found.name}: no column {self.labels!r} to use as labels; known columns: label")
        pixels = decoder.raw(found.store)
        return found if pixels is found.store else replace(found, store=pixels)

    def _train(self) -> Table | None:
        """The train split, whose numbers the classes have; None where there is none."""
        try:
            found, _, _ = find(self.name, self.dir, "train")
        except NoSplit:
            return None
        return found if isinstance(found, Table) else None

    def _decoded(self, table: Table, decoder: Decoder, train: Table | None) -> Images:
        place = os.path.abspath(table.files[0][0])  # paths may be relative, all to the same folder
        how = [VERSION, place, asdict(decoder), self.labels, self.skip_bad, table.files, table.names]
        if train is not None:
            how.append(train.names.get(self.labels or "label") or train.files)
        key = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:32]
        if cached := stored(key):
            return _cached(*cached)
        writer = Writer(key)
        try:
            columns, named, skipped = decode(table, decoder, writer, self.skip_bad)
            pixels = writer.finish()
            values, names, dropped = columns.finish(self.labels, table.title, train)
            notes = skipping(skipped, len(skipped) + len(named))
            if dropped:
                unfit = ", ".join(f"{column} ({why})" for column, why in dropped.items())
                notes.append(f"{table.title}: columns that rules cannot use: {unfit}")
            images = Images.of(
                pixels, columns=values, name=table.title, about=table.about, label_names=names, notes=notes,
                dropped=dropped, files=named,
            )  # fmt: skip
            if isinstance(pixels, np.memmap):
                _seal(writer, images)
            return images
        finally:
            writer.discard()

    def to_dict(self) -> dict[str, Any]:
        """What of it is given; ``changed`` and ``recorded`` where the images may differ from those of a record."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "unlike"}
        if self.changed == "refuse" or self.recorded is None:
            del given["changed"], given["recorded"]
        default = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in given.items() if value != default[name]}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Source:
        """The source that a record's entry ``data`` names, with the digest that it has of the training images."""
        known = {field.name for field in fields(cls)} - {"changed", "recorded", "unlike"}
        return cls(**{k: v for k, v in entry.items() if k in known}, recorded=entry.get("sha256"))

    @classmethod
    def of_record(cls, record: Mapping[str, Any], **given: Any) -> Source:
        """The source with these fields (None: not given); without a name, the record's own with them changed.

        If it reads as the record's does, its training images must have the digest that the record has. Fields by which
        it does not are ``unlike``.
        """
        given = {key: value for key, value in given.items() if value is not None}
        entry = record.get("data")
        if entry is None:
            if "name" not in given:
                raise UserError("the model's record names no data; say which images", option="data")
            return cls(**given)
        before = cls.from_dict(entry)
        asked = cls(**given) if "name" in given else replace(before, **given)
        if asked.name != before.name:
            return asked
        apart = ("dir", "changed", "recorded", "unlike")
        read = [field.name for field in fields(cls) if field.name not in apart]
        unlike = tuple(name for name in read if getattr(asked, name) != getattr(before, name))
        return replace(asked, recorded=before.recorded, unlike=unlike)


def _seal(writer: Writer, images: Images) -> None:
    columns, rows = images.columns, len(images)
    meta = {
        "name": images.name, "about": images.about, "label_names": dict(images.label_names), "notes": images.notes,
        "dropped": images.dropped, "columns": list(columns), "digest": images.digest,
    }  # fmt: skip
    beside = torch.stack(list(columns.values())).numpy() if columns else np.empty((0, rows), np.int64)
    writer.seal(meta, {"columns": beside, "files": np.array(images.files), "marks": images.marks})


def _cached(pixels: Pixels, meta: dict[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Images:
    columns = {
        name: torch.from_numpy(values.copy()) for name, values in zip(meta["columns"], arrays["columns"], strict=True)
    }
    names = {int(number): name for number, name in meta["label_names"].items()}
    return Images.of(
        pixels, columns=columns, name=meta["name"], about=meta["about"], label_names=names,
        notes=meta["notes"], dropped=meta["dropped"], files=arrays["files"],
        known={"digest": meta["digest"], "marks": arrays["marks"]},
    )  # fmt: skip
