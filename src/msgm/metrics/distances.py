"""Distances between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to features a (N, F) and b (M, F), in float64.

    ``|μa - μb|² + tr(Sa + Sb - 2 (Sa Sb)^½)`` (Dowson and Landau 1982), with unbiased covariances. The last
    trace is the sum of the singular values of ``Sa^½ Sb^½``, the roots taken by eigen-decomposition: real,
    and as exact for singular covariances (fewer samples than features) as for any.
    """
    for name, features in (("a", a), ("b", b)):
        if features.ndim != 2 or len(features) < 2 or not bool(features.isfinite().all()):
            raise UserError(f"features {name} must be finite, of shape (N, F) with N >= 2; got {tuple(features.shape)}")
    if a.shape[1] != b.shape[1]:
        raise UserError(f"features must come from the same network: a has {a.shape[1]} columns, b {b.shape[1]}")
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    cross = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    total = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(total))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    x = features.detach().cpu().double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix; eigenvalues below zero are rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
