"""Towards the retained score, by the gradient of a classifier that sees through noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from ..model.score import ScoreModel
from ..process.sde import expand
from .batch import Noised, Start
from .classifier import ClassifierSettings, LogOdds, fit_classifier
from .terms import ForgetTerm, Weighting, aimed


@dataclass(frozen=True, kw_only=True)
class Steer(ForgetTerm):
    """On the forget data, what the model said before, steered away from them by a classifier:

        eps* = eps_0 - (1 + m) sigma grad_x log P(retain | x_t)

    eps_0 is the prediction of the model before unlearning and m the ``margin``. It is guidance by a classifier
    (Dhariwal and Nichol 2021), put into the weights. With the exact P of a model of all the data, m = 0 is the retained
    score, ``m_g = eps_0 - sigma grad log P_g``; m > 0 aims beyond it, at ``m_g + m P_f (m_g - m_f)``. Where x_t is sure
    to be a forget image, that is far from all images there are; so the denoised image is moved by at most ``reach``, in
    root mean square and units of sigma_data.

    The classifier is trained before the first step (`prepare`, `classifier.fit_classifier`), unless ``log_odds(y, r)``
    is given: log P(forget) - log P(retain) given ``y = x_t / alpha`` at the noise level r, (B,), differentiable in y.

    Args:
        margin: how far beyond the retained score to steer.
        reach: how far the denoised image may be moved, in root mean square and units of sigma_data.
        weighting: an error of the clean image, or of the noise.
    """

    margin: float = 10.0
    reach: float = 0.5
    weighting: Weighting = "image"
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    log_odds: LogOdds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin < math.inf:
            raise UserError(f"margin must be 0 or more, and finite; got {self.margin}")
        if not 0 < self.reach < math.inf:
            raise UserError(f"reach must be positive and finite, in units of sigma_data; got {self.reach}")

    @property
    def needs(self) -> str:
        return "a copy of the model" if self.log_odds is not None else "a copy of the model, a classifier of it"

    def prepare(self, start: Start) -> Steered:
        """The term with the model as it is before the first step, and a classifier."""
        settings, errors = {f.name: getattr(self, f.name) for f in fields(self)}, list[dict[str, float]]()
        if self.log_odds is None:
            settings["log_odds"], errors = fit_classifier(start, self.classifier)
        return Steered(**settings, before=start.copy(), errors=errors)

    def each(self, batch: Noised) -> Tensor:
        raise UserError("the model before is not known; use unlearn, or Steer.prepare")


@dataclass(frozen=True, kw_only=True, eq=False)
class Steered(Steer):
    """`Steer` with what it needs."""

    before: ScoreModel
    errors: list[dict[str, float]] = field(default_factory=list)

    @property
    def found(self) -> dict[str, Any]:
        """The classifier's errors on images held out (`classifier.measured`)."""
        return {"classifier": self.errors} if self.errors else {}

    def each(self, batch: Noised) -> Tensor:
        with torch.no_grad():
            before = self.before(batch.x, batch.t)
        return aimed(batch, before - self.push(batch), self.weighting)

    def certain(self, batch: Noised) -> Tensor:
        assert self.log_odds is not None
        with torch.no_grad():
            return self.log_odds(batch.x / expand(batch.model.sde.alpha(batch.t), batch.x), batch.ratio).sigmoid()

    def push(self, batch: Noised) -> Tensor:
        """(1 + m) sigma grad_x log P(retain | x_t), within ``reach``; (B, *)."""
        push = (1 + self.margin) * self.away(batch)
        moved = batch.ratio / batch.model.sigma_data * push.flatten(1).square().mean(1).sqrt()
        return push * expand((self.reach / moved.clamp(min=1e-30)).clamp(max=1), push)

    def away(self, batch: Noised) -> Tensor:
        """sigma grad_x log P(retain | x_t), (B, *)."""
        assert self.log_odds is not None
        y = batch.x.detach() / expand(batch.model.sde.alpha(batch.t), batch.x)
        with torch.enable_grad():
            y.requires_grad_()
            log_retain = functional.logsigmoid(-self.log_odds(y, batch.ratio))
            (slope,) = torch.autograd.grad(log_retain.sum(), y)
        return expand(batch.ratio, slope) * slope
