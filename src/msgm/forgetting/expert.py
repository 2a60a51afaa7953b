"""ESD without prompts: away from what an expert of the forget data says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..model.score import ScoreModel
from .batch import Noised, Start
from .prepare import fine_tuned
from .terms import ForgetTerm, per_image


@dataclass(frozen=True, kw_only=True)
class Expert(ForgetTerm):
    """mean (predicted - (eps_0 - eta (eps_f - eps_0)))^2 on the forget data (after Gandikota et al. 2023).

    eps_0 is the model before unlearning. The unconditional model has no prompt that names what to forget; eps_f is a
    copy of it that was fine-tuned on the forget data for ``steps`` steps at ``lr``. Needs `prepare`.
    """

    eta: float = 1.0
    steps: int = 100
    lr: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not self.lr > 0:
            raise UserError(f"an expert needs steps of 1 or more and a positive lr; got {self.steps} and {self.lr}")

    @property
    def needs(self) -> str:
        return "an expert of it"

    def prepare(self, start: Start) -> AwayFrom:
        """The term with its two fixed models."""
        *_, expert = fine_tuned(start, start.forget, steps=self.steps, lr=self.lr, title="Expert of the forget data")
        return AwayFrom(
            low=self.low, high=self.high, window=self.window, eta=self.eta, before=start.copy(), expert=expert
        )

    def each(self, batch: Noised, retained: Tensor) -> Tensor:
        raise UserError("the forget expert must be prepared first; use unlearn, or Expert.prepare")


@dataclass(frozen=True, kw_only=True, eq=False)
class AwayFrom(ForgetTerm):
    """`Expert` with the models that it needs."""

    eta: float
    before: ScoreModel
    expert: ScoreModel

    def each(self, batch: Noised, retained: Tensor) -> Tensor:
        with torch.no_grad():
            before, expert = self.before(batch.x, batch.t), self.expert(batch.x, batch.t)
        return per_image((batch.predicted - before + self.eta * (expert - before)).square())
