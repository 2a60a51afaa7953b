"""The idx format of the MNIST files, plain or gzipped.

A file is two zero bytes, a type code (8: unsigned byte), the number of axes, each axis' length as a
big-endian 32-bit integer, then the values in row-major order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError

UNSIGNED_BYTE = 8
SMALL, DENSEST = 2**26, 100
"""Values that any file may hold, and those of a larger one for each of its bytes: images are not packed closer."""


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor in a file; one that is no complete idx file of bytes is a UserError that names it."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            return _read(file, path)
    except (OSError, EOFError, zlib.error) as problem:
        raise UserError(f"{path}: cannot be read ({problem}); it seems damaged, get it again") from problem


def _read(file: BufferedReader | gzip.GzipFile, path: Path) -> Tensor:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != UNSIGNED_BYTE:
        file.read(SMALL)  # a damaged archive says so itself
        raise UserError(f"{path}: not an idx file of unsigned bytes, as MNIST's files are")
    sides = file.read(4 * head[3])
    shape = struct.unpack(f">{head[3]}I", sides) if len(sides) == 4 * head[3] else ()
    size, most = math.prod(shape), max(SMALL, DENSEST * path.stat().st_size)
    if shape and size > most:
        raise UserError(f"{path}: {size} values in so small a file are no images; get it again")
    content = bytearray(size)
    if not shape or file.readinto(content) != size or file.read(1):
        expected = f"{size} values after the header" if shape else "a complete header"
        raise UserError(f"{path}: truncated or damaged, {expected} expected; get it again")
    return torch.frombuffer(content, dtype=torch.uint8).reshape(shape) if size else torch.empty(shape).byte()


def write_idx(path: Path, values: Tensor) -> None:
    """Write uint8 ``values`` as a gzipped idx file whose bytes depend on them alone (no name, no date)."""
    header = bytes([0, 0, UNSIGNED_BYTE, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    content = header + values.contiguous().numpy().tobytes()
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
