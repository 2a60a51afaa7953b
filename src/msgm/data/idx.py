"""The idx format of the MNIST files, plain or gzipped.

A file is two zero bytes, a type code (8: unsigned byte), the number of axes, each axis' length as a
big-endian 32-bit integer, then the values in row-major order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError

UNSIGNED_BYTE = 8


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor in a file; one that is no complete idx file of bytes is a UserError that names it."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as problem:
        raise UserError(f"{path}: cannot be read ({problem}); it seems damaged, get it again") from problem
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise UserError(f"{path}: not an idx file of unsigned bytes, as MNIST's files are")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else ()
    if len(shape) == 0 or len(content) - start != math.prod(shape):
        expected = f"{math.prod(shape)} values after the header" if shape else "a complete header"
        raise UserError(f"{path}: truncated or damaged, {expected} expected; get it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def write_idx(path: Path, values: Tensor) -> None:
    """Write uint8 ``values`` as a gzipped idx file whose bytes depend on them alone (no name, no date)."""
    header = bytes([0, 0, UNSIGNED_BYTE, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    content = header + values.contiguous().numpy().tobytes()
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
