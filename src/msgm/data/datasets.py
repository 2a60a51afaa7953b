"""Images with integer columns beside them, read by name, from MNIST's files, a folder or Parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from .files import read_folder, read_parquet, resize
from .idx import read_idx

SplitName = Literal["train", "test"]

EMBEDDED = Path(__file__).parent / "embedded"
MNIST_SOURCE = "MNIST database of handwritten digits, Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """N images and integer columns that say something about each of them.

    ``images`` is uint8 (N, C, H, W), or float (N, d): vectors, which are taken as they are, in model space.
    Each column is int64 (N,), ``"label"`` among them if the class is known.
    ``label_names[i]``, where given, is the name of label i. ``source`` says whose data these are. ``loaded`` has, for
    the record, where `load_data` read them: ``data`` (its name), ``data_dir`` and ``image_size``, if given.
    """

    images: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    name: str
    source: str = ""
    label_names: tuple[str, ...] = ()
    loaded: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vectors = self.images.is_floating_point() and self.images.dim() == 2
        if not vectors and (self.images.dtype != torch.uint8 or self.images.dim() != 4):
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise UserError(f"{self.name}: images must be uint8 (N, C, H, W), not {found}; vectors float (N, d)")
        if vectors and not bool(self.images.isfinite().all()):
            raise UserError(f"{self.name}: vectors must be finite numbers; remove those that are not")
        for column, values in self.columns.items():
            if values.dtype != torch.int64 or values.shape != (len(self.images),):
                raise UserError(
                    f"{self.name}: column {column!r} must be int64 ({len(self.images)},), "
                    f"not {values.dtype} {tuple(values.shape)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of each image, (d,) of vectors."""
        return tuple(self.images.shape[1:])

    @property
    def labels(self) -> Tensor:
        """The column ``"label"``; a UserError where there is none."""
        if "label" not in self.columns:
            known = f"columns: {', '.join(sorted(self.columns))}" if self.columns else "it has no columns"
            raise UserError(f"{self.name}: no labels ({known}); name a column as labels, or use one folder per class")
        return self.columns["label"]

    @property
    def sha256(self) -> str:
        """Digest (hex) of shape, pixels and columns, in the order of the rows.

        It does not depend on how or where the images were stored, nor on the order of the columns. Another
        order of rows is another digest: a run's draws address rows by number.
        """
        shapes = {"images": list(self.images.shape), "columns": sorted(self.columns)}
        digest = hashlib.sha256(json.dumps(shapes).encode())
        digest.update(self.images.contiguous().cpu().numpy().tobytes())
        for column in sorted(self.columns):
            digest.update(self.columns[column].cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def subset(self, index: Tensor | slice | Sequence[int]) -> ImageData:
        """The rows that ``index`` (bool mask, row numbers or slice) selects, with their columns."""
        columns = {column: values[index] for column, values in self.columns.items()}
        return replace(self, images=self.images[index], columns=columns)


def to_model(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pixels 0..255 -> float32 model space [-1, 1), dequantised: x = (pixels + u)/128 - 1.

    u is uniform on the multiples of 2^-16 in [0, 1), drawn from ``generator`` (on the images' device), or 1/2
    without one. For these u float32 holds x exactly, so that `to_pixels` gives back the very pixels.
    For a density p of x an image has -log p(x)/(d ln 2) + 7 bits/dim, as one pixel step is 2^-7.
    """
    if images.dtype != torch.uint8:
        raise UserError(f"images must be uint8, not {images.dtype}; model space is reached from pixels only")
    if generator is None:
        return (images.float() + 0.5) / 128 - 1
    u = torch.randint(2**16, images.shape, generator=generator, device=images.device).float() / 2**16
    return (images.float() + u) / 128 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Model space -> uint8 pixels floor((x + 1)·128) clamped to 0..255. Exactly undoes `to_model`."""
    return ((x.float() + 1) * 128).floor().clamp(0, 255).to(torch.uint8)


def load_data(
    name: str = "demo",
    *,
    split: SplitName = "train",
    data_dir: str | None = None,
    image_size: int | None = None,
    labels: str | None = None,
) -> ImageData:
    """Read one split of a data set into memory.

    ``name`` is one of

    * ``demo``: the MNIST subset that ships with the package (8,000 training and 2,000 test images);
    * ``mnist``: the idx files, gzipped or not, in ``data_dir``, ``data_dir/mnist`` or ``data_dir/MNIST/raw``;
    * a folder, or its name inside ``data_dir``, that holds one of: MNIST's idx files; ``train.parquet`` and
      ``test.parquet``, or shards ``train-*.parquet``; images in ``train/`` and ``test/``; images, all of
      them the train split. Each sub-folder of images is a class, numbered in the order of the names; or a
      ``metadata.csv`` beside them has a column ``file_name`` and integer columns;
    * a ``.parquet`` file, which is the train split. The column ``image`` holds encoded images (struct with
      ``bytes``, or bytes); integer and boolean columns without missing values are kept.

    ``image_size`` crops the middle square and resizes it (bicubic, antialiased). Without it all images must
    have one size and one number of channels. ``labels`` names the column to use as ``label``.
    UserError: a name that means nothing, a missing split, a file that is no complete image (named).
    """
    if split not in ("train", "test"):
        raise UserError(f"split must be train or test, not {split!r}")
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1, not {image_size}")
    given = {"data": name, "data_dir": data_dir, "image_size": image_size}
    loaded = {key: value for key, value in given.items() if value is not None}
    return replace(_label(_read(name, split, data_dir, image_size), labels), loaded=loaded)


def _read(name: str, split: SplitName, data_dir: str | None, image_size: int | None) -> ImageData:
    if name == "demo":
        data = _read_mnist("demo", EMBEDDED, split, image_size)
        return replace(data, source=f"{MNIST_SOURCE}; a random subset")
    if name == "mnist":
        return _read_mnist("mnist", _mnist_folder(data_dir, split), split, image_size)
    path = _find(name, data_dir)
    if path.is_dir() and _idx_file(path, split, "images-idx3"):
        return _read_mnist(path.resolve().name, path, split, image_size)
    if path.is_dir() and not list(path.glob("*.parquet")):
        table, kind = read_folder(path, split, image_size), "folder of images"
    else:
        table, kind = read_parquet(_parquet_files(path, split), image_size), "Parquet file"
    images, columns, names = table
    title = path.resolve().name.removesuffix(".parquet")
    return ImageData(images=images, columns=columns, name=title, source=f"{kind} {title}", label_names=names)


def mnist(data_dir: str | None = None, *, split: SplitName = "train") -> ImageData:
    """MNIST: all of it in the idx files of ``data_dir``, or without one the subset that ships here."""
    return load_data("mnist" if data_dir else "demo", split=split, data_dir=data_dir)


def _label(data: ImageData, labels: str | None) -> ImageData:
    """The data with the column ``labels`` as its label."""
    if labels is None:
        return data
    if labels not in data.columns:
        known = ", ".join(sorted(data.columns)) or "none"
        raise UserError(f"{data.name}: no integer column {labels!r} to use as labels; known columns: {known}")
    names = data.label_names if labels == "label" else ()
    return replace(data, columns={**data.columns, "label": data.columns[labels]}, label_names=names)


def _find(name: str, data_dir: str | None) -> Path:
    places = [Path(data_dir) / name, Path(name)] if data_dir else [Path(name)]
    for place in places:
        if place.is_dir() or (place.is_file() and place.suffix == ".parquet"):
            return place
    problem = f"{name}: {'is no .parquet file' if Path(name).is_file() else 'no such data'}"
    raise UserError(f"{problem}; expected demo, mnist (with data_dir), a folder of images or a .parquet file")


def _idx_file(folder: Path, split: SplitName, kind: str) -> Path | None:
    stem = _stem(split, kind)
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _stem(split: SplitName, kind: str) -> str:
    return f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte"


def _mnist_folder(data_dir: str | None, split: SplitName) -> Path:
    if data_dir is None:
        raise UserError("mnist: data_dir must name the folder with its idx files; the demo subset needs none")
    for folder in (root := Path(data_dir), root / "mnist", root / "MNIST" / "raw"):
        if _idx_file(folder, split, "images-idx3"):
            return folder
    raise UserError(f"mnist: no {_stem(split, 'images-idx3')}[.gz] in {root}, {root}/mnist or {root}/MNIST/raw")


def _read_mnist(name: str, folder: Path, split: SplitName, image_size: int | None) -> ImageData:
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
    images = resize(images[:, None], image_size)
    return ImageData(images=images, columns={"label": labels.long()}, name=name, source=MNIST_SOURCE)


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
