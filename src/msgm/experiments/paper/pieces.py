"""The pieces of a grid: a judge, Standard models, and models that forget, each audited as it is made.

What is finished is never done again; a training that was broken off goes on from its saved state, an audit after the
last of its measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ...data import Images, Split
from ...formats import load
from ...metrics.judge_training import train_judge
from ...metrics.worth import worth_for
from ...progress import Tick
from ...status import Status
from ...storage import read_json, write_json
from ...training.loop import Diverged, train, unlearn
from ...training.runs import STATE, completed
from ..core.pieces import ROW, Piece
from .audit import Auditor, real
from .budgets import Budget, Kind
from .editing import EDITED, edited
from .printed import Edit
from .speed import measure
from .tables import Origin, ProcessName, Table, recipe
from .work import JUDGE, MODEL, SPEED, Timed, Work

PART = "measured.json"
TRAINING = 0.6
"""Share of a piece's time that its training takes, roughly: for the progress bar."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One model of a grid."""

    process: ProcessName
    origin: Origin = "scratch"
    method: str = "standard"
    seed: int = 0

    @property
    def key(self) -> str:
        """Its folder. That of a Standard model holds the model alone; it is audited beside the others."""
        return f"{self.process}/{self.origin}/{self.method.replace(' ', '-')}/seed-{self.seed}"

    @property
    def model(self) -> str:
        """Where the model lies."""
        return f"{self.parent if self.method == 'standard' else self.key}/{MODEL}"

    @property
    def parent(self) -> str:
        """The folder of the Standard model of the same process."""
        return f"{self.process}/standard"


def aims(tables: Sequence[Table], budget: Budget) -> list[Aim]:
    """All models that the tables need, what matters most first: what is there when time is up is worth most."""
    parts = [part for table in tables for part in table.parts]
    found = [Aim(process=part.process) for part in parts]
    for seed in range(budget.seeds):
        found += [
            Aim(process=part.process, origin="tuned", method=name, seed=seed)
            for part in parts
            if part.origin == "tuned"
            for name in (*part.methods, *part.ours)
            if name != "standard"
        ]
    found += [
        Aim(process=part.process, method=name)
        for part in parts
        if part.origin == "scratch"
        for name in budget.retrain
        if name in part.methods
    ]
    return list(dict.fromkeys(found))


def edits(tables: Sequence[Table], budget: Budget) -> list[tuple[Aim, Edit]]:
    """The models that edit images, of the first seed, and how each does."""
    found = [
        (aim, edit)
        for table in tables
        for part in table.parts
        for edit in part.edits
        for aim in aims([replace(table, parts=(part,))], budget)
        if aim.seed == 0
    ]
    return list(dict.fromkeys(found))


def edit_key(aim: Aim, edit: Edit) -> str:
    """The folder of the images that a model edited."""
    return f"{aim.key}-{edit}"


def stages(work: Work, tables: Sequence[Table]) -> list[list[Piece]]:
    """All pieces, in stages: those of one need what those before it have made, and not each other."""
    wanted, common = aims(tables, work.budget), work.identity()
    kinds = work.budget.kinds
    tuned = tuple(dict.fromkeys(aim.method for aim in wanted if aim.origin == "tuned"))

    def piece(key: str, run: Callable[[Tick], Mapping[str, Any]], **identity: Any) -> Piece:
        return Piece(key=key, folder=work.out / key, identity={**common, **identity}, run=run)

    first = []
    if any(kind.seconds is not None for kind in kinds.values()):
        first.append(piece(SPEED, partial(_speed, work, tuned), kinds=_plain(kinds)))
    parents = [
        piece(aim.parent, partial(_standard, work, aim), kind=asdict(kinds[aim.process]))
        for aim in wanted
        if aim.method == "standard"
    ]
    models = [
        piece(
            aim.key, partial(_audited, work, aim), kind=asdict(kinds[aim.process]), seed=aim.seed,
            method=recipe(aim.method).to_dict(), audit=asdict(work.budget.audit),
        )
        for aim in wanted
    ]  # fmt: skip
    changed = [
        piece(
            edit_key(aim, edit), partial(_edited, work, aim, edit), seed=aim.seed, method=recipe(aim.method).to_dict(),
            edits=asdict(work.budget.edits),
        )
        for aim, edit in edits(tables, work.budget)
    ]  # fmt: skip
    judge = piece(JUDGE, partial(_judge, work), names=work.request.names)
    return [first, [judge, *parents], models, changed]


def _plain(kinds: Mapping[ProcessName, Kind]) -> dict[str, Any]:
    return {name: asdict(kind) for name, kind in kinds.items()}


def _timed(work: Work, found: Mapping[str, Any], began: float) -> dict[str, Any]:
    return {**found, "piece_seconds": time.monotonic() - began, "runtime": work.runtime.to_dict()}


def _speed(work: Work, methods: Sequence[str], tick: Tick) -> dict[str, Any]:
    work.deadline.check()
    began = time.monotonic()
    found = measure(
        work.fresh(next(iter(work.budget.kinds))), budget=work.budget, methods=methods, split=work.split,
        test=work.test, run=work.spec(None), runtime=work.runtime,
    )  # fmt: skip
    return _timed(work, found, began)


def _judge(work: Work, tick: Tick) -> dict[str, Any]:
    work.deadline.check()
    began, column = time.monotonic(), work.request.column
    values = work.train.columns[column].unique().tolist()
    judge = train_judge(
        work.train, work.test, work.budget.judge, column=column, names=[work.request.names[value] for value in values],
        device=work.runtime.device.type, progress=False,
    )  # fmt: skip
    worth_for(judge, work.rule, work.test).check()
    judge.save(work.out / JUDGE / MODEL)
    found = {
        "accuracy": judge.accuracy,
        "confusion": judge.confusion.tolist(),
        "names": list(judge.names),
        "junk_recall": judge.junk_recall,
        "real_called_junk": judge.real_called_junk,
        "real": real(_auditor(work)),
    }
    return _timed(work, found, began)


def _auditor(work: Work) -> Auditor:
    return Auditor(
        judge=work.judge(), split=work.split, test=work.test, settings=work.budget.audit, runtime=work.runtime
    )


def _standard(work: Work, aim: Aim, tick: Tick) -> dict[str, Any]:
    began = time.monotonic()
    return _timed(work, made(work, aim, tick), began)


def _audited(work: Work, aim: Aim, tick: Tick) -> dict[str, Any]:
    """A model, made if it is no Standard one, and the evidence about it: a row of the results."""
    began, folder = time.monotonic(), work.out / aim.key
    origin = read_json(work.out / aim.parent / ROW) if aim.method == "standard" else made(work, aim, tick, TRAINING)
    part, model = folder / PART, work.out / aim.model
    found = read_json(part) if part.exists() else {}
    measures: dict[str, Callable[[Auditor], dict[str, Any]]] = {
        "draws": lambda auditor: auditor.draws(model, folder),
        "nll": lambda auditor: auditor.likelihoods(model),
    }
    for name in [name for name in measures if name not in found]:
        work.deadline.check()
        found[name] = measures[name](_auditor(work))
        write_json(part, found)
        tick((1 - TRAINING) / len(measures))
    part.unlink(missing_ok=True)
    return _timed(work, {**asdict(aim), "made": origin, **found}, began)


def _edited(work: Work, aim: Aim, edit: Edit, tick: Tick) -> dict[str, Any]:
    """Images that a model edited, which was made before."""
    work.deadline.check()
    began = time.monotonic()
    found = edited(
        work.out / aim.model, edit, test=work.test, rule=work.rule, judge=work.judge(), mask=work.request.mask,
        settings=work.budget.edits, runtime=work.runtime, picture=work.out / edit_key(aim, edit) / EDITED,
    )  # fmt: skip
    return _timed(work, found, began)


def made(work: Work, aim: Aim, tick: Tick, share: float = 1.0) -> dict[str, Any]:
    """How a model was made; makes it, or goes on with it, if it is not there. ``tick`` is told ``share`` in all."""
    folder, kind = work.out / aim.model, work.budget.kinds[aim.process]
    own, method = aim.origin == "scratch", recipe(aim.method)
    settings = (
        work.sized(replace(kind.train, seed=aim.seed), kind.seconds, "train")
        if own
        else work.sized(replace(kind.tune, seed=aim.seed), kind.tune_seconds, "tune")
    )
    began, there, status = time.monotonic(), completed(folder), "finished"
    whole = not there and not (folder / STATE).exists()
    if there:
        status = str(Status.from_dict(load(folder).record["status"]))
    else:
        work.deadline.check()
        run, watch = work.spec(folder), Timed(work.deadline, settings.steps, tick, share)
        try:
            if own:
                data: Images | Split = work.train if aim.method == "standard" else work.split
                model = work.fresh(aim.process, aim.seed)
                train(model, data, method=method, settings=settings, run=run, watch=watch)
            else:
                parent = load(work.out / aim.parent / MODEL)
                unlearn(parent, work.split, method=method, settings=settings, run=run, watch=watch)  # type: ignore[arg-type]
        except Diverged as problem:
            status = str(problem.status)
    return {
        "status": status,
        "settings": asdict(settings),
        "method": method.to_dict(),
        "seconds": time.monotonic() - began if whole else None,
    }
