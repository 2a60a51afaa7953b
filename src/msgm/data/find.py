"""From the name of a data set to its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..errors import UserError
from .folders import TEST, TRAIN, read_folder, split_folders
from .hugging import read_disk, read_files, read_hub, snapshot
from .idx import read_idx
from .images import Images
from .table import NoSplit, Table

SplitName = Literal["train", "test"]

EMBEDDED = Path(__file__).parent / "embedded"
MNIST_SOURCE = "MNIST database of handwritten digits, Y. LeCun, C. Cortes, C. J. C. Burges, CC BY-SA 3.0"
HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10", "celeba": "flwrlabs/celeba", "stl10": "tanganke/stl10"}
"""Data sets by name, and what they are called on the hub."""
SQUARE = "celeba"
"""Of which the middle square is taken."""
INSIDE = ("", "MNIST/raw", "cifar-10-batches-bin", "stl10_binary")
"""Where archives put the files."""


def find(name: str, dir: str | None, split: SplitName) -> tuple[Table | Images, bool, str]:
    """The images of a name, decoded or not, whether their middle square is taken at any rate, and where they are."""
    if name == "demo":
        return _mnist(EMBEDDED, split, "demo", f"{MNIST_SOURCE}; a random subset"), False, ""
    square = name == SQUARE
    for place in _places(name, dir):
        if place.is_file() and place.suffix in (".parquet", ".tar"):
            if split == "test":
                raise UserError(f"{place}: one file is a train split; put train and test into a folder")
            return read_files([place], place.resolve().stem), square, str(place)
        if place.is_dir() and (found := _folder(place, split, name)):
            return found, square, str(place)
    hub = HUB.get(name, name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", hub):
        # Offline, datasets looks at what it has made itself, and not at a copy of the repository.
        copy = snapshot(hub)
        found = _folder(copy, split, name) if copy else read_hub(hub, split)
        title = hub.split("/")[-1]
        if found:
            called = replace(found, title=title) if isinstance(found, Table) else replace(found, name=title)
            return called, square, str(copy or hub)
    raise UserError(_nothing(name, dir))


def _places(name: str, dir: str | None) -> list[Path]:
    if name in HUB:
        return [Path(dir) / name, Path(dir)] if dir else []
    return [Path(dir) / name, Path(name)] if dir else [Path(name)]


def _nothing(name: str, dir: str | None) -> str:
    if name in HUB:
        where = f"in {dir} or {dir}/{name}, nor" if dir else "without dir, the folder that has it, nor"
        return f"{name}: not found {where} as {HUB[name]} in the hub's cache"
    problem = f"{name}: {'is no .parquet or .tar file' if Path(name).is_file() else 'no such data'}"
    return (
        f"{problem}; expected demo, {', '.join(HUB)}, a folder of images, a .parquet or .tar file, or a name of the hub"
    )


def _folder(root: Path, split: SplitName, name: str) -> Table | Images | None:
    """What a folder holds; None for a named data set that is not in it."""
    title = root.resolve().name
    for folder in (root / inner for inner in INSIDE):
        if any(_idx(folder, part, "images-idx3") for part in ("train", "test")):
            return _mnist(folder, split, name if name in HUB else title, MNIST_SOURCE)
        if (folder / "stl10_binary.tar.gz").is_file() or (folder / "cifar-10-binary.tar.gz").is_file():
            raise UserError(f"{folder}: unpack the archive first")
        if (folder / f"{split}_X.bin").is_file():
            return _stl10(folder, split, name if name in HUB else title)
        if (folder / "test_batch.bin").is_file():
            return _cifar10(folder, split, name if name in HUB else title)
    if (root / "cifar-10-batches-py").is_dir():
        raise UserError(f"{root}/cifar-10-batches-py holds pickles, which can run code; get the binary version")
    if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
        return read_disk(root, split)
    for kind in ("parquet", "tar"):
        for folder in (root, root / "data"):
            every = sorted(
                path for path in folder.glob(f"*.{kind}") if path.is_file() and path.name != "metadata.parquet"
            )
            if every:
                return read_files(_shards(every, split, folder), title)
    if name in HUB and not split_folders(root, TRAIN) and not (root / "img_align_celeba").is_dir():
        return None
    return read_folder(root, split)


def _shards(files: Sequence[Path], split: SplitName, folder: Path) -> list[Path]:
    """Of the files those of the split: ``split.parquet``, or shards ``split-*.parquet``."""
    for name in TRAIN if split == "train" else TEST:
        if found := [path for path in files if re.fullmatch(rf"{name}(-.*)?", path.stem, re.IGNORECASE)]:
            _check_whole(found)
            return found
    there = ", ".join(path.name for path in files)
    raise NoSplit(f"{folder}: no {split}{files[0].suffix} (found {there}); add it, or name one file")


def _check_whole(files: Sequence[Path]) -> None:
    """Raise UserError for a shard that is missing: ``train-00000-of-00002`` says how many there are."""
    there = {path.name for path in files}
    shards = [found for name in there if (found := re.fullmatch(r"(.*-)(\d+)(-of-(\d+).*)", name))]
    for start, width, end, count in {(s[1], len(s[2]), s[3], int(s[4])) for s in shards}:
        wanted = (f"{start}{place:0{width}}{end}" for place in range(count))
        if missing := next((name for name in wanted if name not in there), None):
            raise UserError(f"{files[0].parent / missing}: a shard of the split that is not there; get it again")


def _idx(folder: Path, split: str, kind: str) -> Path | None:
    stem = f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte"
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _mnist(folder: Path, split: SplitName, name: str, about: str) -> Images:
    tensors = []
    for kind in ("images-idx3", "labels-idx1"):
        path = _idx(folder, split, kind)
        if path is None:
            prefix = "train" if split == "train" else "t10k"
            raise UserError(f"{folder}: no {prefix}-{kind}-ubyte[.gz], which the {split} split needs")
        tensors.append(read_idx(path))
    images, labels = tensors
    if images.dim() != 3 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{folder}: {tuple(images.shape)} images and {tuple(labels.shape)} labels do not fit each other"
        )
    return Images.of(images[:, None], columns={"label": labels.long()}, name=name, about=about)


def _stl10(folder: Path, split: SplitName, name: str) -> Images:
    """Columns of pixels, plane by plane: (N, 3, width, height) of bytes; labels from 1."""
    pixels = _bytes(folder / f"{split}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96).swapaxes(2, 3)
    labels = _bytes(folder / f"{split}_y.bin", 1)[:, 0]
    if len(labels) != len(pixels):
        raise UserError(f"{folder}: {len(pixels)} images and {len(labels)} labels do not fit each other")
    return Images.of(
        np.ascontiguousarray(pixels), columns={"label": torch.from_numpy(labels.astype(np.int64) - 1)}, name=name,
        about="STL-10, A. Coates, H. Lee, A. Y. Ng, 2011", label_names=_names(folder / "class_names.txt"),
    )  # fmt: skip


def _cifar10(folder: Path, split: SplitName, name: str) -> Images:
    """Rows of a label and three planes of 32 x 32 bytes."""
    files = [folder / "test_batch.bin"]
    if split == "train":
        files = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    rows = np.concatenate([_bytes(path, 1 + 3 * 32 * 32) for path in files])
    return Images.of(
        np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32),
        columns={"label": torch.from_numpy(rows[:, 0].astype(np.int64))}, name=name,
        about="CIFAR-10, A. Krizhevsky, 2009", label_names=_names(folder / "batches.meta.txt"),
    )  # fmt: skip


def _bytes(path: Path, row: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror}); get it again") from problem
    if not len(content) or len(content) % row:
        raise UserError(f"{path}: truncated or damaged, rows of {row} bytes expected; get it again")
    return content.reshape(-1, row)


def _names(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []
