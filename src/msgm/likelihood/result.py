"""What a likelihood run returns: values, their noise, what they cost, and whether to trust them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Likelihood:
    """Log-likelihoods of B images, and how far to trust them. All tensors are on the CPU, floats in float64."""

    nats: Tensor
    """log p of each image in model space, (B,); nan where the solver did not finish."""
    bits_per_dim: Tensor | None
    """-nats / (d ln 2) + `Space.bits_offset` of each uint8 image, (B,); None for floats, which are not dequantised."""
    stderr: Tensor
    """Standard error of each headline value over the repeats, (B,); nan when repeats = 1."""
    doubling: Tensor
    """Headline value with about twice the steps (see `log_likelihood`) minus that without, for each checked image."""
    nfe: Tensor
    """Network evaluations for one draw of a reported value, mean over the repeats, (B,)."""
    finished: Tensor
    """Whether the solver reached t = 1 within its budget of evaluations, in every repeat; bool (B,)."""
    dims: int
    """Numbers in one image, d."""

    @property
    def values(self) -> Tensor:
        """The headline values, (B,): bits/dim of uint8 images, nats otherwise."""
        return self.nats if self.bits_per_dim is None else self.bits_per_dim

    def mean(self) -> tuple[float, float]:
        """Mean of the headline values and its standard error over images (nan for one image)."""
        return mean_and_error(self.values)

    @property
    def reliable(self) -> bool:
        """Whether step doubling vouches for the mean.

        True when values are finite, something was checked, and the mean change on doubling the steps plus
        two of its standard errors is within 0.05 bits/dim (for nats, that times d ln 2) or 1 % of the mean,
        whichever is larger. A diverged network, too coarse a grid and an image that did not finish fail; so
        does a check too noisy to tell: check more images.
        """
        if len(self.doubling) == 0 or not bool(self.values.isfinite().all() & self.doubling.isfinite().all()):
            return False
        unit = self.dims * math.log(2) if self.bits_per_dim is None else 1.0
        change, error = mean_and_error(self.doubling)
        error = 0.0 if math.isnan(error) else error
        return abs(change) + 2 * error <= max(0.05 * unit, 0.01 * abs(self.mean()[0]))


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of values (B,) and its standard error, nan for one value."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error
