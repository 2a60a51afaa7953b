"""Files that are whole or not there: everything that msgm writes goes through here."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UserError


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write under a temporary name, then move: a full disk or a crash leaves what was there before.

    ``sync=False`` is for files by the thousand: much faster, and safe but for a crash of the machine itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; NaN and infinity are refused (ValueError)."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a missing or broken file is named."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the folder is incomplete: copy or save it again") from None
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON; copy or save it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; copy or save it again")
    return value


def claim(out: Path, *, overwrite: bool = False) -> None:
    """Refuse an output folder that already holds something, unless it may be replaced."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder to write to")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} already exists; choose another folder or pass --overwrite")
