"""Combiners: how what the forget data ask meets what the retain data ask."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """alpha L_g + (1 - alpha) L_f (paper Eq. 9), L_f on every ``every``-th step only (``every=1``: simultaneous).

    ``separate`` gives L_f an Adam of its own. As the length of Adam's step does not depend on the scale of a loss, L_f
    then moves the weights as far as L_g does in each step it takes part in, whatever alpha: for studies of that.
    """

    alpha: float = 0.99
    every: int = 4
    separate: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise UserError(f"alpha is the weight of the retain loss, in (0, 1]; got {self.alpha}")
        if self.every < 1:
            raise UserError(f"every counts steps, 1 or more; got {self.every}")

    def due(self, step: int) -> bool:
        """Whether the forget loss takes part in this step (the first is step 0)."""
        return step % self.every == 0

    def parts(self, retain: Tensor, forget: Tensor | None) -> list[Tensor]:
        """What each optimiser is given: the whole loss, or its two terms if they are ``separate``."""
        if forget is None or not self.separate:
            return [self(retain, forget)]
        return [self.alpha * retain, (1 - self.alpha) * forget]

    def __call__(self, retain: Tensor, forget: Tensor | None) -> Tensor:
        return self.alpha * retain + (1 - self.alpha) * forget if forget is not None else self.alpha * retain
