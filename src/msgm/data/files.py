"""Image files and Parquet tables -> pixels, integer columns and label names."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import UserError

T = TypeVar("T")
Table = tuple[Tensor, dict[str, Tensor], tuple[str, ...]]
"""Images uint8 (N, C, H, W), columns int64 (N,), label names."""

PATIENCE = 3.0
"""Seconds of silence before a progress bar appears."""


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
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


def fit(image: Image.Image, size: int) -> Image.Image:
    """The middle square of the image, resized to size × size (bicubic, antialiased)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def resize(images: Tensor, size: int | None) -> Tensor:
    """Each of the images, uint8 (N, 1, H, W), made to `fit`; as they are for None."""
    if size is None:
        return images
    fitted = [np.array(fit(Image.fromarray(image[0].numpy()), size)) for image in images]
    return torch.from_numpy(np.stack(fitted))[:, None]


def decode(content: Path | bytes, name: str, size: int | None) -> Tensor:
    """One encoded image -> uint8 (C, H, W), C = 1 for grey and 3 for colour. ``name`` is for the error."""
    try:
        with Image.open(content if isinstance(content, Path) else io.BytesIO(content)) as opened:
            opened.load()
            mode = opened.mode
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as problem:
        raise UserError(f"{name}: not an image of a known format; remove it or get it again") from problem
    except Exception as problem:  # each of Pillow's decoders has its own errors for damaged files
        raise UserError(f"{name}: not a complete image ({problem}); remove it or get it again") from problem
    if mode == "F" or mode.startswith("I"):
        raise UserError(f"{name}: pixels of kind {mode!r}; images of 8 bits per channel are expected")
    image = image.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
    pixels = np.array(fit(image, size) if size is not None else image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def stack(images: Iterable[tuple[str, Path | bytes]], total: int, size: int | None) -> Tensor:
    """Decode (name, content) pairs into one tensor. Sizes and channels must agree, unless given ``size``."""
    decoded: list[Tensor] = []
    first = ""
    for name, content in progress(images, total, "reading images"):
        image = decode(content, name, size)
        first = first or name
        if decoded and size is None and image.shape != decoded[0].shape:
            raise UserError(
                f"{name}: {_describe(image)}, but {first} is {_describe(decoded[0])}; "
                "give image_size to bring all images to one size and number of channels"
            )
        decoded.append(image)
    channels = max(len(image) for image in decoded)
    return torch.stack([image.expand(channels, -1, -1) for image in decoded])


def _describe(image: Tensor) -> str:
    return f"{image.shape[2]}×{image.shape[1]} {'grey' if len(image) == 1 else 'colour'}"


def read_folder(root: Path, split: str, size: int | None) -> Table:
    """The images of ``root/train`` or ``root/test``, or of ``root`` itself if neither exists (train)."""
    divided = (root / "train").is_dir() or (root / "test").is_dir()
    folder = root / split if divided else root
    if not folder.is_dir() or (split == "test" and not divided):
        raise UserError(f"{root}: no {split} split; put the images in {root}/train and {root}/test")
    if (folder / "metadata.csv").is_file():
        files, columns = _read_metadata(folder)
        names: tuple[str, ...] = ()
    else:
        files = _image_files(folder)
        # A class has the same number in both splits, even where the test split lacks one.
        numbered = _classes(root / "train" if (root / "train").is_dir() else folder)
        columns, names = _folder_labels(folder, files, numbered), numbered
    if not files:
        raise UserError(f"{folder}: no images in it")
    return stack(((str(file), file) for file in files), len(files), size), columns, names


def _visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _image_files(folder: Path) -> list[Path]:
    """All files but hidden ones, sorted, so that no file system's order shows. Each has to be an image."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and _visible(path, folder))


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and _visible(path, folder)))


def _folder_labels(folder: Path, files: list[Path], names: tuple[str, ...]) -> dict[str, Tensor]:
    if not names:
        return {}
    number = {name: i for i, name in enumerate(names)}
    labels = []
    for file in files:
        top, *below = file.relative_to(folder).parts
        if not below:
            raise UserError(f"{file}: lies beside the class folders {', '.join(names)}; move it into one of them")
        if top not in number:
            raise UserError(f"{file}: class {top!r} is not in the train split ({', '.join(names)})")
        labels.append(number[top])
    return {"label": torch.tensor(labels)}


def _read_metadata(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """The files that ``metadata.csv`` names, in its order, and its columns that hold whole numbers."""
    path = folder / "metadata.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            rows, header = list(reader), list(reader.fieldnames or [])
    except (UnicodeError, csv.Error) as problem:
        raise UserError(f"{path}: not a table of comma-separated values in UTF-8 ({problem})") from problem
    if "file_name" not in header:
        raise UserError(f"{path}: needs a column file_name; found {', '.join(header) or 'nothing'}")
    columns = {}
    for column in header:
        try:
            columns[column] = torch.tensor([int(row[column]) for row in rows], dtype=torch.int64)
        except (TypeError, ValueError, RuntimeError) as problem:
            if column == "label":
                raise UserError(
                    f"{path}: column label must hold whole numbers ({problem}); or use one folder per class"
                ) from problem
    columns.pop("file_name", None)
    files = [folder / (row["file_name"] or "") for row in rows]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: named in {path}, but no such file")
    return files, columns


def read_parquet(paths: list[Path], size: int | None) -> Table:
    """All rows of the files: images decoded, integer and boolean columns, the label's class names."""
    import pyarrow
    import pyarrow.parquet

    tables = []
    for path in paths:
        try:
            tables.append(pyarrow.parquet.read_table(path))
        except (OSError, pyarrow.ArrowException) as problem:
            reason = str(problem).splitlines()[0]
            raise UserError(f"{path}: not a complete Parquet file ({reason}); get it again") from problem
        if tables[-1].column_names != tables[0].column_names:
            raise UserError(f"{path}: its columns differ from those of {paths[0]}")
    key = _image_column(tables[0].schema, paths[0])
    rows = sum(table.num_rows for table in tables)
    if not rows:
        raise UserError(f"{paths[0]}: no images in it")
    images = stack(_encoded(tables, paths, key), rows, size)
    columns = {}
    for field in tables[0].schema:
        chunks = [table[field.name] for table in tables]
        if _is_integer(field.type) and not any(chunk.null_count for chunk in chunks):
            values = [chunk.cast(pyarrow.int64()).to_numpy() for chunk in chunks]
            columns[field.name] = torch.from_numpy(np.concatenate(values))
    return images, columns, _class_names(tables[0].schema)


def _is_integer(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_boolean(kind))


def _image_column(schema: Any, path: Path) -> str:
    """``image``, else the only column that can hold encoded images."""
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    candidates = [field.name for field in schema if holds_images(field.type)]
    if "image" in candidates:
        return "image"
    if len(candidates) == 1:
        return str(candidates[0])
    raise UserError(
        f"{path}: no column image with encoded images (struct with bytes, or binary); "
        f"columns: {', '.join(schema.names)}"
    )


def _encoded(tables: list[Any], paths: list[Path], key: str) -> Iterator[tuple[str, bytes]]:
    for table, path in zip(tables, paths, strict=True):
        for row, value in enumerate(table[key]):
            entry = value.as_py()
            content = entry["bytes"] if isinstance(entry, dict) else entry
            inner = entry.get("path") if isinstance(entry, dict) else None
            name = f"{path}, row {row}" + (f" ({inner})" if inner else "")
            if content is None:
                raise UserError(f"{name}: no image bytes; the images must be inside the Parquet file")
            yield name, content


def _class_names(schema: Any) -> tuple[str, ...]:
    """The label's class names, as Hugging Face's ``datasets`` writes them into the metadata."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in info["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
