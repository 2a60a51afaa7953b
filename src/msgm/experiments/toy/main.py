"""All of the toy experiment: runs on all cores, exact optima, results.json, figures and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...folders import Making, opened, room
from ...progress import Tick, bar
from ...report.page import commit, write_html, write_json
from ..core.pieces import Piece, prepare
from ..core.pool import run_all
from .claims import claims
from .figures import draw
from .measure import TEST_SEED, bound_terms, exact_nll, measure, outlier_limit, test_points
from .report import rows_of, sheets
from .runs import Run, execute, own_seed, plan
from .setup import TOYS, Budget, Setting

PIECE = 2**20
"""Bytes of a piece, about: a small network while it is trained, and what is measured of it."""
MADE = Making(kind="toy", names=("runs", "exact", "figures", "results.json", "report.html"))


def reproduce(
    out: Path, *, budget: Budget, seed: int, workers: int, command: str, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Make what is missing in ``out``, then results.json, the figures and report.html; returns the results.

    ``runs/<run>`` and ``exact/<setting>`` hold each piece: its result, and what it was made with. Raises UserError
    where ``out`` holds something and neither ``resume`` nor ``overwrite`` is given, or pieces of other settings.
    """
    with opened(out, MADE, resume=resume, overwrite=overwrite) as place:
        runs = plan(budget)
        settings = dict.fromkeys(run.setting for run in runs if run.setting.optimum() is not None)
        made = [_piece(out / "runs" / run.key, partial(execute, run, budget, seed, out / "runs"), run) for run in runs]
        exact = [_piece(out / "exact" / each.key, partial(_optimum, each, budget, seed), each) for each in settings]
        common = {"budget": asdict(budget), "seed": seed}
        pieces = [replace(piece, identity={**common, **piece.identity}) for piece in made + exact]
        room(out, PIECE * sum(not piece.done for piece in pieces))
        left = prepare(pieces, resume=resume)
        place.begin(left)
        first = {run.key for run in runs if run.setting.objective == "standard"}
        total = sum(piece.cost for piece in pieces)
        with bar("Toy experiment", total, done=round(total - sum(piece.cost for piece in left))) as tick:
            # Fine-tuning starts from the Standard models.
            for parents in (True, False):
                stage = [piece for piece in left if (piece.key in first) == parents]
                run_all(sorted(stage, key=lambda piece: -piece.cost), workers=workers, tick=tick)

        results_of = {piece.folder: piece.result for piece in pieces}
        found = [(run, results_of[piece.folder]) for run, piece in zip(runs, made, strict=True)]
        optima = {setting.key: results_of[piece.folder] for setting, piece in zip(settings, exact, strict=True)}
        results: dict[str, Any] = {
            "command": command,
            "seed": seed,
            "commit": commit(),
            "budget": asdict(budget),
            "cpu_seconds": sum(each["cpu_seconds"] for each in (*(f for _, f in found), *optima.values())),
            "toys": {name: _facts(name, budget, seed) for name in TOYS},
            "rows": rows_of(found, optima),
        }
        results["claims"] = claims(results)
        write_json(out / "results.json", results)
        figures = draw(out, budget)
        write_html(
            out / "report.html",
            results,
            title="The toy experiment with exact answers",
            answer=f"{sum(c['holds'] for c in results['claims'])} of {len(results['claims'])} claims hold.",
            sheets=sheets(results),
            figures=figures,
            notes=[f"{c['claim']}: {'yes' if c['holds'] else 'NO'} ({c['evidence']})" for c in results["claims"]],
        )
    return results


def _piece(folder: Path, work: Callable[[], dict[str, Any]], what: Run | Setting) -> Piece:
    # Roughly, for the bar: a re-training costs two fine-tunings.
    cost = 2.0 if isinstance(what, Run) and what.mode == "retrain" else 1.0
    run, identity = partial(_make, work, cost, what.key), {"what": asdict(what)}
    return Piece(key=what.key, folder=folder, identity=identity, run=run, cost=cost)


def _make(work: Callable[[], dict[str, Any]], cost: float, key: str, tick: Tick) -> dict[str, Any]:
    """Do one piece, and tell that it is done."""
    found = work()
    tick(cost, note=key)
    return found


def _optimum(setting: Setting, budget: Budget, seed: int) -> dict[str, Any]:
    """What is measured of the exact optimum of a setting."""
    model, began = setting.optimum(), time.process_time()
    assert model is not None
    tests = [own_seed(seed, number) for number in range(budget.seeds)]
    measured = measure(model, TOYS[setting.toy], budget, seed=tests[0], tests=tests, grids=setting.grids)
    return {"cpu_seconds": time.process_time() - began, **measured}


def _facts(name: str, budget: Budget, seed: int) -> dict[str, Any]:
    """What is known of a toy without any model."""
    toy = TOYS[name]
    pairs = [test_points(toy, budget.test, own_seed(seed, number)) for number in range(budget.seeds)]
    retain, forget = (torch.cat(points) for points in zip(*pairs, strict=True))
    b, q_log_q = bound_terms(toy)
    own = toy.retain.sample(1_000_000, torch.Generator().manual_seed(TEST_SEED + 3))
    return {
        "a": toy.a,
        "own_share": float(toy.nearest_forgotten(own).double().mean()),
        "outlier_limit": outlier_limit(toy),
        "bound": {"b": b, "q_log_q": q_log_q},
        "nll": {
            "p_data": {"retain": exact_nll(toy.data, retain), "forget": exact_nll(toy.data, forget)},
            "p_g": {"retain": exact_nll(toy.retain, retain), "forget": exact_nll(toy.retain, forget)},
        },
    }
