"""Make tables of the paper again: do what is left of their pieces, then write what is known of each."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from ...errors import Interrupted, UserError
from ...folders import lock
from ...report.page import commit, write_json
from ...storage import place
from ...training.runtime import Runtime
from ..core.pieces import begun
from .budgets import Budget
from .pieces import Deadline, Piece, Work, pieces
from .tables import TABLES, Table

GRID = "grid.json"


def reproduce(
    names: Sequence[str],
    *,
    out: Path,
    data: str,
    budget: Budget,
    device: str = "auto",
    minutes: float | None = None,
    command: str = "",
    say: Callable[[str], object] = print,
) -> bool:
    """Do the pieces that these tables need and that ``out`` does not hold yet; whether all of them are done.

    ``out/results.json`` has what is known afterwards. After ``minutes`` no piece is begun, and a training
    saves its state; the next call goes on from there. Raises UserError for unknown tables, and where ``out`` was begun
    with other data or another budget.
    """
    if unknown := set(names) - set(TABLES):
        raise UserError(f"no table {', '.join(sorted(unknown))}; known: {', '.join(TABLES)}")
    path, deadline, tables = place(out), Deadline(minutes), [TABLES[name] for name in names]
    runtime = Runtime.choose(device, precision=budget.precision, compile=budget.compile)
    work = Work(
        out=out, budget=budget, request=tables[0].request, place=data, runtime=runtime, deadline=deadline,
        command=command,
    )  # fmt: skip
    identity = {
        "budget": asdict(budget),
        "request": asdict(work.request),
        "data": [images.digest for images in work.data],
    }
    path.mkdir(parents=True, exist_ok=True)
    with lock(path):
        if not begun(out / GRID, identity):
            write_json(out / GRID, identity)
        finished = _go(work, pieces(tables, budget), say)
        write_json(out / "results.json", collected(work, tables))
    return finished


def _go(work: Work, todo: Sequence[Piece], say: Callable[[str], object]) -> bool:
    finished = True
    for number, piece in enumerate(todo, start=1):
        head = f"{datetime.now():%H:%M:%S}  {number} of {len(todo)}  {piece.key}"
        if work.result(piece) is not None:
            continue
        if work.deadline.passed:
            say(f"{head}: time is up; the next call begins here")
            return False
        say(head)
        began = time.monotonic()
        try:
            work.do(piece)
        except Interrupted as stopped:  # by the deadline, or by Ctrl-C
            if not work.deadline.passed:
                raise
            say(f"{head}: {stopped}")
            return False
        except Exception:  # the others go on; this one is tried again by the next call
            say(f"{head}: FAILED\n{traceback.format_exc()}")
            finished = False
            continue
        say(f"{head}: {time.monotonic() - began:.1f} s{_brief(work, piece)}")
    return finished


def _brief(work: Work, piece: Piece) -> str:
    found = work.result(piece) or {}
    if piece.kind == "judge":
        return f"; {found['accuracy']:.1%} right, {found['real_called_junk']:.1%} of real images called junk"
    if piece.kind == "speed":
        rates = {**found["steps_per_second"], **found["samples_per_second"]}
        lines = [f"{name:<32}{rate:12.1f} a second" for name, rate in rates.items()]
        lines += [
            f"{found['images_per_second']:.0f} images/s in training, {found['training_share_of_peak']:.1%} of "
            f"{found['peak_flops'] / 1e12:.1f} TFLOP/s; {found['likelihoods_per_second']:.1f} likelihoods/s",
            f"{found['parameters'] / 1e6:.1f} M parameters; seconds to the first timed step: {found['start_seconds']}",
            *(f"{name} FAILED: {why}" for name, why in found["failed"].items()),
        ]
        return "\n    ".join(["", *lines])
    if piece.kind == "audit":
        forget = [work.request.names[label] for label in max(work.request.groups.values(), key=len)]
        shares = ", ".join(
            f"{name} UR {sum(draw['counts'].get(f, 0) for f in forget) / draw['n']:.2%} "
            f"junk {draw['counts']['junk'] / draw['n']:.2%} Fréchet {draw['frechet']:.1f}"
            for name, draw in found["draws"].items()
        )
        nll = ", ".join(f"{v['bits_per_dim'] or float('nan'):.3f}" for v in found["nll"].values())
        return f"; {shares}; NLL {nll}"
    return f"; {found['settings']['steps']} steps, {found['status']}"


def collected(work: Work, tables: Sequence[Table]) -> dict[str, Any]:
    """All that is known: a row for each model that was measured, the judge's own errors, the machine's speed."""
    rows = []
    for piece in pieces(tables, work.budget):
        made, audit = work.result(piece.of("model")), work.result(piece.of("audit"))
        if piece.kind == "audit" and made and audit:
            keys = {"process": piece.process, "origin": piece.origin, "method": piece.method, "seed": piece.seed}
            rows.append({**keys, "made": made, "draws": audit["draws"], "nll": audit["nll"]})
    return {
        "command": work.command,
        "commit": commit(),
        "date": f"{datetime.now():%Y-%m-%d}",
        "tables": [table.name for table in tables],
        "budget": asdict(work.budget),
        "request": asdict(tables[0].request),
        "device": work.runtime.to_dict(),
        "judge": work.result(Piece(key="judge", kind="judge")),
        "speed": work.result(Piece(key="speed", kind="speed")),
        "rows": rows,
    }
