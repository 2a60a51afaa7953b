"""Which checkpoint of an unlearning run to keep: watched on images held out from training, kept by a stated rule."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...choice import Choice
from ...data import Split
from ...errors import UserError
from ...formats.tensors import read_tensors, write_tensors
from ...metrics import quantities
from ...metrics.judge import Judge
from ...metrics.worth import worth_for
from ...model.score import ScoreModel
from ...processes import here
from ...report.page import plain, write_json
from ...report.results import Result
from ...storage import read_json
from .evaluate import EvaluateSettings, check, evaluate

RULE = (
    "of the watched checkpoints whose junk and retained NLL exceed the parent's by no more than their limits, the one "
    "with the lowest UR (ties: the lowest NLL); if none keeps the limits, the one with the lowest NLL"
)
# Neither these images' noise nor their probes are those of an audit (seed 0 by default): the audit stays independent.
SEED = 7919
WATCHED, WEIGHTS = "watched.json", "selected.safetensors"


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """How a run is watched, and which checkpoint is kept.

    A watched checkpoint is measured by a reduced audit, with these numbers a fifth of a full one.

    Args:
        select_every: steps between watched checkpoints.
        select_n: samples judged at each, by 10 steps of dpm++.
        select_images: held-out images of each set for the NLL.
        select_share: share of the training images of each set that is held out.
        select_junk: by how much the share of junk may exceed the parent's.
        select_nll: bits/dim by which the retained NLL may exceed the parent's.
        select_stop: end the run when it exceeds that by so many.
    """

    select_every: int = 50
    select_n: int = 200
    select_images: int = 8
    select_share: float = 0.1
    select_junk: float = 0.02
    select_nll: float = 0.15
    select_stop: float = 0.5

    def __post_init__(self) -> None:
        if self.select_every < 1 or self.select_n < 2 or self.select_images < 2:
            raise UserError(
                "select_every must be 1 or more, select_n and select_images 2 or more; "
                f"got {self.select_every}, {self.select_n} and {self.select_images}"
            )
        if not 0 < self.select_share < 1:
            raise UserError(f"select_share is a share of the training images, in (0, 1); got {self.select_share}")
        if self.select_junk < 0 or self.select_nll < 0 or self.select_stop < self.select_nll:
            raise UserError(
                "select_junk and select_nll must be 0 or more, select_stop no less than select_nll; "
                f"got {self.select_junk}, {self.select_nll} and {self.select_stop}"
            )

    @property
    def evaluation(self) -> EvaluateSettings:
        """How each checkpoint is measured: little evidence, but the same noise and images each time."""
        return EvaluateSettings(
            n=self.select_n, sampler=Choice.of("dpm++", steps=10), nll_images=self.select_images,
            nll_check=min(4, self.select_images), seed=SEED,
        )  # fmt: skip


def within(row: Result, parent: Result, settings: SelectSettings) -> bool:
    """Whether a checkpoint keeps the limits; one whose likelihood fails its check does not."""
    return (
        _junk(row) <= _junk(parent) + settings.select_junk
        and _nll(row) <= _nll(parent) + settings.select_nll
        and _nll(row) < math.inf
    )


def best(rows: Mapping[int, Result], settings: SelectSettings) -> int:
    """The step to keep by `RULE`; ``rows`` by step, that of step 0 being the parent, which itself is never kept."""
    steps = [step for step in rows if step > 0]
    good = [step for step in steps if within(rows[step], rows[0], settings)]
    if good:
        return min(good, key=lambda step: (_rate(rows[step]), _nll(rows[step]), step))
    return min(steps, key=lambda step: (_nll(rows[step]), step))


class Selection:
    """A `training.Watch` that measures the average every few steps, keeps the best, and stops when D_g suffers.

    Train on `split`, which lacks the held-out images. With ``out``, the run's folder, what was measured is kept
    there in watched.json, and a resumed run goes on with it; use it in a ``with`` statement. Raises UserError for a
    judge that cannot tell the held-out images to be forgotten from the others.
    """

    def __init__(
        self,
        settings: SelectSettings,
        *,
        split: Split,
        judge: Judge,
        parent: ScoreModel,
        steps: int,
        out: str | os.PathLike[str] | None = None,
    ) -> None:
        self.settings, self.judge, self.steps = settings, judge, steps
        self.split, self.held_out = split.hold_out(settings.select_share, SEED)
        check(parent, judge, split.request, self.held_out)
        self.worth = worth_for(judge, split.request, self.held_out)
        self.worth.check()
        self.out = Path(out) if out is not None and here().first else None
        self.rows: dict[int, Result] = {}
        self.kept = 0
        self.stopped = self.shipped = False
        self.weights: dict[str, Tensor] = {}

    def __enter__(self) -> Selection:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # Unless the disk was full, what was shipped is saved; a run that has not come so far goes on from these.
        if self.out is not None and self.shipped and (kind is None or not issubclass(kind, OSError)):
            (self.out / WEIGHTS).unlink(missing_ok=True)

    def __call__(self, step: int, average: ScoreModel) -> bool:
        """Measure the average if it is due; true when its retained NLL passes the limit of the run."""
        if step > 0 and not self.rows:
            self._read()
        if step % self.settings.select_every and step != self.steps:
            return False
        if step not in self.rows:
            self.rows[step] = self._measure(step, average)
            if step == 0 and _nll(self.rows[0]) == math.inf:
                raise UserError(
                    "the likelihood of the model to unlearn fails its step-doubling check, so there is nothing to "
                    "select by; try more images, or look at its likelihood alone",
                    option="select_images",
                )
            if step > 0 and best(self.rows, self.settings) == step:
                self.kept = step
                self.weights = {name: value.detach().clone() for name, value in average.state_dict().items()}
            self._write()
        row = self.rows[step]
        self.stopped = math.inf > _nll(row) > _nll(self.rows[0]) + self.settings.select_stop
        return self.stopped

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        """Put the kept weights into the average; the record of how they were chosen."""
        self.shipped = True
        if not self.kept:
            return {}
        average.load_state_dict(self.weights)
        return {
            "selection": {
                "rule": RULE,
                "step": self.kept,
                "within_limits": within(self.rows[self.kept], self.rows[0], self.settings),
                "stopped_early": self.stopped,
                **self._held(),
                "judge": self.worth.to_dict(),
                "settings": asdict(self.settings),
                "watched": [{"step": step, **row.to_dict()} for step, row in self.rows.items()],
            }
        }

    def verdicts(self) -> list[Result]:
        """What was measured, in order, each with what became of it in the place of the method."""

        def verdict(step: int, row: Result) -> str:
            if step in (0, self.kept):
                return "kept" if step else "the parent"
            return "" if within(row, self.rows[0], self.settings) else "over a limit"

        return [replace(row, method=verdict(step, row)) for step, row in self.rows.items()]

    @property
    def _identity(self) -> dict[str, Any]:
        return {"settings": asdict(self.settings), "judge": self.worth.sha256}

    def _held(self) -> dict[str, Any]:
        forget = int(self.split.request.mask(self.held_out).sum())
        return {"held_out": {"retain": len(self.held_out) - forget, "forget": forget, "seed": SEED}}

    def _measure(self, step: int, average: ScoreModel) -> Result:
        row, _ = evaluate(
            average,
            name=f"step {step}",
            method="",
            judge=self.judge,
            request=self.split.request,
            test=self.held_out,
            settings=self.settings.evaluation,
            progress=False,
        )
        # As it is read again by a run that is resumed, which takes another time.
        timeless = {k: each for k, each in row.measured.items() if k != quantities.AUDIT_SECONDS.name}
        return Result.from_dict(plain(replace(row, measured=timeless).to_dict()))

    def _write(self) -> None:
        if self.out is None:
            return
        if self.weights:
            write_tensors(self.out / WEIGHTS, self.weights)
        rows = {str(step): row.to_dict() for step, row in self.rows.items()}
        write_json(self.out / WATCHED, {**self._identity, "kept": self.kept, "rows": rows})

    def _read(self) -> None:
        """What the run had measured before it was interrupted, which may be more than its saved state knows of."""
        stored, self.weights = here().told(self._stored)
        self.rows = {int(step): Result.from_dict(row) for step, row in stored["rows"].items()}
        self.kept = int(stored["kept"])

    def _stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        stored = read_json(self.out / WATCHED) if self.out is not None else {}
        if self.out is None or any(stored.get(key) != each for key, each in self._identity.items()):
            changed = "another judge" if stored.get("settings") == asdict(self.settings) else "other settings"
            raise UserError(f"{self.out} was begun with {changed} of the selection; resume with the same")
        return stored, read_tensors(self.out / WEIGHTS) if stored["kept"] else {}


def _rate(row: Result) -> float:
    return _or(row.value(quantities.UR), 1.0)


def _junk(row: Result) -> float:
    return _or(row.value(quantities.JUNK), 1.0)


def _nll(row: Result) -> float:
    return _or(row.value(quantities.NLL["retain"]), math.inf)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
