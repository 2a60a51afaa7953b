"""Pieces of an experiment: each has a folder, an identity, and a result that is stored as it ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...folders import differences, told
from ...progress import Tick
from ...report.page import write_json
from ...storage import read_json

JOB, ROW = "job.json", "row.json"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of work.

    Args:
        key: its name.
        folder: its own: ``job.json`` has the identity, ``row.json`` the result.
        identity: JSON values that say all that the result depends on.
        run: does it, and tells shares of it that sum to its cost; returns the result, a JSON object. It goes to other
            processes: a function of a module, or a `functools.partial` of one.
        cost: of it, relative to others.
    """

    key: str
    folder: Path
    identity: Mapping[str, Any]
    run: Callable[[Tick], Mapping[str, Any]]
    cost: float = 1.0

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / ROW).exists()

    @property
    def result(self) -> dict[str, Any]:
        """What it gave."""
        return read_json(self.folder / ROW)

    def do(self, tick: Tick) -> None:
        """Run it and store its result."""
        write_json(self.folder / ROW, self.run(tick))

    def take(self, folder: Path) -> bool:
        """Take the result that the same work has in another folder; whether it is there."""
        job, row = folder / JOB, folder / ROW
        if not row.exists() or differences(read_json(job), self.identity):
            return False
        write_json(self.folder / ROW, read_json(row))
        return True

    def begun(self) -> bool:
        """Whether it was begun before; UserError, which says what differs, where that was with another identity."""
        return begun(self.folder / JOB, self.identity)


def prepare(pieces: Sequence[Piece], *, resume: bool) -> list[Piece]:
    """Those that are left to do, each with its identity in its folder; what another run left there is removed.

    With ``resume`` what was begun is kept. Raises UserError, before anything is removed, for a piece that was begun
    with another identity, and for a folder with files that are no piece's.
    """
    kept = [resume and piece.begun() for piece in pieces]
    for piece in pieces:
        if piece.folder.is_dir() and any(piece.folder.iterdir()) and not (piece.folder / JOB).exists():
            raise UserError(f"{piece.folder} holds files that are not of such a run; move them or use another folder")
    for piece, keep in zip(pieces, kept, strict=True):
        if not keep:
            shutil.rmtree(piece.folder, ignore_errors=True)
            write_json(piece.folder / JOB, piece.identity)
    return [piece for piece in pieces if not piece.done]


def begun(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether the work whose identity is stored at ``path`` was begun; UserError where it is another."""
    if not path.exists():
        return False
    if other := differences(read_json(path), identity):
        raise UserError(
            f"{path.parent} was begun with other settings: {told(other)}. Resume with the same or use another folder"
        )
    return True
