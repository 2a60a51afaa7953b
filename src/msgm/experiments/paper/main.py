"""Make tables of the paper again: do what is left of their pieces, then write what is known of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from ...data import Source
from ...errors import Interrupted, UserError
from ...folders import lock, room
from ...formats.native import RECORD
from ...model.networks import preset
from ...progress import bar
from ...report.page import commit, write_html, write_json
from ...report.pictures import picture
from ...storage import place
from ...training.runs import disk
from ...training.runtime import Runtime
from ..core.engines import Engine, available
from ..core.pieces import Piece, prepare
from ..core.pool import run_all
from .audit import SAMPLES
from .budgets import Budget
from .claims import agreements, claims
from .cost import priced
from .findings import findings
from .pieces import Aim, aims, edit_key, edits, stages
from .report import Results
from .sheets import sheets
from .tables import TABLES, Table
from .work import JUDGE, MODEL, SPEED, Deadline, Work

GRIDS = 2**21
"""Bytes of a model's pictures and numbers, about."""


def reproduce(
    names: Sequence[str],
    *,
    out: Path,
    data: Source,
    budget: Budget,
    device: str = "auto",
    workers: int = 1,
    engine: Engine = "local",
    minutes: float | None = None,
    command: str = "",
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> bool:
    """Do the pieces that these tables need and that ``out`` does not hold yet; whether all of them are done.

    ``names`` are of tables about one request. ``out/results.json`` and ``report.html`` have what is known afterwards.
    After ``minutes`` no piece is begun, and a training saves its state; the next call goes on from there. Raises
    UserError, before any work, for unknown tables, where a piece in ``out`` was begun with other data or another
    budget, and where another process is at work there.
    """
    if unknown := set(names) - set(TABLES):
        raise UserError(f"no table {', '.join(sorted(unknown))}; known: {', '.join(TABLES)}")
    if workers < 1:
        raise UserError(f"workers must be 1 or more; got {workers}")
    available(engine)
    tables = [TABLES[name] for name in names]
    on_gpu = Runtime.choose(device).device.type == "cuda"
    runtime = Runtime.choose(device, precision=budget.precision, compile=budget.compile and on_gpu)
    work = Work(
        out=place(out), budget=budget, request=tables[0].request, data=data, runtime=runtime,
        deadline=Deadline(minutes), command=command,
    )  # fmt: skip
    all_stages = stages(work, tables)
    room(work.out, _disk(work, tables, workers))
    work.out.mkdir(parents=True, exist_ok=True)
    with lock(work.out):
        left = prepare([piece for stage in all_stages for piece in stage], resume=True)
        try:
            _go(work, tables, all_stages, left, min(workers, max(1, len(left))), engine, say, progress)
        except Interrupted as stop:
            if not work.deadline.passed:
                said = "interrupted; what is finished is kept, and the same command goes on"
                raise Interrupted(said, stop.number) from None
            say("time is up; the next call goes on")
        finally:
            found = collected(work, tables)
            write_json(work.out / "results.json", found)
            if found["judge"] and found["rows"]:
                _page(work, tables, found)
    return all(piece.done for stage in all_stages for piece in stage)


def _disk(work: Work, tables: Sequence[Table], workers: int) -> int:
    """About how many bytes the models take that are not there yet, with their grids of samples."""
    left = [aim for aim in aims(tables, work.budget) if not (work.out / aim.key / MODEL / RECORD).exists()]
    steps = max(kind.train.steps for kind in work.budget.kinds.values())
    with torch.device("meta"):
        network = preset(work.budget.network, work.train.shape).build(work.train.shape[0])
    return disk(network, steps, len(left), workers) + GRIDS * len(left)


def _go(
    work: Work,
    tables: Sequence[Table],
    all_stages: Sequence[Sequence[Piece]],
    left: Sequence[Piece],
    workers: int,
    engine: Engine,
    say: Callable[[str], object],
    progress: bool,
) -> None:
    """Stage by stage, a line for each piece as it ends."""
    with_costs, forecast = priced(work, tables, left, workers)
    say(forecast if engine == "local" else f"{len(left)} pieces are left, by {engine}")
    total, number = sum(map(len, all_stages)), sum(map(len, all_stages)) - len(left)

    def ended(piece: Piece) -> None:
        nonlocal number
        number += 1
        say(f"{datetime.now():%H:%M:%S}  {number} of {total}  {piece.key}{brief(work, piece)}")

    with bar("The paper's tables", sum(piece.cost for piece in with_costs), show=progress) as tick:
        for stage in all_stages:
            keys = {piece.key for piece in stage}
            todo = [piece for piece in with_costs if piece.key in keys]
            run_all(todo, workers=workers, engine=engine, tick=tick, ended=ended)


def _page(work: Work, tables: Sequence[Table], results: Results) -> None:
    """``report.html``: the tables, what the paper says and what became of it, samples of each model."""
    claimed, name = claims(results), ", ".join(table.name for table in tables)
    count = Counter(each.verdict.split(" at ")[0] for each in claimed)
    grids = [(aim.key, work.out / aim.key / SAMPLES) for aim in aims(tables, work.budget) if aim.seed == 0]
    write_html(
        work.out / "report.html",
        results,
        title=f"The paper's {name}",
        answer=f"Of {len(claimed)} claims: {', '.join(f'{n} {verdict}' for verdict, n in count.items())}.",
        sheets=sheets(results),
        grids=[(key, picture(path)) for key, path in grids if path.exists()],
        notes=[
            *findings(results),
            *agreements(results),
            *(f"{each.claim}: {each.verdict} ({each.evidence})" for each in claimed),
        ],
    )


def brief(work: Work, piece: Piece) -> str:
    """What a finished piece found, for its line."""
    found = piece.result
    took = f": {found['piece_seconds']:.0f} s"
    if piece.key == JUDGE:
        return f"{took}; {found['accuracy']:.1%} right, {found['real_called_junk']:.1%} of real images called junk"
    if piece.key == SPEED:
        rates = {**found["steps_per_second"], **found["samples_per_second"]}
        lines = [f"{name:<32}{rate:12.1f} a second" for name, rate in rates.items()]
        lines += [
            f"{found['images_per_second']:.0f} images/s in training, {found['training_share_of_peak']:.1%} of "
            f"{found['peak_flops'] / 1e12:.1f} TFLOP/s; {found['likelihoods_per_second']:.1f} likelihoods/s",
            f"{found['parameters'] / 1e6:.1f} M parameters; seconds to the first timed step: {found['start_seconds']}",
            *(f"{name} FAILED: {why}" for name, why in found["failed"].items()),
        ]
        return "\n    ".join([took, *lines])
    if "draws" in found:
        forget = [work.request.names[label] for label in max(work.request.groups.values(), key=len)]
        shares = ", ".join(
            f"{name} UR {sum(draw['counts'].get(f, 0) for f in forget) / draw['n']:.2%} "
            f"junk {draw['counts']['junk'] / draw['n']:.2%} Fréchet {draw['frechet']:.1f}"
            for name, draw in found["draws"].items()
        )
        nll = ", ".join(f"{v['bits_per_dim'] or float('nan'):.3f}" for v in found["nll"].values())
        return f"{took}; {shares}; NLL {nll}; {found['made']['status']}"
    if "sets" in found:
        kept = ", ".join(f"{name} {each['accuracy'] / each['n']:.0%}" for name, each in found["sets"].items())
        return f"{took}; of their own class: {kept}"
    return f"{took}; {found['settings']['steps']} steps, {found['status']}"


def collected(work: Work, tables: Sequence[Table]) -> dict[str, Any]:
    """All that is known: a row for each model that was measured, the judge's own errors, the machine's speed."""
    pieces = {piece.key: piece for stage in stages(work, tables) for piece in stage}
    done = {key: piece.result for key, piece in pieces.items() if piece.done}
    fields = ("process", "origin", "method", "seed", "made", "draws", "nll")
    changed: dict[Aim, dict[str, Any]] = {aim: {} for aim, _ in edits(tables, work.budget)}
    for aim, edit in edits(tables, work.budget):
        if (key := edit_key(aim, edit)) in done:
            changed[aim][edit] = done[key]["sets"]
    return {
        "command": work.command,
        "seed": work.budget.audit.seed,
        "commit": commit(),
        "date": f"{datetime.now():%Y-%m-%d}",
        "tables": [table.name for table in tables],
        "budget": asdict(work.budget),
        "request": asdict(work.request),
        "device": work.runtime.to_dict(),
        "judge": done.get(JUDGE),
        "speed": done.get(SPEED),
        "rows": [
            {field: done[aim.key][field] for field in fields} | ({"edits": changed[aim]} if changed.get(aim) else {})
            for aim in aims(tables, work.budget)
            if aim.key in done
        ],
    }
