"""SISS: one forget image for each retained one, at the same time and noise, and weights that tell them apart.

Both images, x and a, are noised with the same eps and t. The two points m are a sample of the mixture
``(1 - mix) q(m | x) + mix q(m | a)``; weighted by the density of one image's noise over that of the mixture,

    w_x(m) = q(m | x) / q(m) = 1 / ((1 - mix) + mix e^D),    D = log q(m | a) / q(m | x) = d_x - d_a,
    w_a(m) = q(m | a) / q(m) = 1 / ((1 - mix) e^-D + mix),   d_x = |m - alpha x|^2 / 2 sigma^2,

the losses of both images can be read at both points (Alberti et al. 2025). At small noise D is thousands
and more; a sigmoid does not overflow. Here each half of a step is weighted by its share of the mixture, where the paper
draws one of the two points at random: the same expectation, with less variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..process.sde import expand
from .batch import Noised
from .terms import Denoising, ForgetTerm, per_image


def paired_errors(retain: Noised, forget: Noised, mix: float) -> tuple[Tensor, Tensor]:
    """Importance-weighted squared errors of x and of a, (B,) each; the two halves share t and eps."""
    delta = (retain.x - forget.x) / expand(retain.sigma, retain.x)  # alpha (x - a) / sigma
    half, cross = 0.5 * delta.square().flatten(1).sum(1), (delta * retain.eps).flatten(1).sum(1)
    odds = torch.logit(torch.tensor(mix, dtype=delta.dtype, device=delta.device))
    total_x, total_a = torch.zeros_like(half), torch.zeros_like(half)
    points = (
        (1 - mix, retain.predicted, -half - cross, retain.eps, retain.eps + delta),  # m = x_t
        (mix, forget.predicted, half - cross, retain.eps - delta, retain.eps),  # m = a_t
    )
    for share, noise, d, to_x, to_a in points:
        total_x = total_x + share / (1 - mix) * torch.sigmoid(-odds - d) * per_image((noise - to_x).square())
        total_a = total_a + share / mix * torch.sigmoid(odds + d) * per_image((noise - to_a).square())
    return total_x, total_a


def _check(mix: float) -> None:
    if not 0 < mix < 1:
        raise UserError(f"mix is the share of forget points in the mixture, in (0, 1); got {mix}")


@dataclass(frozen=True, kw_only=True)
class PairedDenoising(Denoising):
    """The retain loss at both points of each pair; without pairs the ordinary one."""

    mix: float = 0.5

    def __post_init__(self) -> None:
        _check(self.mix)

    def each(self, batch: Noised) -> Tensor:
        return super().each(batch) if batch.pair is None else paired_errors(batch, batch.pair, self.mix)[0]


@dataclass(frozen=True, kw_only=True)
class PairedAscent(ForgetTerm):
    """Minus the weighted error of the forget images at both points, with the retain loss' weight over time."""

    mix: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.mix)

    @property
    def pairs(self) -> bool:
        return True

    @property
    def bounded(self) -> bool:
        return False

    def each(self, batch: Noised, retained: Tensor) -> Tensor:
        assert batch.pair is not None
        return -Denoising().level(batch) * paired_errors(batch.pair, batch, self.mix)[1]
