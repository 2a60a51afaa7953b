"""About how long the pieces of a grid take here: what each asks of the network, by what it does in a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ...model.score import ScoreModel
from ...progress import Tick
from ...sampling import build
from ..core.estimate import images, likelihoods, said, speed
from ..core.pieces import Piece
from .pieces import Aim, aims, edit_key, edits
from .printed import Edit
from .tables import Table, recipe
from .work import JUDGE, Work

CHEAPER = 20
"""Images that the judge sees while the network sees one, roughly."""
OTHER = 60.0
"""Seconds of a piece that measures the machine."""


def priced(work: Work, tables: Sequence[Table], left: Sequence[Piece], workers: int) -> tuple[list[Piece], str]:
    """The pieces with the seconds that each is expected to take as its cost, and one line on all of them."""
    if not left:
        return [], "nothing is left to do"
    model = work.fresh(next(iter(work.budget.kinds))).to(work.runtime.device)
    rates = speed(model, batch=16)
    every = aims(tables, work.budget)
    parents = {aim.parent: replace(aim, method="standard") for aim in every}
    prices = {JUDGE: _judge(work, rates)}
    prices |= {key: _making(work, aim, rates[0]) for key, aim in parents.items()}
    for aim in every:
        own = 0.0 if aim.method == "standard" else _making(work, aim, rates[0])
        prices[aim.key] = own + _audit(work, model) / rates[1]
    prices |= {edit_key(aim, edit): _editing(work, edit) / rates[1] for aim, edit in edits(tables, work.budget)}
    found = [_costs(piece, prices.get(piece.key, OTHER)) for piece in left]
    return found, said(len(left), workers, sum(piece.cost for piece in found) / workers, *rates)


def _making(work: Work, aim: Aim, rate: float) -> float:
    kind = work.budget.kinds[aim.process]
    settings, fixed = (kind.train, kind.seconds) if aim.origin == "scratch" else (kind.tune, kind.tune_seconds)
    return fixed if fixed is not None else images(recipe(aim.method), settings) / rate


def _audit(work: Work, model: ScoreModel) -> float:
    audit = work.budget.audit
    drawn = sum(draw.n * build(draw.sampler, model, steps=draw.steps).nfe for draw in audit.draws)
    return drawn + likelihoods(audit.nll_images, audit.nll_steps, audit.nll_check)


def _editing(work: Work, edit: Edit) -> float:
    """A predictor-corrector step evaluates the network twice, and so does a step of Heun's method, each way."""
    wanted = work.budget.edits
    return 2 * wanted.n * (2 * wanted.inpaint_steps if edit == "inpaint" else 4 * wanted.flow_steps)


def _judge(work: Work, rates: tuple[float, float]) -> float:
    judge = work.budget.judge
    return judge.epochs * len(work.train) / (1 - judge.junk_share) / (CHEAPER * rates[0])


def _costs(piece: Piece, cost: float) -> Piece:
    """The piece, telling shares of ``cost`` where it told shares of one."""
    return replace(piece, cost=cost, run=partial(_scaled, piece.run, cost))


def _scaled(run: Callable[[Tick], Mapping[str, Any]], cost: float, tick: Tick) -> Mapping[str, Any]:
    told = 0.0

    def tell(share: float, note: str = "") -> None:
        nonlocal told
        told += share
        tick(cost * share, note)

    found = run(tell)
    tell(1 - told)  # What was there already, and what has no steps to tell of.
    return found
