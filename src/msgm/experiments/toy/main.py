"""All of the toy experiment: runs on all cores, exact optima, results.json, figures and a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...progress import Tick, bar
from ...report.page import commit, write_html, write_json
from ...storage import claim, read_json
from ..core.pool import begun, run_all
from .claims import claims
from .figures import draw
from .measure import TEST_SEED, bound_terms, exact_nll, measure, outlier_limit, test_points
from .report import rows_of, sheets
from .runs import Run, execute, own_seed, plan
from .setup import TOYS, Budget, Setting


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """One thing to do and the file that says it is done: a run, or the exact optimum of a setting."""

    what: Run | Setting
    path: Path

    @property
    def cost(self) -> int:
        """Roughly, for the bar: a re-training costs two fine-tunings."""
        return 2 if isinstance(self.what, Run) and self.what.mode == "retrain" else 1


def reproduce(
    out: Path, *, budget: Budget, seed: int, workers: int, command: str, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Make what is missing in ``out``, then results.json, the figures and report.html; returns the results.

    ``runs/*.json`` and ``exact/*.json`` hold each finished piece, ``plan.json`` what they were made with. Raises
    UserError where ``out`` holds something and neither ``resume`` nor ``overwrite`` is given, or another plan.
    """
    ours = {"budget": asdict(budget), "seed": seed}
    if not (resume and begun(out / "plan.json", ours)):
        claim(out, overwrite=overwrite)
        for old in [*out.glob("runs/*.json"), *out.glob("exact/*.json")]:
            old.unlink()
        write_json(out / "plan.json", ours)

    runs = plan(budget)
    settings = dict.fromkeys(run.setting for run in runs if run.setting.optimum() is not None)
    pieces = [_Piece(what=run, path=out / "runs" / f"{run.key}.json") for run in runs]
    exact = [_Piece(what=setting, path=out / "exact" / f"{setting.key}.json") for setting in settings]
    parents = [p for p in pieces if isinstance(p.what, Run) and p.what.setting.objective == "standard"]
    others = [p for p in (*pieces, *exact) if p not in parents]
    total, done = _cost(pieces + exact), _cost([p for p in pieces + exact if p.path.exists()])
    with bar("Toy experiment", total, done=done) as tick:
        # Fine-tuning starts from the Standard models.
        for stage in (parents, others):
            waiting = sorted((p for p in stage if not p.path.exists()), key=lambda p: -p.cost)
            run_all(partial(_make, budget, seed, out), waiting, workers=workers, tick=tick)

    found = [(run, read_json(piece.path)) for run, piece in zip(runs, pieces, strict=True)]
    optima = {setting.key: read_json(piece.path) for setting, piece in zip(settings, exact, strict=True)}
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
        sheets=sheets(results),
        figures=figures,
        notes=[f"{c['claim']}: {'yes' if c['holds'] else 'NO'} ({c['evidence']})" for c in results["claims"]],
    )
    return results


def _cost(pieces: Sequence[_Piece]) -> int:
    return sum(piece.cost for piece in pieces)


def _make(budget: Budget, seed: int, out: Path, piece: _Piece, tick: Tick) -> None:
    """Do one piece and write its file."""
    if isinstance(piece.what, Run):
        found = execute(piece.what, budget, seed, out)
    else:
        model, began = piece.what.optimum(), time.process_time()
        assert model is not None
        tests = [own_seed(seed, number) for number in range(budget.seeds)]
        measured = measure(model, TOYS[piece.what.toy], budget, seed=tests[0], tests=tests, grids=piece.what.grids)
        found = {"cpu_seconds": time.process_time() - began, **measured}
    write_json(piece.path, found)
    tick(piece.cost, note=piece.path.stem)


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
