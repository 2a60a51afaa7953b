"""The pieces of an audit: an attack on a model each, stored as it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...attacks.table import ATTACKS
from ...attacks.target import Found, Target
from ...formats.tensors import weights_sha256
from ...metrics.measured import Measured
from ...model.score import ScoreModel
from ...processes import here
from ...progress import Tick, bar
from ...report.pictures import grid, png
from ...storage import write_bytes
from ..core.engines import Engine
from ..core.pieces import Piece, prepare
from ..core.pool import run_all

PIECES = "pieces"
SHOWN = 36
"""Pictures of what was recovered, of each kind."""


def attack_all(
    attacks: Sequence[str],
    subjects: Mapping[str, ScoreModel],
    target: Target,
    facts: Mapping[str, Any],
    out: Path,
    *,
    show: str | None = None,
    workers: int = 1,
    engine: Engine = "local",
    resume: bool = False,
    reuse: Path | None = None,
    progress: bool = True,
) -> dict[str, dict[str, dict[str, Any]]]:
    """What each attack brought back from each model: ``found[attack][model]`` has ``measured`` and ``seconds``.

    ``facts``: hashes of the data and judges that the target is made of. ``show``: the model of which what was recovered
    is kept as pictures. ``reuse``: another audit's folder, of which the pieces with the same identity are taken.
    """
    common = {
        **facts, "parent": weights_sha256(target.parent), "budget": asdict(target.budget),
        "parent share": target.parent_share,
    }  # fmt: skip
    pieces = {
        (attack, name): Piece(
            key=f"{attack}, {name}",
            folder=out / PIECES / attack / name,
            identity={**common, "attack": attack, "model": weights_sha256(model), "shown": name == show},
            run=partial(attacked, attack, model, target, out / "recovered" / attack if name == show else None),
        )
        for attack in attacks
        for name, model in subjects.items()
    }
    everyone = here()
    keys = everyone.told(lambda: _left(list(pieces.values()), out, reuse, resume))
    left = [piece for piece in pieces.values() if piece.key in keys]
    with bar("Attacks", len(pieces), done=len(pieces) - len(left), show=progress) as tick:
        run_all(left, workers=workers if everyone.size == 1 else 1, engine=engine, tick=tick)
    return everyone.told(
        lambda: {attack: {name: pieces[attack, name].result for name in subjects} for attack in attacks}
    )


def _left(pieces: Sequence[Piece], out: Path, reuse: Path | None, resume: bool) -> list[str]:
    """The names of the pieces that are left to do."""
    left = prepare(pieces, resume=resume)
    return [piece.key for piece in left if not (reuse and piece.take(reuse / piece.folder.relative_to(out)))]


def attacked(attack: str, model: ScoreModel, target: Target, shown: Path | None, tick: Tick) -> dict[str, Any]:
    """One attack on one model; ``shown`` is a folder for pictures of what was recovered."""
    began = time.monotonic()
    found = ATTACKS[attack].prepare(model, target)
    measured = ATTACKS[attack].measure(found, target)
    if shown is not None:
        _show(shown, found, target)
    tick(1, note=attack)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "measured": {name: each.to_dict() for name, each in measured.items()},
    }


def numbers(result: Mapping[str, Any]) -> dict[str, Measured]:
    """The measured numbers of a piece, by name."""
    return {name: Measured.from_dict(each) for name, each in result["measured"].items()}


def _show(folder: Path, found: Found, target: Target) -> None:
    """Pictures of whatever of it is images; latents are none."""
    for name, x in found.items():
        if tuple(x.shape[1:]) == target.parent.shape and len(target.parent.shape) == 3 and "latent" not in name:
            pixels = target.pixels(x[:SHOWN].detach().to(torch.float32))
            write_bytes(folder / f"{name.replace(' ', '-').replace(',', '')}.png", png(grid(pixels, columns=6)))
