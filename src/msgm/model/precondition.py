"""Preconditioning: what goes into a network, its time label, and how its raw output becomes the noise.

With ``x = alpha x_0 + sigma eps`` a `Precondition` says three things of a network F:
``eps(x, t) = read(F(enter(x), label(t)))``. `Level` holds alpha and sigma, in the precision of x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from ..errors import UserError
from ..process.sde import SDE

Prediction = Literal["edm", "noise", "score", "v", "sample"]


class Level(NamedTuple):
    """alpha and sigma at the times of a batch, shaped so that they multiply it."""

    alpha: Tensor
    sigma: Tensor


@dataclass(frozen=True, kw_only=True)
class Precondition(ABC):
    """How a network is asked and its answer read.

    Args:
        sigma_data: standard deviation of the images in model space. `EDM` scales by it; losses that count errors of
            the clean image measure in it.
    """

    sigma_data: float = 0.5

    name: ClassVar[Prediction]

    def __post_init__(self) -> None:
        if not (isinstance(self.sigma_data, int | float) and 0 < self.sigma_data < math.inf):
            raise UserError(f"sigma_data is a standard deviation, finite and above 0; got {self.sigma_data!r}")

    def enter(self, x: Tensor, at: Level) -> Tensor:
        """What the network is given, (B, *)."""
        return x

    def label(self, sde: SDE, t: Tensor) -> Tensor:
        """The network's time input, (B,)."""
        return sde.label(t)

    @abstractmethod
    def read(self, raw: Tensor, x: Tensor, at: Level) -> Tensor:
        """The noise eps (B, *) that the raw output stands for."""


@dataclass(frozen=True, kw_only=True)
class EDM(Precondition):
    """F of Karras et al. 2022, Eq. 7, in y = x / alpha and r = sigma / alpha.

    ``eps = y r / (r^2 + sigma_data^2) - sigma_data (r^2 + sigma_data^2)^(-1/2) F``; the label is ``per_nat log r``:
    with 10 a few periods of a sinusoidal embedding, with 1/4 that of their own networks.
    """

    per_nat: float = 10.0

    name: ClassVar[Prediction] = "edm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.per_nat, int | float) and 0 < self.per_nat < math.inf):
            raise UserError(f"per_nat scales the time label, finite and above 0; got {self.per_nat!r}")

    def enter(self, x: Tensor, at: Level) -> Tensor:
        return x / at.alpha * ((at.sigma / at.alpha).square() + self.sigma_data**2).rsqrt()

    def label(self, sde: SDE, t: Tensor) -> Tensor:
        return self.per_nat * sde.log_ratio(t)

    def read(self, raw: Tensor, x: Tensor, at: Level) -> Tensor:
        y, ratio = x / at.alpha, at.sigma / at.alpha
        total = ratio.square() + self.sigma_data**2
        return y * ratio / total - self.sigma_data * total.rsqrt() * raw


@dataclass(frozen=True, kw_only=True)
class Noise(Precondition):
    """eps itself (Ho et al. 2020)."""

    name: ClassVar[Prediction] = "noise"

    def read(self, raw: Tensor, x: Tensor, at: Level) -> Tensor:
        return raw


@dataclass(frozen=True, kw_only=True)
class Score(Precondition):
    """grad log p_t(x) = -eps / sigma (Song et al. 2021)."""

    name: ClassVar[Prediction] = "score"

    def read(self, raw: Tensor, x: Tensor, at: Level) -> Tensor:
        return -at.sigma * raw


@dataclass(frozen=True, kw_only=True)
class V(Precondition):
    """alpha eps - sigma x_0 (Salimans and Ho 2022)."""

    name: ClassVar[Prediction] = "v"

    def read(self, raw: Tensor, x: Tensor, at: Level) -> Tensor:
        return (at.alpha * raw + at.sigma * x) / (at.alpha.square() + at.sigma.square())


@dataclass(frozen=True, kw_only=True)
class Sample(Precondition):
    """x_0."""

    name: ClassVar[Prediction] = "sample"

    def read(self, raw: Tensor, x: Tensor, at: Level) -> Tensor:
        return (x - at.alpha * raw) / at.sigma


PRECONDITIONS: dict[str, type[Precondition]] = {kind.name: kind for kind in (EDM, Noise, Score, V, Sample)}
