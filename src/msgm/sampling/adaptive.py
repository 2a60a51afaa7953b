"""Dormand and Prince's pair of orders 5 and 4 with a step size for each image.

Library solvers control the step by a norm over the whole batch, so that an image's value depends on those beside
it. Here each image has its own error, step and end, and leaves the batch when it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..sde import expand

Slope = Callable[[Tensor, Tensor], Tensor]
"""dy/du (B, *) from u (B,) and y (B, *)."""

# Dormand and Prince 1980, Table 2: nodes, stages (the last is the solution of order 5), and its difference to order 4.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def attempt(slope: Slope, u: Tensor, y: Tensor, h: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of h (B,): y at u + h of order 5, the estimate of its error, and the slope there; ``first`` is at u.

    Costs 6 evaluations.
    """
    stages, width = [first], expand(h.to(y), y)
    for node, weights in zip(_NODES, _STAGES, strict=True):
        ahead = y + width * _sum(weights, stages)
        stages.append(slope(u + node * h, ahead))
    return ahead, width * _sum(_ERROR, stages), stages[-1]


def _sum(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    return torch.stack([w * k for w, k in zip(weights, stages, strict=True) if w]).sum(0)


def integrate(
    slope: Slope, y: Tensor, start: float, end: float, *, tolerance: float, most: int
) -> tuple[Tensor, Tensor]:
    """y (B, *) at u = ``end`` from y at u = ``start``, and the evaluations that each image took, (B,).

    A step is taken where the root mean square of error / (tolerance (1 + max |y|)) over the image's numbers is at
    most 1; the next is ``0.9 error^(-1/5)`` times as long, within 0.2 to 5. Raises UserError where an image needs
    more than ``most`` evaluations.
    """
    out, used = y.clone(), torch.ones(len(y), dtype=torch.long)
    index = torch.arange(len(y))
    u = torch.full((len(y),), start, dtype=torch.float64)
    h = torch.full((len(y),), (end - start) / 20, dtype=torch.float64)
    k = slope(u, y)
    while len(index):
        last = (end - u).abs() <= h.abs()
        h = torch.where(last, end - u, h)
        ahead, error, k_ahead = attempt(slope, u, y, h, k)
        scale = tolerance * (1 + torch.maximum(y.abs(), ahead.abs()))
        ratio = (error / scale).flatten(1).square().mean(1).sqrt().cpu().double()
        # A ratio that is not a number counts as too large.
        taken = ratio <= 1
        used[index] += 6
        if bool(used.max() > most):
            raise UserError(
                f"an image needs more than {most} evaluations at tolerance {tolerance}; raise the tolerance, or use "
                "a sampler of fixed steps"
            )
        grow = torch.where(ratio.isfinite(), 0.9 * ratio.clamp(min=1e-10) ** -0.2, 0.2).clamp(0.2, 5)
        here = expand(taken.to(y.device), y)
        y, k = torch.where(here, ahead, y), torch.where(here, k_ahead, k)
        u, h = torch.where(taken, u + h, u), h * grow
        done = taken & last
        if bool(done.any()):
            out[index[done]] = y[done.to(y.device)]
            stay = ~done
            index, u, h = index[stay], u[stay], h[stay]
            y, k = y[stay.to(y.device)], k[stay.to(y.device)]
    return out, used
