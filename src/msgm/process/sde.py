"""The forward processes: how an image becomes noise.

Every process here has the marginal ``x_t = alpha(t) x_0 + sigma(t) eps`` with ``eps ~ N(0, I)`` and ``t`` in
``[0, 1]``. It is the solution of ``dx = c(t) x dt + g(t) dw`` (Song et al., ICLR 2021, Eq. 5 and 33) with

    c = d log(alpha) / dt,        g^2 = d sigma^2 / dt - 2 c sigma^2.

All functions take a tensor of times of any shape and floating type and return one of the same kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Values of shape ``()`` or ``(B,)`` shaped so that they multiply a tensor ``(B, *)``."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values


@dataclass(frozen=True, kw_only=True)
class SDE(ABC):
    """A forward process; a subclass gives ``log_alpha``, ``log_ratio``, their inverse and derivatives."""

    t_min: ClassVar[float]
    """Where sampling and likelihood stop; training draws times down to it or lower (see ``t_train``)."""
    t_train: ClassVar[float] = 1e-5

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise in x_t."""

    @abstractmethod
    def time(self, log_ratio: Tensor) -> Tensor:
        """The t at which log(sigma/alpha) has this value: the inverse of `log_ratio`."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """c(t) in dx = c(t) x dt + g(t) dw."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """g(t) in dx = c(t) x dt + g(t) dw."""

    @abstractmethod
    def label(self, t: Tensor) -> Tensor:
        """What networks of the field expect as their time input for this process."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the Gaussian that x_1 is taken to follow."""
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the image in x_t."""
        return self.log_alpha(t).exp()

    def log_ratio(self, t: Tensor) -> Tensor:
        """log(sigma/alpha), minus half the log signal-to-noise ratio; increases with t."""
        return self.sigma(t).log() - self.log_alpha(t)

    def marginal(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha(t) x_0 + sigma(t) eps; shapes (B, *), t of shape () or (B,)."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps


@dataclass(frozen=True, kw_only=True)
class VESDE(SDE):
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    t_min: ClassVar[float] = 1e-5

    @property
    def _span(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.log_ratio(t).exp()

    def log_ratio(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + self._span * t

    def time(self, log_ratio: Tensor) -> Tensor:
        return (log_ratio - math.log(self.sigma_min)) / self._span

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self._span)

    def label(self, t: Tensor) -> Tensor:
        return self.sigma(t)


@dataclass(frozen=True, kw_only=True)
class VPSDE(SDE):
    """Variance preserving: alpha = exp(-B/2), sigma^2 = 1 - alpha^2, B = beta_min t + (beta_max - beta_min) t^2/2."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    t_min: ClassVar[float] = 1e-3

    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def time(self, log_ratio: Tensor) -> Tensor:
        # alpha = (1 + r^2)^(-1/2), hence B = log(1 + r^2).
        return self._time_of_integral(torch.nn.functional.softplus(2 * log_ratio))

    def _time_of_integral(self, b: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * b / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * b))

    def drift(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.beta(t).sqrt()

    def label(self, t: Tensor) -> Tensor:
        return 999 * t


@dataclass(frozen=True, kw_only=True)
class SubVPSDE(VPSDE):
    """Sub-VP: alpha as VP, sigma = 1 - alpha^2 (Song et al. 2021, Eq. 29)."""

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def time(self, log_ratio: Tensor) -> Tensor:
        # alpha^2 + r alpha - 1 = 0, hence alpha = 2 / (r + sqrt(r^2 + 4)) = exp(-asinh(r / 2)).
        return self._time_of_integral(2 * torch.asinh(log_ratio.exp() / 2))

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(self.beta(t) * -torch.expm1(4 * self.log_alpha(t)))


Schedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


@lru_cache(maxsize=16)
def _log_alphas(
    steps: int, beta_start: float, beta_end: float, schedule: Schedule, dtype: torch.dtype, device: torch.device
) -> Tensor:
    k = torch.arange(steps, dtype=torch.float64)
    if schedule == "squaredcos_cap_v2":
        bar = torch.cos((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    elif schedule == "scaled_linear":
        beta = (beta_start**0.5 + (beta_end**0.5 - beta_start**0.5) * k / (steps - 1)) ** 2
    else:
        beta = beta_start + (beta_end - beta_start) * k / (steps - 1)
    return (0.5 * torch.log1p(-beta).cumsum(0)).to(device, dtype)


@dataclass(frozen=True, kw_only=True)
class DDPM(SDE):
    """Discrete-time DDPM: alpha_k = sqrt(prod_{i<=k} (1 - beta_i)), k = 0 ... steps - 1 (Ho et al. 2020).

    Time is ``t = k / (steps - 1)``; between two steps log alpha is interpolated linearly, so that the samplers and
    the likelihood of the continuous processes apply. ``schedule`` bears the names of diffusers' schedulers.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    schedule: Schedule = "linear"

    t_min: ClassVar[float] = 0.0
    t_train: ClassVar[float] = 0.0

    def _table(self, t: Tensor) -> Tensor:
        return _log_alphas(self.steps, self.beta_start, self.beta_end, self.schedule, t.dtype, t.device)

    def _segment(self, t: Tensor) -> Tensor:
        return (t * (self.steps - 1)).floor().clamp(0, self.steps - 2).long()

    def nearest(self, t: Tensor) -> Tensor:
        """The time of the nearest discrete step."""
        return (t * (self.steps - 1)).round() / (self.steps - 1)

    def log_alpha(self, t: Tensor) -> Tensor:
        table, k = self._table(t), self._segment(t)
        return table[k] + (table[k + 1] - table[k]) * (t * (self.steps - 1) - k)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def time(self, log_ratio: Tensor) -> Tensor:
        table = self._table(log_ratio)
        log_alpha = -0.5 * torch.nn.functional.softplus(2 * log_ratio)
        k = (torch.searchsorted(-table, -log_alpha.contiguous()) - 1).clamp(0, self.steps - 2)
        return (k + (log_alpha - table[k]) / (table[k + 1] - table[k])) / (self.steps - 1)

    def drift(self, t: Tensor) -> Tensor:
        table, k = self._table(t), self._segment(t)
        return (table[k + 1] - table[k]) * (self.steps - 1)

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.sqrt(-2 * self.drift(t))

    def label(self, t: Tensor) -> Tensor:
        return t * (self.steps - 1)


PROCESSES: dict[str, type[SDE]] = {"ve": VESDE, "vp": VPSDE, "subvp": SubVPSDE, "ddpm": DDPM}
