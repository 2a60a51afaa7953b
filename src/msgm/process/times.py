"""Draws of training times.

A draw has two parts. First uniform numbers in [0, 1): independent, or *stratified*, the default, one in each of B
equal cells: each is still uniform, and the loss of a batch varies less. Then a *clock* that maps them to times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .sde import DDPM, SDE


def uniform(n: int, generator: torch.Generator) -> Tensor:
    """n independent uniform numbers in [0, 1)."""
    return torch.rand(n, generator=generator, device=generator.device)


def stratified(n: int, generator: torch.Generator) -> Tensor:
    """n uniform numbers in [0, 1), exactly one in each cell [i/n, (i+1)/n), in random order."""
    order = torch.randperm(n, generator=generator, device=generator.device)
    return (order + uniform(n, generator)) / n


class Clock(Protocol):
    """Maps uniform numbers to training times of a process."""

    def __call__(self, u: Tensor, sde: SDE) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class UniformClock:
    """t uniform in [t_train, 1], as in the paper; for DDPM a uniform step k."""

    def __call__(self, u: Tensor, sde: SDE) -> Tensor:
        if isinstance(sde, DDPM):
            return (u * sde.steps).floor().clamp(max=sde.steps - 1) / (sde.steps - 1)
        return sde.t_train + (1 - sde.t_train) * u


@dataclass(frozen=True, kw_only=True)
class LogNormalClock:
    """Importance sampling of noise levels: log(sigma/alpha) ~ N(mean, std), as in EDM (Karras et al. 2022, Table 1).

    A share ``spread`` is drawn uniformly in log(sigma/alpha) over the whole range instead, so that the levels that
    only the likelihood needs are trained as well. DDPM's times are rounded to its steps.
    """

    mean: float = -0.9
    std: float = 1.2
    spread: float = 0.3

    def __call__(self, u: Tensor, sde: SDE) -> Tensor:
        low, high = sde.log_ratio(torch.tensor([sde.t_train, 1.0], dtype=torch.float64)).tolist()
        inner = ((u - self.spread) / (1 - self.spread)).clamp(1e-6, 1 - 1e-6)
        normal = self.mean + self.std * math.sqrt(2) * torch.erfinv(2 * inner - 1)
        level = torch.where(u < self.spread, low + (high - low) * u / max(self.spread, 1e-9), normal)
        t = sde.time(level.clamp(low, high)).clamp(0, 1)
        return sde.nearest(t) if isinstance(sde, DDPM) else t
