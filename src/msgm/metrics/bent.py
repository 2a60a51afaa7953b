"""How far the shares of the kept classes are bent: total variation distance of two samples, with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError

DRAWS = 2000
"""Of the bootstrap."""


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """``½ Σ_k |p_k - q_k|`` of shares in the last dimension."""
    return (p - q).abs().sum(-1) / 2


def bent_shares(
    counts: Sequence[int], reference: Sequence[int], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Total variation distance of the shares behind two vectors of counts: value, and the interval's ends.

    Both sets are drawn again from their own shares (bootstrap of two multinomials). The distance of two samples
    exceeds that of their laws, the more so the smaller it is: of equal laws with K equal shares it is about
    ``√(K (1/n + 1/m) / 2π)``. The bootstrap shows this bias b. Its upper quantile q is the interval's upper end, and
    mirrored at the value T less its bias, ``2 (T - b) - q``, the lower one. In simulations it holds the truth in 95 %
    or more, at 0 and where a class is gone, too. Raises UserError for an empty set or two lengths.
    """
    if len(counts) != len(reference) or not sum(counts) or not sum(reference):
        raise UserError(
            f"two sets of counts must be of the same classes, each with at least one image; got {list(counts)} and "
            f"{list(reference)}"
        )
    generator = torch.Generator().manual_seed(seed)
    pairs = [torch.tensor(each, dtype=torch.float64) for each in (counts, reference)]
    value = float(total_variation(*(each / each.sum() for each in pairs)))
    again = total_variation(*(_drawn(each, generator) for each in pairs))
    upper = float(again.quantile((1 + confidence) / 2))
    bias = max(0.0, float(again.mean()) - value)
    return value, max(0.0, 2 * (value - bias) - upper), min(1.0, upper)


def _drawn(counts: Tensor, generator: torch.Generator) -> Tensor:
    """Shares of `DRAWS` samples as large as this one, drawn from its shares: (DRAWS, K)."""
    n = int(counts.sum())
    drawn = torch.multinomial(counts, DRAWS * n, replacement=True, generator=generator).view(DRAWS, n)
    found = torch.zeros(DRAWS, len(counts), dtype=torch.float64)
    return found.scatter_add_(1, drawn, torch.ones(DRAWS, n, dtype=torch.float64)) / n
