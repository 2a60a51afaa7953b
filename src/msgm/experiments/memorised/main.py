"""The field's protocol for single images (SISS, ReTrack): digits, among which one other image is repeated.

The digits model of the package learns the image by heart; then each recipe forgets that one image and retains the
digits, and all are measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Images, IndexRequest, Source
from ...data.decode import Decoder
from ...errors import UserError
from ...folders import Making, opened
from ...forgetting.methods import METHODS
from ...formats import load
from ...formats.native import EMBEDDED
from ...metrics import quantities
from ...metrics.judge import Judge
from ...metrics.measured import Measured
from ...model.score import ScoreModel
from ...progress import Tick, bar
from ...report.page import commit, write_html, write_json
from ...report.pictures import grid, picture, png
from ...report.results import Result, Results
from ...report.tables import results_sheet
from ...status import FINISHED, Status
from ...storage import write_bytes
from ...training.loop import Diverged, train, unlearn
from ...training.runs import RunSpec, completed
from ...training.settings import TrainSettings, UnlearnSettings
from ..core.pieces import Piece, prepare
from ..core.pool import run_all
from ..core.seeds import over_seeds
from .evidence import EvidenceSettings, evidence

MADE = Making(kind="single image", names=("runs", "results.json", "report.html"))
PARENT, INNOCENT, NEAREST, MODEL = "parent", "never-saw-it", "nearest.png", "model"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What it may cost.

    Args:
        copies: of the image among the digits that the parent learns.
        learn: how the parent goes on learning.
        forget: how each recipe forgets.
        methods: the recipes.
        seeds: runs of each.
        evidence: about each model.
    """

    copies: int = 160
    learn: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2500, batch=64))
    forget: UnlearnSettings = field(default_factory=lambda: UnlearnSettings(batch=48))
    methods: tuple[str, ...] = ("unseen", "siss", "retrack", "orthogonal", "deflect", "steer", "moderate")
    seeds: int = 1
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)


def reproduce(
    out: Path,
    image: Path,
    *,
    budget: Budget | None = None,
    workers: int = 1,
    command: str = "",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Results:
    """Learn ``image`` by heart, forget it by every recipe, measure; ``results.json`` and ``report.html`` in ``out``.

    Raises UserError, before any work, for a file that is no image of 28 x 28 pixels.
    """
    budget = budget or Budget()
    pixels = _read(image)
    with opened(out, replace(MADE, identity=asdict(budget)), resume=resume, overwrite=overwrite):
        innocent = _piece(out, INNOCENT, partial(_innocent, out, pixels, budget), pixels, budget, {})
        parent = _piece(out, PARENT, partial(_parent, out, pixels, budget), pixels, budget, {})
        others = [
            _piece(
                out, f"{name}/seed-{seed}", partial(_child, out, pixels, budget, name, seed), pixels, budget,
                {"method": METHODS[name]().to_dict(), "seed": seed},
            )
            for seed in range(budget.seeds)
            for name in budget.methods
        ]  # fmt: skip
        left = prepare([innocent, parent, *others], resume=True)
        with bar("One image, learnt and forgotten", sum(piece.cost for piece in left), show=progress) as tick:
            for stage in ([parent], [innocent, *others]):
                run_all([piece for piece in stage if piece in left], workers=workers, tick=tick)
        rows = [_result(piece.result, name, "standard") for piece, name in ((innocent, INNOCENT), (parent, PARENT))]
        for name in budget.methods:
            runs = [piece.result for piece in others if piece.key.startswith(f"{name}/")]
            rows.append(over_seeds([_result(found, name, name) for found in runs]))
        results = Results(
            command=command, seed=budget.forget.seed, commit=commit(), budget=asdict(budget), rows=rows, judge=None
        )
        write_json(out / "results.json", results)
        _page(out, results, pixels, [innocent, parent, *(piece for piece in others if piece.key.endswith("seed-0"))])
    return results


def _read(image: Path) -> Tensor:
    shape = digits("train").shape
    found = torch.as_tensor(Decoder(mode="grey", background="black")(image, str(image)))
    if tuple(found.shape) != shape:
        size = f"{shape[2]} x {shape[1]}"
        raise UserError(f"{image}: {found.shape[2]} x {found.shape[1]} pixels, and the digits are {size}; resize it")
    return found[None]


@lru_cache(maxsize=2)
def digits(split: Any) -> Images:
    """The digits of the package, read once in each process."""
    return Source(EMBEDDED).open(split)


def _with(image: Tensor, copies: int) -> Images:
    """The training digits, then copies of the image."""
    return Images.of(torch.cat([digits("train").rows(), image.expand(copies, -1, -1, -1)]), name="digits and one image")


def _piece(
    out: Path,
    key: str,
    run: Callable[[Tick], Mapping[str, Any]],
    image: Tensor,
    budget: Budget,
    more: Mapping[str, Any],
) -> Piece:
    whole = _with(image, 1)
    identity = {"data": whole.digest, "budget": {k: v for k, v in asdict(budget).items() if k != "seeds"}, **more}
    return Piece(key=key, folder=out / "runs" / key, identity=identity, run=run)


def _innocent(out: Path, image: Tensor, budget: Budget, tick: Tick) -> dict[str, Any]:
    """The digits model as it is: what any model gives back of an image that it never saw."""
    tick(0.5)
    return _measured(out, INNOCENT, load(EMBEDDED), image, budget, FINISHED, tick)


def _parent(out: Path, image: Tensor, budget: Budget, tick: Tick) -> dict[str, Any]:
    """The digits model goes on learning, with copies of the image among the digits."""
    folder = out / "runs" / PARENT / MODEL
    if not completed(folder):
        run = RunSpec(folder=folder, resume=True, device="cpu", progress=False)
        train(load(EMBEDDED), _with(image, budget.copies), settings=budget.learn, run=run)
    tick(0.5)
    return _measured(out, PARENT, load(folder), image, budget, FINISHED, tick)


def _child(out: Path, image: Tensor, budget: Budget, name: str, seed: int, tick: Tick) -> dict[str, Any]:
    """A copy of the parent that forgets the image."""
    key, whole = f"{name}/seed-{seed}", _with(image, 1)
    folder, status = out / "runs" / key / MODEL, FINISHED
    if not completed(folder):
        split = IndexRequest((len(whole) - 1,)).split(whole)
        run = RunSpec(folder=folder, resume=True, device="cpu", progress=False)
        try:
            unlearn(
                load(out / "runs" / PARENT / MODEL), split, method=METHODS[name](),
                settings=replace(budget.forget, seed=seed), run=run,
            )  # fmt: skip
        except Diverged as problem:
            status = problem.status
    else:
        status = Status.from_dict(load(folder).record["status"])
    tick(0.5)
    return _measured(out, key, load(folder), image, budget, status, tick)


def _measured(
    out: Path, key: str, model: ScoreModel, image: Tensor, budget: Budget, status: Status, tick: Tick
) -> dict[str, Any]:
    folder = out / "runs" / key
    found, near = evidence(model, image, test=digits("test"), judge=Judge.load(EMBEDDED), settings=budget.evidence)
    write_bytes(folder / NEAREST, png(grid(near, columns=8, scale=2, gap=2)))
    tick(0.5)
    return {"status": status.to_dict(), "measured": {name: each.to_dict() for name, each in found.items()}}


def _result(found: Mapping[str, Any], name: str, method: str) -> Result:
    measured = {key: Measured.from_dict(each) for key, each in found["measured"].items()}
    return Result(model=name, method=method, status=Status.from_dict(found["status"]), measured=measured)


def _page(out: Path, results: Results, image: Tensor, shown: list[Piece]) -> None:
    rates = {row.model: row.get(quantities.DRAWN) for row in results.rows}
    said = ", ".join(f"{name} {rate.text()} %" for name, rate in rates.items() if rate is not None)
    write_html(
        out / "report.html",
        results,
        title="One image, learnt by heart and forgotten",
        answer=f"Of its samples each model draws the image in: {said}.",
        sheets=[results_sheet(results)],
        grids=[
            ("the image", grid(image, columns=1, scale=2)),
            *((f"{piece.key}: the samples nearest to it", picture(piece.folder / NEAREST)) for piece in shown),
        ],
        notes=["All models start from the same noise."],
    )
