"""Hostile files, made here: with what no one should be able to break a command."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from msgm.formats.ledger import sealed
from msgm.formats.tensors import sha256, write_tensors

Words = list[str]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input: ``words`` makes it in a folder of its own and gives the command line.

    Where it ``must`` be refused, anything else is a fault; others may be taken where they do no harm. ``until_work``:
    that the work begins is enough to know.
    """

    kind: str
    name: str
    words: Callable[[Path], Words]
    must: bool = True
    until_work: bool = False


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "\x1b[2J\x07",
    "<script>alert(1)</script>",
    "../../../etc/passwd",
    [],
    {},
    [[[[[]]]]],
    {"a": {"b": []}},
    [1, "2", None],
    "!!python/object:os.system",
]
"""What stands in the place of every entry of a file of JSON."""


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value: those of tables and lists too, of long lists the first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from leaves(each, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The JSON value with another in one place."""
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return found


def mutations(
    kind: str, base: Path, file: str, words: Callable[[Path], Words], *, each: int, seed: int, seal: bool = False
) -> Iterator[Case]:
    """Every entry of a file of JSON in the folder ``base`` replaced ``each`` times; once removed."""
    value, draw = json.loads((base / file).read_text()), random.Random(f"{kind} {file} {seed}")

    def case(path: tuple[Any, ...], new: Any, name: str) -> Case:
        def make(folder: Path) -> Words:
            place = folder / "in"
            shutil.copytree(base, place)
            if name == "removed":
                found = copy.deepcopy(value)
                inner = found
                for key in path[:-1]:
                    inner = inner[key]
                del inner[path[-1]]
            else:
                found = replaced(value, path, new)
            (place / file).write_text(json.dumps(sealed(found) if seal else found))
            return words(folder)

        at = ".".join(map(str, path))
        return Case(kind=kind, name=f"{file}: {at} {name}", words=make, must=False)

    for path in leaves(value):
        yield case(path, None, "removed")
        for new in draw.sample(VALUES, each):
            yield case(path, new, f"is {json.dumps(new)[:30]}")


class Code:
    """A pickle that runs a command where it is opened without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def tensors_file(header: bytes, content: bytes = b"\0" * 64, size: int | None = None) -> bytes:
    """A file of safetensors by its header, true or not."""
    return struct.pack("<Q", len(header) if size is None else size) + header + content


def headers() -> dict[str, bytes]:
    """Files of safetensors that lie."""
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}

    def of(**entries: Any) -> bytes:
        return tensors_file(json.dumps(entries).encode())

    return {
        "empty": b"",
        "short": b"\x01\x02",
        "no JSON": tensors_file(b"\xff" * 40),
        "size 2^63": tensors_file(b"{}", size=2**63),
        "size beyond": tensors_file(b"{}", size=10**6),
        "list": tensors_file(b"[]"),
        "nested": tensors_file(b"[" * 10**5),
        "overlap": of(a=one, b=one),
        "beyond": of(a={**one, "data_offsets": [0, 10**9]}),
        "negative": of(a={**one, "shape": [-4]}),
        "huge shape": of(a={**one, "shape": [2**40, 2**40]}),
        "odd kind": of(a={**one, "dtype": "F7"}),
        "backwards": of(a={**one, "data_offsets": [16, 0]}),
        "escape": of(**{"\x1b[2J": one}),
        "metadata": of(__metadata__=[1]),
        "html": b"<html><script>alert(1)</script></html>",
        "zeros": b"\0" * 4096,
    }


def network_file(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a model folder of ours, and its record's hash with them."""
    path, record = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "moderation.json"
    state = load(path.read_bytes())
    change(state)
    write_tensors(path, state, {"format": "pt", "msgm": "1"})
    found = json.loads(record.read_text())
    record.write_text(json.dumps(sealed({**found, "weights_sha256": sha256(state)})))


def odd(path: Path, how: str) -> None:
    """Something else in the place of a file."""
    if path.exists() or path.is_symlink():
        path.unlink()
    if how == "FIFO":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path)
    elif how == "folder":
        path.mkdir()
    elif how == "nowhere":
        path.symlink_to("/nowhere/at/all")
    elif how == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(JUNK[how])


JUNK: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "deep": b"[" * 200_000,
    "deep table": b'{"a":' * 100_000,
    "UTF-16": "{}".encode("utf-16"),
    "long number": b'{"a": 1' + b"0" * 10_000 + b"}",
    "text": b"hello",
    "null": b"null",
    "NaN": b'{"a": NaN}',
    "\\ud800": b'{"\\ud800": "\\udfff"}',
}
"""What is no file of ours."""
ODD = ["FIFO", "loop", "folder", "nowhere", "device", *JUNK]


def png(width: int, height: int, data: bytes) -> bytes:
    """A grey PNG of a size, with compressed data of any kind."""
    import zlib

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(data)) + part(b"IEND", b"")


def images() -> dict[str, bytes]:
    """Files that call themselves pictures."""
    from PIL import Image

    def gif(frames: int) -> bytes:
        with BytesIO() as buffer:
            first = Image.new("L", (28, 28))
            first.save(
                buffer, "GIF", save_all=True, append_images=[Image.new("L", (28, 28), k) for k in range(1, frames)]
            )
            return buffer.getvalue()

    return {
        "bomb": png(60_000, 60_000, b"\0" * 10**6),
        "wide": png(10**9, 1, b"\0" * 100),
        "no data": png(28, 28, b""),
        "nought": png(0, 0, b""),
        "text": b"hello",
        "empty": b"",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "gif": gif(9),
        "pickle": pickle.dumps({"a": 1}),
        "cut": png(28, 28, b"\0" * 29 * 28)[:60],
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n",
    }


def idx_bomb(path: Path, gigabytes: int = 10) -> None:
    """A few megabytes that inflate to many gigabytes."""
    member = gzip.compress(b"\0" * 2**26)
    with path.open("wb") as file:
        for _ in range(16 * gigabytes):
            file.write(member)


def parquet_bomb(path: Path, rows: int = 10**6, size: int = 10**4) -> None:
    """A dictionary of one long entry that all rows point to."""
    import pyarrow
    import pyarrow.parquet

    entry = pyarrow.array([b"x" * size])
    image = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), entry)
    table = pyarrow.table({"image": image, "label": pyarrow.array([0] * rows)})
    pyarrow.parquet.write_table(table, path, store_schema=False)


def tar_of(path: Path, entries: dict[str, bytes]) -> None:
    """A tar with any names."""
    with tarfile.open(path, "w") as file:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, BytesIO(content))


def judge_of(folder: Path, **changed: Any) -> None:
    """Change a judge's configuration, its hash with it."""
    config = json.loads((folder / "config.json").read_text())
    config["weights_sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a judge."""
    path = folder / "model.safetensors"
    state = load(path.read_bytes())
    change(state)
    path.write_bytes(save(state))
    judge_of(folder)
