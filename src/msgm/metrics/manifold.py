"""Do the samples look like the data, and are all of the data there: precision and recall, density and coverage."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError

CHUNK = 1024
"""Rows of a distance matrix that are held at a time."""


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of features real (N, F) and fake (M, F) (Kynkäänniemi et al. 2019).

    The manifold of a set is the union of balls around its points, each as large as the distance to its k-th nearest
    neighbour in the set, itself not counted. Precision is the share of fake points in the real manifold, recall the
    share of real points in the fake one. Raises UserError for other shapes and for k of a set's size or more.
    """
    reals, fakes = _checked(real, fake, k)
    return _inside(fakes, reals, radii(reals, k)), _inside(reals, fakes, radii(fakes, k))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of features real (N, F) and fake (M, F) (Naeem et al. 2020).

    Balls as in `precision_recall`, around the real points alone. Density is ``1/(k M) Σ_j #{i: y_j in ball_i}``: about
    1 for equal laws, and it may exceed 1. Coverage is the share of the balls that hold a fake point. One real outlier
    does not make either large. Raises UserError as `precision_recall` does.
    """
    reals, fakes = _checked(real, fake, k)
    reach = radii(reals, k)
    held = [(torch.cdist(reals, part) <= reach[:, None]) for part in fakes.split(CHUNK)]
    hits = sum(float(part.sum()) for part in held)
    covered = torch.stack([part.any(1) for part in held]).any(0)
    return hits / (k * len(fakes)), float(covered.double().mean())


def radii(x: Tensor, k: int) -> Tensor:
    """Distance of each point of x (N, F) to its k-th nearest neighbour in x: (N,)."""
    # The nearest of all is the point itself.
    parts = [torch.cdist(part, x).kthvalue(k + 1, dim=1).values for part in x.split(CHUNK)]
    return torch.cat(parts)


def _inside(points: Tensor, centres: Tensor, reach: Tensor) -> float:
    """Share of the points in at least one ball."""
    found = [(torch.cdist(part, centres) <= reach).any(1) for part in points.split(CHUNK)]
    return float(torch.cat(found).double().mean())


def _checked(real: Tensor, fake: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(
            f"features must be (N, F) and (M, F) of one network; got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    if not 1 <= k < min(len(real), len(fake)):
        raise UserError(f"k must be 1 or more, and less than the {min(len(real), len(fake))} points of a set; got {k}")
    return real.detach().double(), fake.detach().double()
