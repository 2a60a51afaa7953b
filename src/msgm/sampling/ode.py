"""Samplers of the probability-flow ODE: the noise decides the image, and nothing random comes after it.

In y = x / alpha and r = sigma / alpha the flow of every process is ``dy/dr = eps(alpha y, t)``
(Song et al. 2021, Eq. 13; Karras et al. 2022, Sec. 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UserError
from ..process.sde import expand
from ..process.solvers import Pair, adapt
from .base import Sampler
from .grids import Grid
from .streams import Streams


@dataclass(frozen=True, eq=False, kw_only=True)
class Euler(Sampler):
    """Euler in x and t: ``dx/dt = c x - g^2 score / 2`` (Song et al. 2021, Eq. 13); first order.

    The plain form, for comparisons. `DDIM` is Euler in (y, r), and needs far fewer steps.
    """

    steps: int = 200

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        return x + (s - t) * (sde.drift(t) * x - sde.diffusion(t).square() / 2 * self.model.score(x, t))


@dataclass(frozen=True, eq=False, kw_only=True)
class Heun(Sampler):
    """Heun on ``dy/dr = eps(alpha y, t)`` (Karras et al. 2022, Algorithm 1); second order.

    A step may go in either direction, so it also encodes images.
    """

    steps: int = 18
    grid: Grid = "edm"

    evaluations: ClassVar[int] = 2

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        y, leap = x / sde.alpha(t), sde.log_ratio(s).exp() - sde.log_ratio(t).exp()
        slope = self.model.noise(x, t)
        ahead = self.model.noise(sde.alpha(s) * (y + leap * slope), s)
        return sde.alpha(s) * (y + leap * (slope + ahead) / 2)


@dataclass(frozen=True, eq=False, kw_only=True)
class DPMSolver(Sampler):
    """DPM-Solver++(2M): second order from one evaluation a step (Lu et al. 2022b, Algorithm 2).

    With k = r_s / r_t the flow between t and s is ``y_s = k y_t + (1 - k) D``, exact for a denoised image D that
    is constant between them; here D is extrapolated from the last two (`extrapolate`).
    """

    steps: int = 16
    grid: Grid = "log-snr"

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        keep = (sde.log_ratio(s) - sde.log_ratio(t)).exp()
        clean = self.extrapolate(self.model.denoise(x, t), t, s, generator)
        return sde.alpha(s) * (keep * x / sde.alpha(t) + (1 - keep) * clean)

    def extrapolate(self, clean: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        """``D_t + h (D_t - D_p) / (2 h_p)``, with h = log(r_t / r_s), h_p = log(r_p / r_t) and p the time before t.

        That is D in the middle of the step, linear in log r. A past that does not end at t (the first step, or a
        jump to another time) is not used: D_t.
        """
        past, generator.past = generator.past, (t, s, clean)
        if past is None or not bool(past[1] == t):
            return clean
        before, here, after = (self.model.sde.log_ratio(u) for u in (past[0], t, s))
        return clean + (here - after) / (before - here) / 2 * (clean - past[2])


@dataclass(frozen=True, eq=False, kw_only=True)
class RK45(Sampler):
    """Dormand and Prince's adaptive pair on ``dy/du = r eps(alpha y, t)``, u = log r; each image has its own steps.

    The reference for ODE samplers: the error of every step is held below ``tolerance (1 + |y|)`` (`solvers.adapt`).

    Args:
        steps: times at which all images wait for each other; two (t = 1 and t_min) cost least.
        tolerance: error allowed in a step.
        most: evaluations between two of these times; an image that takes more is a UserError.
    """

    steps: int = 2
    tolerance: float = 1e-4
    most: int = 10_000
    used: list[int] = field(default_factory=list, init=False, repr=False)
    """Evaluations of each image of each step so far."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tolerance > 0:
            raise UserError(f"tolerance must be positive, got {self.tolerance}; 1e-4 is usual")

    @property
    def nfe(self) -> int:
        """Network evaluations for each image: the mean over those drawn so far, 0 before."""
        return round((len(self.times()) - 1) * sum(self.used) / len(self.used)) + 1 if self.used else 0

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde

        start, end = sde.log_ratio(t), sde.log_ratio(s)
        way = (end - start).sign()

        def slopes(tau: Tensor, y: Tensor, rows: Tensor) -> Pair:
            u = way * tau
            time = sde.time(u).clamp(sde.t_min, 1)
            slope = expand(u.exp().to(y), y) * self.model.noise(expand(sde.alpha(time).to(y), y) * y, time)
            return way * slope, torch.zeros(len(y), dtype=torch.float64)

        y, _, used, finished = adapt(
            slopes,
            x / sde.alpha(t),
            way * start,
            way * end,
            rtol=self.tolerance,
            atol=self.tolerance,
            max_nfe=self.most,
        )
        if not bool(finished.all()):
            raise UserError(
                f"an image needs more than {self.most} evaluations at tolerance {self.tolerance}; raise the tolerance, "
                "or use a sampler of fixed steps"
            )
        self.used.extend(used.tolist())
        return sde.alpha(s) * y
