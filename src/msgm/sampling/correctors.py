"""Langevin correctors, and the predictor-corrector sampler that they make with any other sampler.

A corrector moves x at a fixed time by ``x + h score + (2 h)^(1/2) z``, whose law of rest is p_t, up to the error of
the finite step: for a Gaussian of variance v it is wider by the factor ``1 / (1 - h / 2v)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from ..errors import UserError
from ..model.score import ScoreModel
from ..process.sde import expand
from .base import Sampler
from .stochastic import ReverseDiffusion
from .streams import Streams


@dataclass(frozen=True, kw_only=True)
class Corrector(ABC):
    """``repeats`` Langevin moves; a subclass says how large. ``snr`` is the ratio of drift to noise in one."""

    snr: float = 0.16
    repeats: int = 1

    def __post_init__(self) -> None:
        if not self.snr > 0 or self.repeats < 1:
            raise UserError(f"a corrector needs snr > 0 and repeats >= 1, got snr={self.snr}, repeats={self.repeats}")

    @abstractmethod
    def width(self, score: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """h for each image, of shape () or (B,), from the score (B, *), alpha(t) and sigma(t)."""

    def __call__(self, model: ScoreModel, x: Tensor, t: Tensor, generator: Streams) -> Tensor:
        """x (B, *) after ``repeats`` moves at time t, a float64 scalar."""
        for _ in range(self.repeats):
            score = model.score(x, t)
            h = expand(self.width(score, model.sde.alpha(t), model.sde.sigma(t)), x)
            x = x + h * score + (2 * h).sqrt() * generator.normal(x)
        return x


@dataclass(frozen=True, kw_only=True)
class Langevin(Corrector):
    """``h = 2 (snr d^(1/2) / |score|)^2`` (Song et al. 2021, Algorithms 4 and 5), d numbers in an image.

    There |z| and |score| are means over the batch; here d^(1/2) and the image's own norm, so that no image depends
    on those beside it. A score below that of unit variance, ``(d / (alpha^2 + sigma^2))^(1/2)``, counts as that.
    A step that depends on x favours large scores: at rest a Gaussian's variance is larger by the share 2 / d,
    which is nothing for images and too much for short vectors; take `AnnealedLangevin` for them.
    """

    def width(self, score: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        mean_square = score.flatten(1).square().mean(1)
        return 2 * self.snr**2 / mean_square.clamp(min=float(1 / (alpha.square() + sigma.square())))


@dataclass(frozen=True, kw_only=True)
class AnnealedLangevin(Corrector):
    """``h = 2 (snr sigma)^2`` (Song and Ermon 2019, Algorithm 1): fixed by the noise level."""

    def width(self, score: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return 2 * (self.snr * sigma).square()


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictorCorrector(Sampler):
    """Each step: a predictor's step from t to s, then a corrector at s (Song et al. 2021, Algorithms 2 and 3).

    ``predictor`` makes a sampler of the model; its ``steps`` and grid are not used.
    """

    steps: int = 1000
    predictor: Callable[[ScoreModel], Sampler] = ReverseDiffusion
    corrector: Corrector = field(default_factory=Langevin)

    @cached_property
    def _predict(self) -> Sampler:
        return self.predictor(self.model)

    @property
    def nfe(self) -> int:
        each = self._predict.evaluations + self.corrector.repeats
        return each * (len(self.times()) - 1) + 1

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        return self.corrector(self.model, self._predict.step(x, t, s, generator), s, generator)
