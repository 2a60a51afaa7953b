"""Explicit Runge-Kutta methods for a state y (B, *) and an integral beside it: on fixed grids, or adaptive by image.

The slopes ``f(tau, y)`` are two: dy/dtau (B, *), and the integrand, float64 (B,) on the CPU as tau is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from .sde import expand

Pair = tuple[Tensor, Tensor]


class Rowwise(Protocol):
    """Slopes of the images ``rows`` of a batch, (R,) of its numbers, at tau (R,) and y (R, *)."""

    def __call__(self, tau: Tensor, y: Tensor, rows: Tensor) -> Pair: ...


@dataclass(frozen=True)
class Tableau:
    """A Butcher tableau: nodes c, coupling a, weights b."""

    nodes: tuple[float, ...]
    coupling: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


FIXED = {
    "euler": Tableau((0,), ((),), (1,)),
    "heun": Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "rk4": Tableau((0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}

# Dormand and Prince 1980. The weights are the last row of the coupling: a step's last slope is the next one's first.
DOPRI5 = Tableau(
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
)
DOPRI5_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Fifth-order weights minus those of the embedded fourth-order method."""


def march(
    f: Callable[[Tensor, Tensor], Pair], y: Tensor, grid: Tensor, method: Tableau, tick: Callable[[float], None]
) -> Pair:
    """y at the end of a grid of tau and the integral, float64 (B,); ``tick`` is called with shares that sum to B."""
    change = torch.zeros(len(y), dtype=torch.float64)
    for a, b in pairwise(grid):
        slopes = _stages(f, a, y, b - a, method, [])
        y = y + _combine(slopes, method.weights, b - a, 0)
        change += _combine(slopes, method.weights, b - a, 1)
        tick(len(y) / (len(grid) - 1))
    return y, change


def march_exponential(
    f: Callable[[Tensor, Tensor], Pair], y: Tensor, grid: Tensor, tick: Callable[[float], None]
) -> Pair:
    """`march` for dy/du = r N(y, u), u = log r, on a grid of u: fourth order, and exact where N is constant.

    With z = y / r it is dz/du = -z + N, for which this is ETDRK4 (Cox and Matthews 2002, Eq. 26-29): every stage lies
    on the line y + (r' - r) N that noise of a known kind follows, so it has the noise of its own level. Classical
    stages do not, and a network's divergence there is another. The integral is taken by Simpson's rule in u.
    """
    change = torch.zeros(len(y), dtype=torch.float64)
    for a, b in pairwise(grid):
        h, middle = float(b - a), (a + b) / 2
        r, half, full = (float(u.exp()) for u in (a, middle, b))
        phi1 = -math.expm1(-h) / h
        phi2 = (1 - phi1) / h
        phi3 = (1 / 2 - phi2) / h
        k1, d1 = f(a, y)
        n1 = k1 / r
        y2 = y + (half - r) * n1
        k2, d2 = f(middle, y2)
        k3, d3 = f(middle, y + (half - r) / half * k2)
        n23 = (k2 + k3) / half
        k4, d4 = f(b, y2 + (full - half) * (2 / half * k3 - n1))
        y = y + full * h * (
            (phi1 - 3 * phi2 + 4 * phi3) * n1 + 2 * (phi2 - 2 * phi3) * n23 + (4 * phi3 - phi2) / full * k4
        )
        change += h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        tick(len(y) / (len(grid) - 1))
    return y, change


def attempt(
    f: Callable[[Tensor, Tensor], Pair], tau: Tensor, y: Tensor, h: Tensor, first: Pair
) -> tuple[Pair, Pair, Pair]:
    """One step of Dormand and Prince, of length h (B,): what y and the integral change by, to fifth order, the
    estimated errors of both, and the slopes at its end; ``first`` are those at its start. Costs 6 evaluations.
    """
    slopes = _stages(f, tau, y, h, DOPRI5, [first])
    moved = _combine(slopes, DOPRI5.weights, h, 0), _combine(slopes, DOPRI5.weights, h, 1)
    wrong = _combine(slopes, DOPRI5_ERROR, h, 0), _combine(slopes, DOPRI5_ERROR, h, 1)
    return moved, wrong, slopes[-1]


def adapt(
    f: Rowwise,
    y: Tensor,
    start: Tensor,
    end: Tensor,
    *,
    rtol: float,
    atol: float,
    max_nfe: int,
    tick: Callable[[float], None] = lambda amount: None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Dormand-Prince 5(4) with a step size for each image: y, the integral, evaluations and whether it ended, (B,).

    ``f(tau, y, rows)`` is also told which images it is asked for, those that are still on their way.

    A step is accepted when its error e <= 1, the larger of the root mean square of the error of y, in units of
    ``atol + rtol max(|y|, |y'|)``, and the error of the integral over d, in the like unit of itself; the next step is
    0.9 e^(-1/5) times as long, within 0.2 and 5 (Hairer, Norsett and Wanner, Solving ODEs I, II.4). An image that has
    arrived leaves the batch, and so does one that a further step could take beyond ``max_nfe`` evaluations.
    """
    size, dims, span = len(y), y[0].numel(), float(end - start)
    y, change = y.clone(), torch.zeros(size, dtype=torch.float64)
    tau, step = start.repeat(size), torch.full((size,), span / 100, dtype=torch.float64)
    nfe, rows = torch.ones(size, dtype=torch.int64), torch.arange(size)
    slope, rate = f(tau, y, rows)
    while len(rows := rows[(tau[rows] < end) & (nfe[rows] + 6 <= max_nfe)]):
        h, here, before = torch.minimum(step[rows], end - tau[rows]), y[rows], change[rows]
        moved, wrong, last_slopes = attempt(partial(f, rows=rows), tau[rows], here, h, (slope[rows], rate[rows]))
        nfe[rows] += 6
        there, after = here + moved[0], before + moved[1]
        unit = atol + rtol * torch.maximum(here.abs(), there.abs())
        error = (wrong[0] / unit).flatten(1).double().square().mean(1).sqrt().cpu()
        unit = atol + rtol * torch.maximum(before.abs(), after.abs()) / dims
        error = torch.maximum(error, wrong[1].abs() / dims / unit)
        good = error <= 1  # nan is not: a step into nowhere is tried again, shorter
        done = rows[good]
        last = h >= end - tau[rows]
        tau[rows] = torch.where(good, torch.where(last, end, tau[rows] + h), tau[rows])
        y[done], change[done] = there[good], after[good]
        slope[done], rate[done] = last_slopes[0][good], last_slopes[1][good]
        factor = (0.9 * error.clamp(min=1e-10) ** -0.2).nan_to_num(0.2).clamp(0.2, 5)
        step[rows] = h * factor
        tick(float(h[good].sum()) / span)
    return y, change, nfe, tau >= end


def _stages(
    f: Callable[[Tensor, Tensor], Pair], tau: Tensor, y: Tensor, h: Tensor, method: Tableau, slopes: list[Pair]
) -> list[Pair]:
    """The slopes at all nodes of a step of length h, () or (B,), after those that are known."""
    for node, row in list(zip(method.nodes, method.coupling, strict=True))[len(slopes) :]:
        slopes.append(f(tau + node * h, y + _combine(slopes, row, h, 0) if row else y))
    return slopes


def _combine(slopes: list[Pair], weights: tuple[float, ...], h: Tensor, which: int) -> Tensor:
    """h sum_j weights_j slopes_j, of y (which = 0) or of the integral (1)."""
    parts = [weight * slope[which] for weight, slope in zip(weights, slopes, strict=True) if weight]
    return expand(h.to(parts[0]), parts[0]) * sum(parts[1:], parts[0])
