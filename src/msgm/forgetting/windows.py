"""One term above a noise level and another below it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .batch import Noised, Start
from .terms import ForgetTerm


@dataclass(frozen=True, kw_only=True)
class Windows(ForgetTerm):
    """``above`` where r = sigma / alpha is at least ``at``, ``below`` where it is less: any two terms.

    ``share`` is what the lower one's loss counts; with ``sure`` k that times P(forget | x_t)^k, where the upper term
    can tell it (`ForgetTerm.certain`): what is not recognised yet is not forbidden.

    Each sees the whole batch; the images outside its own windows, or of
    this one, count nothing in it.

    Args:
        at: noise level sigma/alpha that parts the two terms.
        share: what the lower term's loss counts.
        sure: how much less it counts where a point might be one to retain; 0 for no less.
    """

    above: ForgetTerm
    below: ForgetTerm
    at: float = 0.5
    share: float = 1.0
    sure: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.at < math.inf and 0 <= self.share < math.inf):
            raise UserError(f"at is a noise level and share a weight, positive and finite; got {self.at}, {self.share}")
        if not 0 <= self.sure < math.inf:
            raise UserError(f"sure must be 0 or more, and finite; got {self.sure}")

    @property
    def pairs(self) -> bool:
        return self.above.pairs or self.below.pairs

    @property
    def recalls(self) -> bool:
        return self.above.recalls or self.below.recalls

    @property
    def needs(self) -> str:
        asked = [word for term in (self.above, self.below) for word in term.needs.split(", ") if word]
        return ", ".join(dict.fromkeys(asked))

    @property
    def bounded(self) -> bool:
        return self.above.bounded and self.below.bounded

    @property
    def found(self) -> dict[str, Any]:
        return {**self.below.found, **self.above.found}

    def prepare(self, start: Start) -> Windows:
        """Both terms with what they work out before the first step."""
        return replace(self, above=self.above.prepare(start), below=self.below.prepare(start))

    def each(self, batch: Noised) -> Tensor:
        low = batch.ratio < self.at
        loss = torch.zeros_like(batch.ratio)
        # Each sees the whole batch: a network that is compiled, or tuned to its input, wants one size of it.
        sure = self.above.certain(batch) if self.sure else None
        below = self.share if sure is None else self.share * sure**self.sure
        both = ((self.above, ~low, 1.0), (self.below, low, below))
        for term, chosen, share in both if self.share else both[:1]:
            each = share * term.weight(batch.ratio) * term.each(batch)
            loss = loss + torch.where(chosen, each, torch.zeros_like(each))
        return loss
