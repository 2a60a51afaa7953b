"""What Hugging Face's ``datasets`` reads: Parquet, Arrow on disk, WebDataset, and the hub.

It streams: nothing is copied into its own cache. Images stay encoded; decoding is ours, which names what is broken.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .names import nfc
from .table import NoSplit, Row, Table, beside, stamps

FEW = 10_000
"""Rows that any Parquet file may have; a larger one has a byte or more for each."""
KINDS = {".parquet": "parquet", ".tar": "webdataset"}


def read_files(paths: Sequence[Path], title: str) -> Table:
    """Parquet files or WebDataset tars, one after another."""
    files = stamps(paths)
    if paths[0].suffix == ".parquet" and not (paths := whole(paths)):
        raise UserError(f"{files[0][0]}: no images in it")
    kind = "Parquet file" if paths[0].suffix == ".parquet" else "WebDataset"
    try:
        return _table([(str(path), _stream(path)) for path in paths], title, f"{kind} {title}", files)
    except UserError:
        raise
    except Exception as problem:  # whichever of pyarrow, tarfile and datasets finds it
        found = first_line(problem)
        if paths[0].suffix == ".tar" and _complete(paths):
            raise UserError(
                f"{files[0][0]}: cannot be read as a WebDataset ({found}); all images need one suffix, "
                'and .cls a whole number (names go into .json: {"label": "cat"})'
            ) from problem
        raise UserError(f"{files[0][0]}: not a complete {kind} ({found}); get it again") from problem


def _complete(tars: Sequence[Path]) -> bool:
    """Whether the archives can be read to their ends, whatever is in them."""
    try:
        for path in tars:
            with tarfile.open(path) as archive:
                archive.getmembers()
    except (OSError, tarfile.TarError):
        return False
    return True


def read_disk(folder: Path, split: str) -> Table:
    """What ``save_to_disk`` wrote."""
    from datasets import load_from_disk

    there = sorted(path for path in folder.rglob("*") if not path.is_dir())
    if odd := next((path for path in there if not path.is_file()), None):
        raise UserError(f"{odd}: a pipe, a device or a link to nowhere, and no file; remove it")
    files = stamps(there)
    try:
        dataset = load_from_disk(str(folder))
    except Exception as problem:
        raise UserError(f"{folder}: not a complete data set of load_from_disk ({first_line(problem)})") from problem
    dataset = _of_split(dataset, split, str(folder)) if isinstance(dataset, Mapping) else dataset
    title = folder.resolve().name
    return _table([(str(folder), dataset)], title, f"data set {title}", files)


def snapshot(name: str) -> Path | None:
    """The local copy of a data set's repository on the hub, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def read_hub(name: str, split: str) -> Table | None:
    """A data set of the hub, from its local cache or over the network; None where there is none of this name."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    try:
        datasets = load_dataset(name)
    except Exception:  # not there, not reachable, or not allowed offline: each has errors of its own
        return None
    dataset = _of_split(datasets, split, name)
    files = [(str(dataset._fingerprint), 0, 0)]
    return _table([(name, dataset)], name.split("/")[-1], f"data set {name} of the hub", files)


def _of_split(datasets: Mapping[str, Any], split: str, where: str) -> Any:
    names = ("train", "training") if split == "train" else ("test", "val", "validation", "valid")
    found = next((name for name in names if name in datasets), None)
    if found is None:
        raise NoSplit(f"{where}: no {split} split (found {', '.join(datasets)})")
    return datasets[found]


def _stream(path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(KINDS[path.suffix], data_files={"train": [str(path.resolve())]}, split="train", streaming=True)


def _table(parts: Sequence[tuple[str, Any]], title: str, about: str, files: Sequence[tuple[str, int, int]]) -> Table:
    """The data sets, each with its name for messages, one after another."""
    from datasets import ClassLabel, Image

    where, dataset = parts[0]
    features = dataset.features or {}
    key = _image_column(features, where)
    if isinstance(features[key], Image):
        parts = [(name, part.cast_column(key, Image(decode=False))) for name, part in parts]
    names = {nfc(name): kind.names for name, kind in features.items() if isinstance(kind, ClassLabel)}
    return Table(rows=_rows(parts, key), total=None, title=title, about=about, files=files, names=names)


def _rows(parts: Sequence[tuple[str, Any]], key: str) -> Iterator[Row]:
    for where, part in parts:
        number = -1
        try:
            for number, row in enumerate(part):
                yield _row(f"{where}, row {number}", row, key)
        except UserError:
            raise
        except Exception as problem:  # as above
            raise UserError(
                f"{where}: cannot be read after row {number} ({first_line(problem)}); get it again"
            ) from problem


def _row(name: str, row: dict[str, Any], key: str) -> Row:
    value = row.pop(key)
    entry = value if isinstance(value, dict) else {"bytes": value}
    content, inner = entry.get("bytes"), entry.get("path") or row.get("__key__")
    if content is None and inner and Path(inner).is_file():
        content = Path(inner)
    row = {k: v for k, v in row.items() if not k.startswith("__")}
    if "cls" in row and "label" not in row:  # as WebDataset calls it
        row["label"] = row.pop("cls")
    columns = [column for key, values in row.items() for column in _flat(key, values)]
    return name + (f" ({inner})" if inner else ""), content, beside(columns, name)


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """A record within the row is columns of its own."""
    return value.items() if isinstance(value, dict) else [(name, value)]


def _image_column(features: Mapping[str, Any], where: str) -> str:
    """``image``, else the only column that can hold encoded images."""
    from datasets import Image, Value

    def holds_images(kind: Any) -> bool:
        return (
            isinstance(kind, Image)
            or (isinstance(kind, dict) and "bytes" in kind)
            or (isinstance(kind, Value) and kind.dtype in ("binary", "large_binary"))
        )

    candidates = [name for name, kind in features.items() if holds_images(kind)]
    if "image" in candidates:
        return "image"
    if len(candidates) == 1:
        return candidates[0]
    raise UserError(
        f"{where}: no column image with encoded images (struct with bytes, or binary); columns: {', '.join(features)}"
    )


def whole(paths: Sequence[Path]) -> list[Path]:
    """The Parquet files that have rows; all are complete and alike."""
    import pyarrow
    import pyarrow.parquet

    found = []
    for path in paths:
        try:
            found.append(pyarrow.parquet.read_metadata(path))
        except (OSError, pyarrow.ArrowException) as problem:
            raise UserError(f"{path}: not a complete Parquet file ({first_line(problem)}); get it again") from problem
        rows = found[-1].num_rows
        if rows > FEW and rows > path.stat().st_size:
            raise UserError(f"{path}: {rows} rows in so small a file are no images; get it again")
        if found[-1].schema.names != found[0].schema.names:
            raise UserError(f"{path}: its columns differ from those of {paths[0]}")
    # datasets cannot stream a file without rows.
    return [path for path, meta in zip(paths, found, strict=True) if meta.num_rows]


def first_line(problem: BaseException) -> str:
    """What went wrong, in a line."""
    return (str(problem) or type(problem).__name__).splitlines()[0]
