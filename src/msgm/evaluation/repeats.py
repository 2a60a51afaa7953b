"""What several runs say that differ in their seed alone: means with intervals over the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean of n values, its standard error, and its confidence interval; a single value has no error (nan)."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def mean(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """The mean with Student's interval: ``m ± t s / √n``, t the quantile for n - 1 degrees of freedom."""
    from scipy.stats import t

    if not values:
        raise UserError("a mean needs at least one value")
    m, n = fmean(values), len(values)
    if n == 1:
        return Mean(value=m, stderr=math.nan, low=math.nan, high=math.nan, n=1)
    error = stdev(values, m) / math.sqrt(n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return Mean(value=m, stderr=error, low=m - half, high=m + half, n=n)
