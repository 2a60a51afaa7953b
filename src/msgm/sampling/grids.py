"""Grids: the times that a sampler visits, from t = 1 down to the process' t_min, float64 (steps,)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..process.sde import DDPM, SDE

Grid = Literal["uniform", "edm", "log-snr", "discrete"]


def uniform(sde: SDE, steps: int) -> Tensor:
    """Uniform in t (Song et al. 2021)."""
    return torch.linspace(1, sde.t_min, steps, dtype=torch.float64)


def edm(sde: SDE, steps: int, rho: float = 7.0) -> Tensor:
    """Uniform in r^(1/rho), r = sigma / alpha (Karras et al. 2022, Eq. 5): most times where images take shape."""
    high, low = (_ends(sde) / rho).exp()
    roots = torch.linspace(0, 1, steps, dtype=torch.float64).mul(low - high).add(high)
    return _times(sde, rho * roots.log())


def log_snr(sde: SDE, steps: int) -> Tensor:
    """Uniform in log(sigma / alpha) (Lu et al. 2022, Sec. 3.4)."""
    high, low = _ends(sde)
    return _times(sde, torch.linspace(0, 1, steps, dtype=torch.float64).mul(low - high).add(high))


def discrete(sde: SDE, steps: int) -> Tensor:
    """`uniform`; for DDPM rounded to the steps that its network was trained at, none of them twice."""
    times = uniform(sde, steps)
    return sde.nearest(times).unique().flip(0) if isinstance(sde, DDPM) else times


GRIDS: dict[Grid, Callable[[SDE, int], Tensor]] = {
    "uniform": uniform,
    "edm": edm,
    "log-snr": log_snr,
    "discrete": discrete,
}


def _ends(sde: SDE) -> Tensor:
    """log(sigma / alpha) at t = 1 and t_min."""
    return sde.log_ratio(torch.tensor([1.0, sde.t_min], dtype=torch.float64))


def _times(sde: SDE, log_ratios: Tensor) -> Tensor:
    times = sde.time(log_ratios)
    times[0], times[-1] = 1.0, sde.t_min
    return times
