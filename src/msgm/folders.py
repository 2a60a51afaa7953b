"""Folders to write into: whose they are, who is writing now, and whether what is to come has room.

A folder is msgm's by the file ``run.json``, which is there before anything else and says what is made in it. Nothing
that the maker does not name is ever touched or removed.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .errors import UserError
from .processes import here
from .storage import place, place_file, read_json, write_bytes, write_json

IDENTITY, LOCK = "run.json", ".lock"
P = ParamSpec("P")
T = TypeVar("T")
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")


@dataclass(frozen=True, kw_only=True)
class Making:
    """What a command makes in a folder.

    ``kind`` is a word for it, ``names`` are the files that it makes there (``samples/*/[0-9].png`` as in a shell) and
    the folders that are wholly its own, ``identity`` (JSON) all that must be the same for it to be gone on with,
    ``size`` about how many bytes it takes. ``why`` says of names in the identity why they cannot change. What is made
    ``anew`` cannot be gone on with: where it was begun and did not end, it is begun again.
    """

    kind: str
    names: Sequence[str]
    identity: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    why: Mapping[str, str] = field(default_factory=dict)
    anew: bool = False

    def makes(self, name: str) -> bool:
        """Whether a file or folder of this name, directly in the folder, is its own or holds what is."""
        return any(name == own or fnmatchcase(name, own.split("/")[0]) for own in self.names)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A folder that this process may write into. ``resumed``: the same was begun there before."""

    path: Path
    making: Making
    resumed: bool

    def end(self, result: Mapping[str, Any] | None = None) -> None:
        """Note that it is finished, and how; it cannot be gone on with after."""
        write_json(self.path / IDENTITY, _described(self.making) | {"ended": dict(result or {})})

    def begin(self, left: object = None) -> None:
        """`clear`, where what is made here was not begun before: called when nothing is refused any more."""
        if not self.resumed:
            self.clear()

    def clear(self) -> None:
        """Remove the files that the same kind of thing has left there, so that none stands beside a new one."""
        if not here().first:
            return
        found = [old for own in self.making.names for old in self.path.glob(own)]
        for old in [old for old in found if old.is_symlink() or not old.is_dir()]:
            old.unlink()
            for folder in old.parents:
                if folder == self.path or any(folder.iterdir()):
                    break
                folder.rmdir()


def ready(out: str | os.PathLike[str], making: Making, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse at once what `opened` would refuse whatever the identity is: before anything is read. Writes nothing."""

    def look() -> None:
        path = place(out)
        _begun(path, making, resume=resume, overwrite=overwrite)
        _free(path)

    here().told(look)


def _by_the_first(open: Callable[P, AbstractContextManager[T]]) -> Callable[P, AbstractContextManager[T]]:
    """Of several processes the first one opens it, and has it open; the others are told what it got."""

    @wraps(open)
    @contextmanager
    def told(*args: P.args, **named: P.kwargs) -> Iterator[T]:
        with ExitStack() as stack:
            yield here().told(lambda: stack.enter_context(open(*args, **named)))

    return told


@_by_the_first
@contextmanager
def opened(
    out: str | os.PathLike[str], making: Making, *, resume: bool = False, overwrite: bool = False
) -> Iterator[Opened]:
    """Open a folder to make something in it; it is locked until the end, and left over temporary files are removed.

    ``resume`` goes on with the same, begun before; without it, or where the folder is new, it is begun.
    ``overwrite`` lets it be begun where the same kind of thing, or something of another's, already lies; what is there
    stays until the caller replaces it.

    Raises UserError, with nothing written: the folder is another's, holds something already, or is being written; what
    was begun there differs (it says in what) or has ended; the disk has no room. Where the caller raises one before
    anything was written, the folder is as it was.
    """
    path = place(out)
    _resumed(path, making, resume=resume, overwrite=overwrite)
    room(path, making.size)
    with _made(path), lock(path):
        # Another may have written since; from here on none does.
        resumed = _resumed(path, making, resume=resume, overwrite=overwrite)
        _tidy(path, making)
        before, mark = _held(path), path / IDENTITY
        was = mark.read_bytes() if IDENTITY in before else None
        if not resumed:
            write_json(mark, _described(making))
        try:
            yield Opened(path=path, making=making, resumed=resumed)
        except UserError:
            if not resumed and _held(path) == before | {IDENTITY}:
                mark.unlink() if was is None else write_bytes(mark, was)
            raise


def vacant(out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """A folder for files that are nobody's run; UserError where none can be written, or it holds something already."""
    path = place(out)
    for left in path.glob(".model.*.tmp"):
        if not _alive(left.name.split(".")[2]):
            _remove(left)
    if path.is_dir() and _held(path) and not overwrite:
        raise _exists(path)
    return path


def _alive(process: str) -> bool:
    """Whether a process of this number runs here."""
    try:
        with suppress(PermissionError):  # there, and another user's
            os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    return True


@contextmanager
def alone(out: str | os.PathLike[str], *, overwrite: bool = False, size: int = 0) -> Iterator[Path]:
    """`vacant`, with room for so many bytes, and locked until the end."""
    path = vacant(out, overwrite=overwrite)
    room(path, size)
    with _made(path), lock(path):
        yield vacant(path, overwrite=overwrite)


@_by_the_first
@contextmanager
def reserved(out: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file to write, locked until the end. Raises UserError where it is there, or another writes it."""
    path = place_file(out)
    with _made(path.parent), _locked(path, path.with_name(f".{path.name}{LOCK}")):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            _remove(left)
        yield place_file(path)


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """The folder is there; where it was not, and nothing is in it at the end, it is gone again."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


def lock(folder: Path) -> AbstractContextManager[None]:
    """Held by one process at a time; one that dies, however it does, lets go of it. Raises UserError if it is held."""
    return _locked(folder, folder / LOCK)


def unlocked(folder: Path) -> None:
    """What the lock of a process that died has left goes; one that is held stays."""
    with suppress(UserError):
        _free(folder)


def _free(folder: Path) -> None:
    """Take the lock that is there and let go of it, which removes it; UserError if it is held."""
    if (folder / LOCK).exists():
        with ExitStack() as taken:
            taken.enter_context(lock(folder))


@contextmanager
def _locked(what: Path, by: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    held = FileLock(by)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is writing {what}; wait for its end, or use another place") from None
    except NotImplementedError:
        raise UserError(f"{what.parent} is on a disk without locks (flock); write to another disk") from None
    try:
        yield
    finally:
        by.unlink(missing_ok=True)
        held.release()


def _tidy(path: Path, making: Making) -> None:
    """Remove the temporary files of what died there."""
    for old in path.iterdir():
        left = _TEMPORARY.fullmatch(old.name)
        if left is not None and (left["name"] in (IDENTITY, "model") or making.makes(left["name"])):
            _remove(old)
        elif making.makes(old.name) and old.is_dir() and not old.is_symlink():
            for inner in [p for p in old.rglob(".*.tmp") if _TEMPORARY.fullmatch(p.name)]:
                _remove(inner)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def room(path: Path, size: int) -> None:
    """Raise UserError unless the disk of a folder, there or not yet, has room for so many bytes."""
    free = shutil.disk_usage(next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())).free
    if size > free:
        raise UserError(
            f"{path} needs about {size / 2**20:.0f} MiB, and {free / 2**20:.0f} are free; make room or use another disk"
        )


def _resumed(path: Path, making: Making, *, resume: bool, overwrite: bool) -> bool:
    """Whether there is the same to go on with; raises UserError where the folder must not be written."""
    there = _begun(path, making, resume=resume, overwrite=overwrite)
    if there is None:
        return False
    changed = differences(there["identity"], making.identity)
    why = "".join(f" ({reason})" for name, reason in making.why.items() if name in changed)
    if "ended" in there:
        raise UserError(
            f"{path} is finished; there is nothing to resume{why}. Use another folder, or overwrite it",
            option="overwrite",
        )
    if changed:
        raise UserError(
            f"{path} was begun with other settings, data or parent: {told(changed)}{why}. "
            f"Resume with the same, or use another folder"
        )
    return True


def _begun(path: Path, making: Making, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """What ``run.json`` says of what is to be gone on with, if anything is."""
    if not path.is_dir() or not (held := _held(path)):
        return None
    there = read_json(path / IDENTITY) if IDENTITY in held else {}
    if there.get("by") != "msgm" or not isinstance(there.get("identity"), dict):
        clash = sorted(name for name in held if name == IDENTITY or making.makes(name))
        if clash:
            raise UserError(
                f"{path} holds {clash[0]}, and no record of a run of msgm that made it, so it is not overwritten; use "
                "another folder"
            )
        if resume and not overwrite:
            raise UserError(
                f"{path} holds no {making.kind} of msgm to resume; start one in another folder", option="resume"
            )
        if not overwrite:
            raise _exists(path)
        return None
    if there.get("kind") != making.kind:
        raise UserError(
            f"{path} holds a {str(there.get('kind'))[:40]} of msgm, not a {making.kind}; use another folder"
        )
    if not resume and not overwrite and not (making.anew and "ended" not in there):
        raise _exists(path)
    return there if resume else None


def _exists(path: Path) -> UserError:
    return UserError(f"{path} already exists; choose another folder, or overwrite it", option="overwrite")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What is not the same in two JSON objects: {"settings.lr": "was 0.001, is 0.002"}."""
    old, new = _leaves(before), _leaves(json.loads(json.dumps(now)))
    return {
        name: "was {}, is {}".format(*_apart(old.get(name), new.get(name)))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def told(changed: Mapping[str, str]) -> str:
    """The first of `differences`, and how many more there are."""
    lines = [f"{name} {change}" for name, change in changed.items()]
    return "; ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found


def _apart(*values: Any) -> list[str]:
    """Two values in few letters, long ones from where they are no longer the same."""
    texts = ["not there" if value is None else str(value) for value in values]
    same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    first = max(0, same - 8) if max(map(len, texts)) > 30 else 0
    return [_short(text, first) for text in texts]


def _short(text: str, first: int) -> str:
    found = text[first:]
    return ("…" if first else "") + (found if len(found) <= 30 else f"{found[:24]}…")


def _held(path: Path) -> set[str]:
    """The names in a folder, but for our lock and temporary files."""
    return {p.name for p in path.iterdir() if p.name != LOCK and not _TEMPORARY.fullmatch(p.name)}


def _described(making: Making) -> dict[str, Any]:
    return {"by": "msgm", "kind": making.kind, "identity": dict(making.identity)}
