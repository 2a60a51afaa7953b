"""The probability-flow ODE as a likelihood sees it: its two slopes, the clocks it may run on, the probes of its trace.

In y = x / alpha and r = sigma / alpha the flow and the log-density along it are, for every process at once,

    dy/dr = eps(alpha y, t),        d log p(y)/dr = -tr(d eps(alpha y, t) / dy)

(Song et al. 2021, Eq. 39). A clock is an increasing function tau(r) on which equal steps are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..model.score import ScoreModel
from ..process.sde import expand
from ..sampling import Streams

Probes = Literal["rademacher", "gaussian", "fixed", "exact"]
"""How tr J is found: as v.Jv, with signs (or Gaussian numbers) v drawn anew at every evaluation or with one v of signs
kept for the whole path; or exactly, in d backward passes. The diagonal of J, and with it the linear part of a
preconditioned network, adds no variance when v are signs: it needs no control variate."""

Clock = Literal["log", "atan", "rho"]
"""tau = log r; atan(r / sigma_data); r^(1/7), the sampling grid of Karras et al. 2022, Eq. 5."""

RHO = 7.0


class Clockwork(NamedTuple):
    """A clock's tau(r), its inverse, and dr/dtau at r; of float64 tensors of any shape."""

    tau: Callable[[Tensor], Tensor]
    ratio: Callable[[Tensor], Tensor]
    rate: Callable[[Tensor], Tensor]


def clockwork(clock: Clock, sigma_data: float) -> Clockwork:
    """The functions of a clock; ``sigma_data``, the scale of the images, is where ``atan`` turns."""
    if clock == "log":
        return Clockwork(torch.log, torch.exp, lambda r: r)
    if clock == "atan":
        return Clockwork(
            lambda r: (r / sigma_data).atan(),
            lambda tau: sigma_data * tau.tan(),
            lambda r: sigma_data + r.square() / sigma_data,
        )
    return Clockwork(lambda r: r ** (1 / RHO), lambda tau: tau**RHO, lambda r: RHO * r ** (1 - 1 / RHO))


class Flow:
    """The two slopes of the flow of a model, in the time tau of a clock, from ``start`` (t_min) to ``end`` (t = 1)."""

    def __init__(self, model: ScoreModel, clock: Clock) -> None:
        self.model = model
        self.clock = clockwork(clock, model.sigma_data)
        times = torch.tensor([model.sde.t_min, 1.0], dtype=torch.float64)
        self.start, self.end = self.clock.tau(model.sde.log_ratio(times).exp())
        self.log_alphas = model.sde.log_alpha(times).tolist()

    def __call__(self, tau: Tensor, y: Tensor, probe: Tensor | None) -> tuple[Tensor, Tensor]:
        """dy/dtau (B, *) and -d log p/dtau, float64 (B,) on the CPU; tau of shape () or (B,), no probe: exactly."""
        sde, ratio = self.model.sde, self.clock.ratio(tau)
        t, rate = sde.time(ratio.log()).clamp(sde.t_min, 1), self.clock.rate(ratio)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = expand(rate.to(y), y) * self.model.noise(expand(sde.alpha(t).to(y), y) * y, t)
            return slope.detach(), _trace(slope, y, probe)

    def grid(self, steps: int) -> Tensor:
        """The ratios r at the ends of equal steps, float64 (steps + 1,)."""
        share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return self.clock.ratio(self.start + (self.end - self.start) * share)

    def enter(self, x: Tensor) -> Tensor:
        """y of images x at t_min."""
        return x / math.exp(self.log_alphas[0])

    def log_density(self, y: Tensor, change: Tensor) -> Tensor:
        """log p(x) in nats, float64 (B,), from y at t = 1 and the integral of the second slope.

        x_1 is taken to follow N(0, prior_std^2).
        """
        first, last = self.log_alphas
        flat, std = math.exp(last) * y.cpu().double().flatten(1), self.model.sde.prior_std
        dims = flat.shape[1]
        prior = -0.5 * (flat / std).square().sum(1) - dims * math.log(math.sqrt(2 * math.pi) * std)
        nats: Tensor = prior + dims * (last - first) + change
        return nats


def drawer(probes: Probes, streams: Streams, like: Tensor) -> Callable[[], Tensor | None]:
    """A function that gives the probe (B, *) of the next evaluation, None for the exact trace."""
    if probes == "exact":
        return lambda: None
    if probes == "fixed":
        kept = streams.rademacher(like)
        return lambda: kept
    draw = streams.normal if probes == "gaussian" else streams.rademacher
    return lambda: draw(like)


def _trace(value: Tensor, y: Tensor, probe: Tensor | None) -> Tensor:
    """tr(d value / d y) of each image, float64 (B,): v.Jv by one backward pass, or exactly by d of them."""
    if probe is not None:
        (grad,) = torch.autograd.grad(value, y, probe)
        estimate: Tensor = (grad * probe).flatten(1).cpu().double().sum(1)
        return estimate
    flat = value.flatten(1)
    total = torch.zeros(len(y), dtype=torch.float64)
    for j in range(flat.shape[1]):
        (grad,) = torch.autograd.grad(flat[:, j].sum(), y, retain_graph=True)
        total += grad.flatten(1)[:, j].cpu()
    return total
