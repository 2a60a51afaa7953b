"""Folders to write into: whose they are, who is writing now, and whether what is to come has room.

A folder is msgm's by the file ``run.json``, which is there before anything else and says what is made in it. Nothing
that the maker does not name is ever touched or removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UserError
from .storage import place, read_json, write_json

IDENTITY, LOCK = "run.json", ".lock"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a command makes in a folder.

    ``kind`` is a word for it, ``identity`` (JSON) all that must be the same for it to be gone on with, ``names`` are
    the files and folders that it makes there, ``size`` about how many bytes they take. ``why`` says of names in the
    identity why they cannot change.
    """

    kind: str
    identity: Mapping[str, Any]
    names: Sequence[str]
    size: int = 0
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A folder that this process may write into. ``resumed``: the same was begun there before."""

    path: Path
    making: Making
    resumed: bool

    def end(self, result: Mapping[str, Any]) -> None:
        """Note how it ended; it cannot be gone on with after."""
        write_json(self.path / IDENTITY, _described(self.making) | {"ended": dict(result)})


@contextmanager
def opened(
    out: str | os.PathLike[str], making: Making, *, resume: bool = False, overwrite: bool = False
) -> Iterator[Opened]:
    """Open a folder to make something in it; it is locked until the end, and left over temporary files are removed.

    ``resume`` goes on with the same, begun before; without it, or where the folder is new, it is begun.
    ``overwrite`` lets it be begun where the same kind of thing, or something of another's, already lies; what is there
    stays until the caller replaces it.

    Raises UserError, with nothing written: the folder is another's, holds something already, or is being written; what
    was begun there differs (it says in what) or has ended; the disk has no room.
    """
    path = place(out)
    _resumed(path, making, resume=resume, overwrite=overwrite)
    room(path, making.size)
    path.mkdir(parents=True, exist_ok=True)
    with lock(path):
        # Another may have written since; from here on none does.
        resumed = _resumed(path, making, resume=resume, overwrite=overwrite)
        for old in path.iterdir():
            left = _TEMPORARY.fullmatch(old.name)
            if left is not None and left["name"] in {IDENTITY, "model", *making.names}:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        if not resumed:
            write_json(path / IDENTITY, _described(making))
        yield Opened(path=path, making=making, resumed=resumed)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Held by one process at a time; one that dies, however it does, lets go of it. Raises UserError if it is held."""
    from filelock import FileLock, Timeout

    held = FileLock(folder / LOCK)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is writing {folder}; wait for its end, or use another folder") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        held.release()


def room(path: Path, size: int) -> None:
    """Raise UserError unless the disk of a folder, there or not yet, has room for so many bytes."""
    free = shutil.disk_usage(next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())).free
    if size > free:
        raise UserError(
            f"{path} needs about {size / 2**20:.0f} MiB, and {free / 2**20:.0f} are free; make room or use another disk"
        )


def _resumed(path: Path, making: Making, *, resume: bool, overwrite: bool) -> bool:
    """Whether there is the same to go on with; raises UserError where the folder must not be written."""
    if not path.is_dir() or not (held := _held(path)):
        return False
    there = read_json(path / IDENTITY) if IDENTITY in held else {}
    if there.get("by") != "msgm" or not isinstance(there.get("identity"), dict):
        clash = sorted({IDENTITY, *making.names} & held)
        if clash:
            raise UserError(f"{path} holds {clash[0]}, which no {making.kind} of msgm made there; use another folder")
        if resume and not overwrite:
            raise UserError(
                f"{path} holds no {making.kind} of msgm to resume; start one in another folder", option="resume"
            )
        if not overwrite:
            raise UserError(f"{path} already exists; choose another folder, or overwrite it", option="overwrite")
        return False
    if there.get("kind") != making.kind:
        raise UserError(f"{path} holds a {there.get('kind')} of msgm, not a {making.kind}; use another folder")
    if not resume:
        if not overwrite:
            raise UserError(f"{path} already exists; choose another folder, or overwrite it", option="overwrite")
        return False
    changed = differences(there["identity"], making.identity)
    why = "".join(f" ({reason})" for name, reason in making.why.items() if name in changed)
    if "ended" in there:
        raise UserError(
            f"{path} is finished; there is nothing to resume{why}. Use another folder, or overwrite it",
            option="overwrite",
        )
    if changed:
        lines = [f"{name} {change}" for name, change in changed.items()]
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(
            f"{path} was begun with other settings, data or parent: {'; '.join(lines[:3])}{more}{why}. "
            f"Resume with the same, or use another folder"
        )
    return True


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What is not the same in two JSON objects: {"settings.lr": "was 0.001, is 0.002"}."""
    old, new = _leaves(before), _leaves(json.loads(json.dumps(now)))
    return {
        name: f"was {_short(old.get(name))}, is {_short(new.get(name))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return text if len(text) <= 30 else f"{text[:12]}…"


def _held(path: Path) -> set[str]:
    """The names in a folder, but for our lock and temporary files."""
    return {p.name for p in path.iterdir() if p.name != LOCK and not _TEMPORARY.fullmatch(p.name)}


def _described(making: Making) -> dict[str, Any]:
    return {"by": "msgm", "kind": making.kind, "identity": dict(making.identity)}
