"""Samplers that draw fresh noise in every step: the reverse SDE and the chains of DDPM and DDIM.

In y = x / alpha and r = sigma / alpha every process only adds noise, ``d<y> = d(r^2)``. With k = r_s / r_t, the law
of y_s between y_t and the clean image y_0 is (Ho et al. 2020, Eq. 7; Song et al. 2021, Eq. 47)

    N(k^2 y_t + (1 - k^2) y_0, r_s^2 (1 - k^2)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from ..process.sde import SDE
from .base import Sampler
from .grids import Grid
from .ode import DPMSolver
from .streams import Streams

Variance = Literal["posterior", "forward"]


@dataclass(frozen=True, eq=False, kw_only=True)
class EulerMaruyama(Sampler):
    """The reverse SDE ``dx = (c x - g^2 score) dt + g dw`` (Song et al. 2021, Eq. 6); weak order one."""

    steps: int = 200

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde, width = self.model.sde, t - s
        slope = sde.drift(t) * x - sde.diffusion(t).square() * self.model.score(x, t)
        return x - width * slope + width.sqrt() * sde.diffusion(t) * generator.normal(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReverseDiffusion(Sampler):
    """The forward step ``x_t = a x_s + G z``, a = alpha_t / alpha_s, G^2 = alpha_t^2 (r_t^2 - r_s^2), undone:

    ``x_s = (2 - a) x_t + G^2 score + G z`` (Song et al. 2021, Eq. 46, with the exact transition of each process).
    """

    steps: int = 200

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        keep, spread = sde.alpha(t) / sde.alpha(s), transition(self.model.sde, t, s)
        return (2 - keep) * x + spread.square() * self.model.score(x, t) + spread * generator.normal(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class Ancestral(Sampler):
    """Ancestral sampling: y_s is drawn from the law above, with the denoised image in the place of y_0.

    For DDPM on the grid of all its steps this is Ho et al. 2020, Algorithm 2; for VE, Song et al. 2021, Eq. 47.
    ``variance="forward"`` draws with that of the forward step instead, G^2 = alpha_t^2 (r_t^2 - r_s^2) in x: the
    larger of the two that Ho et al. name in Sec. 3.2.

    Args:
        variance: of a step.
    """

    steps: int = 200
    variance: Variance = "posterior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in get_args(Variance):
            raise UserError(f"variance {self.variance!r} is unknown; choose one of {', '.join(get_args(Variance))}")

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        kept = (2 * (sde.log_ratio(s) - sde.log_ratio(t))).exp()
        mean = sde.alpha(s) * (kept * x / sde.alpha(t) + (1 - kept) * self.model.denoise(x, t))
        spread = sde.sigma(s) * (1 - kept).sqrt() if self.variance == "posterior" else transition(sde, t, s)
        return mean + spread * generator.normal(x)


@dataclass(frozen=True, eq=False, kw_only=True)
class DDIM(Sampler):
    """DDIM: ``y_s = D + (r_s^2 - v)^(1/2) eps + v^(1/2) z`` with ``v = eta^2 r_s^2 (1 - k^2)``.

    Song, Meng and Ermon 2021, Eq. 12 and 16, for every process; D is the denoised image. ``eta = 0`` draws no
    noise: Euler on ``dy/dr = eps``, of first order in both directions. ``eta = 1`` is `Ancestral`.

    Args:
        eta: fresh noise, from 0 (none) to 1 (as much as ancestral).
    """

    steps: int = 50
    grid: Grid = "discrete"
    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must be in [0, 1], 0 for no fresh noise; got {self.eta}")

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        eps = self.model.noise(x, t)
        clean = (x - sde.sigma(t) * eps) / sde.alpha(t)
        if not self.eta:
            return sde.alpha(s) * clean + sde.sigma(s) * eps
        fresh = self.eta**2 * -torch.expm1(2 * (sde.log_ratio(s) - sde.log_ratio(t)))
        return sde.alpha(s) * clean + sde.sigma(s) * ((1 - fresh).sqrt() * eps + fresh.sqrt() * generator.normal(x))


@dataclass(frozen=True, eq=False, kw_only=True)
class DPMSolverSDE(DPMSolver):
    """SDE-DPM-Solver++(2M): `Ancestral` with DPM-Solver++'s extrapolated denoised image (Lu et al. 2022b, Eq. 18)."""

    steps: int = 30
    grid: Grid = "edm"

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        kept = (2 * (sde.log_ratio(s) - sde.log_ratio(t))).exp()
        clean = self.extrapolate(self.model.denoise(x, t), t, s, generator)
        mean = sde.alpha(s) * (kept * x / sde.alpha(t) + (1 - kept) * clean)
        return mean + sde.sigma(s) * (1 - kept).sqrt() * generator.normal(x)


def transition(sde: SDE, t: Tensor, s: Tensor) -> Tensor:
    """G: the standard deviation of x_t about ``alpha_t / alpha_s x_s``, for s < t."""
    return sde.alpha(t) * ((2 * sde.log_ratio(t)).exp() - (2 * sde.log_ratio(s)).exp()).sqrt()
