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
    if not path.is_file():
        raise UserError(f"{path} is missing; the folder is incomplete: copy or save it again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON; copy or save it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; copy or save it again")
    return value


def place(out: str | os.PathLike[str]) -> Path:
    """The path of a folder to write into, there or not yet. Raises UserError where nothing could be written."""
    path = Path(out)
    try:
        str(path).encode()
        whole = path.resolve()
        near = next(p for p in (whole, *whole.parents) if p.exists())
    except UnicodeEncodeError:
        raise UserError(f"the name {os.fsencode(path)!r} is not UTF-8; choose another") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(path)[:200]!r} is no path of a folder: {error}") from None
    if not str(out).strip() or whole in (Path(whole.anchor), Path.cwd(), Path.home()):
        raise UserError(f"{str(out)!r} means {whole}, no folder of its own; name one inside it")
    if not near.is_dir():
        inside = "is a file" if near == whole else f"lies inside {near}, which is a file"
        raise UserError(f"{path} {inside}; name a folder to write to")
    if not os.access(near, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written: no permission in {near}; name another folder")
    return path


def claim(out: Path, *, overwrite: bool = False) -> None:
    """Refuse an output folder that cannot be written, or that already holds something unless it may be replaced."""
    path = place(out)
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise UserError(f"{path} already exists; choose another folder, or overwrite it", option="overwrite")
