"""Combiners: how what the forget data ask meets what the retain data ask."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """alpha L_g + (1 - alpha) L_f (paper Eq. 9), L_f on every ``every``-th step only (``every=1``: simultaneous)."""

    alpha: float = 0.99
    every: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise UserError(f"alpha is the weight of the retain loss, in (0, 1]; got {self.alpha}")
        if self.every < 1:
            raise UserError(f"every counts steps, 1 or more; got {self.every}")

    def due(self, step: int) -> bool:
        """Whether the forget loss takes part in this step (the first is step 0)."""
        return step % self.every == 0

    def __call__(self, retain: Tensor, forget: Tensor | None) -> Tensor:
        return self.alpha * retain + (1 - self.alpha) * forget if forget is not None else self.alpha * retain
