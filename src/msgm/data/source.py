"""Which images: a name, a place and how to read them. It opens itself and is one entry of every record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from .files import read_folder, read_parquet, resize
from .idx import read_idx
from .images import Images

SplitName = Literal["train", "test"]

EMBEDDED = Path(__file__).parent / "embedded"
MNIST_SOURCE = "MNIST database of handwritten digits, Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0"


@dataclass(frozen=True)
class Source:
    """Which images, and how they are read.

    ``name`` is one of

    * ``demo``: the MNIST subset that ships with the package (8,000 training and 2,000 test images);
    * ``mnist``: the idx files, gzipped or not, in ``dir``, ``dir/mnist`` or ``dir/MNIST/raw``;
    * a folder, or its name inside ``dir``, that holds one of: MNIST's idx files; ``train.parquet`` and
      ``test.parquet``, or shards ``train-*.parquet``; images in ``train/`` and ``test/``; images, all of
      them the train split. Each sub-folder of images is a class, numbered in the order of the names; or a
      ``metadata.csv`` beside them has a column ``file_name`` and integer columns;
    * a ``.parquet`` file, which is the train split. The column ``image`` holds encoded images (struct with
      ``bytes``, or bytes); integer and boolean columns without missing values are kept.

    ``size`` crops the middle square and resizes it (bicubic, antialiased). Without it all images must
    have one size and one number of channels. ``labels`` names the column to use as ``label``.
    ``recorded`` is the digest that a record has of the training images; where they have changed since, opening
    them is an error unless ``changed`` is ``"ok"``.
    """

    name: str
    dir: str | None = None
    size: int | None = None
    labels: str | None = None
    changed: Literal["refuse", "ok"] = "refuse"
    recorded: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise UserError(f"data size must be at least 1, not {self.size}")
        if self.changed not in ("refuse", "ok"):
            raise UserError(f"changed must be refuse or ok, not {self.changed!r}")

    def open(self, split: SplitName = "train") -> Images:
        """Read one split.

        Raises UserError: a name that means nothing, a missing split, a file that is no complete image (named),
        training images that are not those that the record has (both digests are named).
        """
        if split not in ("train", "test"):
            raise UserError(f"split must be train or test, not {split!r}")
        images = replace(_label(_read(self.name, split, self.dir, self.size), self.labels), source=self.to_dict())
        if split == "train" and self.changed == "refuse" and self.recorded not in (None, images.digest):
            raise UserError(
                f"{self.name}: these are not the images that the record names: sha256 {images.digest}, recorded "
                f"{self.recorded}; bring those back, or go on with these (changed: ok)"
            )
        return images

    def to_dict(self) -> dict[str, Any]:
        """What of it is given; ``changed`` and ``recorded`` where the images may differ from those of a record."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.changed == "refuse" or self.recorded is None:
            del given["changed"], given["recorded"]
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Source:
        """The source that a record's entry ``data`` names, with the digest that it has of the training images."""
        known = {field.name for field in fields(cls)} - {"changed", "recorded"}
        return cls(**{k: v for k, v in entry.items() if k in known}, recorded=entry.get("sha256"))

    @classmethod
    def of_record(cls, record: Mapping[str, Any], **given: Any) -> Source:
        """The source with these fields (None: not given); without a name, the record's own with them changed.

        If it reads as the record's does, its training images must have the digest that the record has.
        """
        given = {key: value for key, value in given.items() if value is not None}
        entry = record.get("data")
        if entry is None:
            if "name" not in given:
                raise UserError("the model's record names no data; say which images with --data")
            return cls(**given)
        before = cls.from_dict(entry)
        asked = cls(**given) if "name" in given else replace(before, **given)
        same = replace(asked, dir=before.dir, changed=before.changed, recorded=before.recorded) == before
        return replace(asked, recorded=before.recorded if same else None)


def _read(name: str, split: SplitName, dir: str | None, size: int | None) -> Images:
    if name == "demo":
        data = _read_mnist("demo", EMBEDDED, split, size)
        return replace(data, about=f"{MNIST_SOURCE}; a random subset")
    if name == "mnist":
        return _read_mnist("mnist", _mnist_folder(dir, split), split, size)
    path = _find(name, dir)
    if path.is_dir() and _idx_file(path, split, "images-idx3"):
        return _read_mnist(path.resolve().name, path, split, size)
    if path.is_dir() and not list(path.glob("*.parquet")):
        table, kind = read_folder(path, split, size), "folder of images"
    else:
        table, kind = read_parquet(_parquet_files(path, split), size), "Parquet file"
    pixels, columns, names = table
    title = path.resolve().name.removesuffix(".parquet")
    return Images.of(pixels, columns=columns, name=title, about=f"{kind} {title}", label_names=names)


def _label(data: Images, labels: str | None) -> Images:
    """The data with the column ``labels`` as its label."""
    if labels is None:
        return data
    if labels not in data.columns:
        known = ", ".join(sorted(data.columns)) or "none"
        raise UserError(f"{data.name}: no integer column {labels!r} to use as labels; known columns: {known}")
    names = data.label_names if labels == "label" else ()
    return replace(data, columns={**data.columns, "label": data.columns[labels]}, label_names=names)


def _find(name: str, dir: str | None) -> Path:
    places = [Path(dir) / name, Path(name)] if dir else [Path(name)]
    for place in places:
        if place.is_dir() or (place.is_file() and place.suffix == ".parquet"):
            return place
    problem = f"{name}: {'is no .parquet file' if Path(name).is_file() else 'no such data'}"
    raise UserError(f"{problem}; expected demo, mnist (with dir), a folder of images or a .parquet file")


def _idx_file(folder: Path, split: SplitName, kind: str) -> Path | None:
    stem = _stem(split, kind)
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _stem(split: SplitName, kind: str) -> str:
    return f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte"


def _mnist_folder(dir: str | None, split: SplitName) -> Path:
    if dir is None:
        raise UserError("mnist: dir must name the folder with its idx files; the demo subset needs none")
    for folder in (root := Path(dir), root / "mnist", root / "MNIST" / "raw"):
        if _idx_file(folder, split, "images-idx3"):
            return folder
    raise UserError(f"mnist: no {_stem(split, 'images-idx3')}[.gz] in {root}, {root}/mnist or {root}/MNIST/raw")


def _read_mnist(name: str, folder: Path, split: SplitName, size: int | None) -> Images:
    tensors = []
    for kind in ("images-idx3", "labels-idx1"):
        path = _idx_file(folder, split, kind)
        if path is None:
            raise UserError(f"{folder}: no {_stem(split, kind)}[.gz], which the {split} split needs")
        tensors.append(read_idx(path))
    images, labels = tensors
    if images.dim() != 3 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{folder}: {tuple(images.shape)} images and {tuple(labels.shape)} labels do not fit each other"
        )
    images = resize(images[:, None], size)
    return Images.of(images, columns={"label": labels.long()}, name=name, about=MNIST_SOURCE)


def _parquet_files(path: Path, split: SplitName) -> list[Path]:
    """The file, or the folder's ``split.parquet`` or shards ``split-*.parquet``."""
    if path.is_file():
        if split == "test":
            raise UserError(f"{path}: one file is a train split; put train.parquet and test.parquet in a folder")
        return [path]
    files = sorted(path.glob(f"{split}.parquet")) or sorted(path.glob(f"{split}-*.parquet"))
    if not files:
        found = ", ".join(sorted(file.name for file in path.glob("*.parquet")))
        raise UserError(f"{path}: no {split}.parquet (found {found}); add it, or name one file")
    return files
