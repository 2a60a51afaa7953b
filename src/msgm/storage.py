"""Files that are whole or not there: everything that msgm writes goes through here."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UserError
from .processes import here

LARGEST_JSON, LARGEST_TEXT = 2**28, 2**26
"""Bytes."""


def write_bytes(path: Path, content: bytes) -> None:
    """`write_files` of one."""
    write_files({path: content})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write all under temporary names, force them out, then move each to its place.

    A full disk leaves everything as it was before; a crash or a power cut leaves each file whole, or as it was. Of
    several processes the first alone writes.
    """
    if not here().first:
        return
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_bytes(content)
        for written in temporary.values():
            _force_out(written)
        for path, written in temporary.items():
            os.replace(written, path)
    except BaseException:
        for written in temporary.values():
            with suppress(OSError):
                written.unlink()
        raise
    for folder in {path.parent for path in files}:
        with suppress(OSError):  # not every system opens folders
            _force_out(folder)


def _force_out(path: Path) -> None:
    """What was written there outlives a power cut."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; NaN and infinity are refused (ValueError)."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path, *, finite: bool = True) -> dict[str, Any]:
    """A JSON object, of ``finite`` numbers or of any; a missing, broken or enormous file is named."""
    if not path.is_file():
        raise UserError(f"{path} is missing; the folder is incomplete: copy or save it again")
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"{path} is larger than {LARGEST_JSON >> 20} MiB, and no file of msgm; copy or save it again")
    try:
        number = _finite if finite else float
        value = json.loads(path.read_text(encoding="utf-8"), parse_float=number, parse_constant=number)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON; copy or save it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; copy or save it again")
    return value


def read_text(path: Path, most: int = LARGEST_TEXT) -> str:
    """The text of a file in UTF-8. Raises UserError naming what is no file (a pipe may never end), or too large."""
    if not path.is_file():
        raise UserError(f"{path} is {'no file' if path.exists() else 'not there'}; name a text file")
    if path.stat().st_size > most:
        raise UserError(f"{path} is larger than {most >> 10} KiB; name a text file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text (UTF-8); get it again, or name another") from None


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is no number")
    return number


def place(out: str | os.PathLike[str]) -> Path:
    """The path of a folder to write into, there or not yet. Raises UserError where nothing could be written."""
    path, whole, near = _near(out)
    if not str(out).strip() or whole in (Path(whole.anchor), Path.cwd(), Path.home()):
        raise UserError(f"{str(out)!r} means {whole}, no folder of its own; name one inside it")
    if not near.is_dir():
        inside = "is a file" if near == whole else f"lies inside {near}, which is a file"
        raise UserError(f"{path} {inside}; name a folder to write to")
    return path


def place_file(out: str | os.PathLike[str]) -> Path:
    """The path of a new file. Raises UserError where there is one already, or none could be written."""
    path, whole, near = _near(out)
    if near == whole or path.is_symlink():
        raise UserError(f"{path} already exists; name another file")
    if not near.is_dir():
        raise UserError(f"{path} lies inside {near}, which is a file; name another file")
    return path


def _near(out: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    """The path, where it leads, and the nearest to it that is there, which may be written unless it is a file."""
    path = Path(out)
    try:
        str(path).encode()
        whole = path.resolve()
        near = next(p for p in (whole, *whole.parents) if p.exists())
    except UnicodeEncodeError:
        raise UserError(f"the name {os.fsencode(path)!r} is not UTF-8; choose another") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(path)[:200]!r} is no path: {error}") from None
    if path.is_symlink() and near != whole:
        raise UserError(f"{path} is a link to {whole}, which is not there; remove it, or use another name")
    if near.is_dir() and not os.access(near, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written: no permission in {near}; choose another place")
    return path, whole, near
