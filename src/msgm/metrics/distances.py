"""Distances between two sets of features: Fréchet's, and of kernel means; and how sure any such number is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to features a (N, F) and b (M, F), in float64.

    ``|μa - μb|² + tr(Sa + Sb - 2 (Sa Sb)^½)`` (Dowson and Landau 1982), with unbiased covariances. The last
    trace is the sum of the singular values of ``Sa^½ Sb^½``, the roots taken by eigen-decomposition: real,
    and as exact for singular covariances (fewer samples than features) as for any.
    """
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(x) for x in _pair(a, b))
    cross = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    total = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(total))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Squared distance of the kernel means of features a (N, F) and b (M, F): unbiased, so it may be below zero.

    ``1/N(N-1) Σ_{i≠j} k(a_i, a_j) + 1/M(M-1) Σ_{i≠j} k(b_i, b_j) - 2/NM Σ k(a_i, b_j)`` (Gretton et al. 2012), with the
    kernel ``(x·y / F + 1)³`` of the kernel Inception distance (Bińkowski et al. 2018). On other features than
    Inception's it is no KID. Raises UserError as `frechet_distance` does.
    """
    x, y = _pair(a, b)

    def kernel(first: Tensor, second: Tensor) -> Tensor:
        return (first @ second.T / first.shape[1] + 1) ** 3

    def within(each: Tensor) -> Tensor:
        k = kernel(each, each)
        return (k.sum() - k.trace()) / (len(each) * (len(each) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def bootstrap(
    statistic: Callable[[Tensor, Tensor], float],
    a: Tensor,
    b: Tensor,
    *,
    draws: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic of two sets of features with its interval: value, low, high.

    Rows of both sets are drawn with repetition. A row that is drawn twice makes distances larger than they are; the
    interval is the bootstrap's, moved by its mean's distance from the value: ``[q_low, q_high] - (mean - value)``.
    Raises UserError for fewer than 2 draws.
    """
    if draws < 2:
        raise UserError(f"an interval needs 2 or more draws; got {draws}")
    generator = torch.Generator().manual_seed(seed)
    value = statistic(a, b)
    again = []
    for _ in range(draws):
        rows = (torch.randint(len(x), (len(x),), generator=generator) for x in (a, b))
        again.append(statistic(*(x[index] for x, index in zip((a, b), rows, strict=True))))
    found = torch.tensor(again, dtype=torch.float64)
    bias = float(found.mean()) - value
    tail = (1 - confidence) / 2
    low, high = (float(found.quantile(q)) - bias for q in (tail, 1 - tail))
    return value, min(low, value), max(high, value)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for name, features in (("a", a), ("b", b)):
        if features.ndim != 2 or len(features) < 2 or not bool(features.isfinite().all()):
            raise UserError(f"features {name} must be finite, of shape (N, F) with N >= 2; got {tuple(features.shape)}")
    if a.shape[1] != b.shape[1]:
        raise UserError(f"features must come from the same network: a has {a.shape[1]} columns, b {b.shape[1]}")
    return a.detach().cpu().double(), b.detach().cpu().double()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix; eigenvalues below zero are rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
