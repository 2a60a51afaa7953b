"""Rates with their error: Wilson's interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of ``n`` draws, in [0, 1], with its confidence interval ``low``..``high``."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(k: float, n: int, confidence: float = 0.95) -> Rate:
    """The rate k / n with Wilson's score interval (Wilson 1927), which holds at k = 0 and k = n too.

    ``(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`` with p = k/n and z the normal quantile.
    """
    if n < 1 or not 0 <= k <= n:
        raise UserError(f"a rate needs 0 <= k <= n and n >= 1, got k = {k} of n = {n}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must be between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, scale = k / n, 1 + z * z / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the exact limits are 0 and 1; rounding must not leave the interval beside its value.
    low = 0.0 if k == 0 else (middle - half) / scale
    high = 1.0 if k == n else (middle + half) / scale
    return Rate(value=p, low=low, high=high, n=n)
