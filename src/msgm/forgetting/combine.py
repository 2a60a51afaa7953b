"""Combiners: how what the forget data ask meets what the retain data ask.

A combiner says when the forget loss takes part (`due`), which losses are differentiated (`parts`: a weighted sum is one
loss and costs one backward pass), and which direction their gradients make (`direction`). Gradients are flat vectors of
all weights; the optimiser steps against the direction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UserError

Probe = Callable[[Tensor], Tensor]
"""The gradient of this step's forget loss where the weights are moved by a flat vector."""


@dataclass(frozen=True, kw_only=True)
class Combiner(ABC):
    """Meets the gradients g_r and g_f on every ``every``-th step; on the others the retain gradient is alone.

    Args:
        every: steps from one forget loss to the next.
    """

    every: int = 1

    separate: ClassVar[bool] = False
    """Whether each loss has an optimiser of its own."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every counts steps, 1 or more; got {self.every}")

    def due(self, step: int) -> bool:
        """Whether the forget loss takes part in this step (the first is step 0)."""
        return step % self.every == 0

    def parts(self, retain: Tensor, forget: Tensor | None) -> list[Tensor]:
        """The losses that are differentiated, one backward pass each."""
        return [retain] if forget is None else [retain, forget]

    def direction(self, gradients: list[Tensor], probe: Probe) -> list[Tensor]:
        """What each optimiser is given, from the gradients of `parts`."""
        return [self.meet(gradients[0], gradients[1], probe)] if len(gradients) == 2 else gradients

    @abstractmethod
    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        """The direction made of g_r and g_f."""


@dataclass(frozen=True, kw_only=True)
class Weighted(Combiner):
    """alpha L_g + (1 - alpha) L_f (paper Eq. 9), L_f on every ``every``-th step only (``every=1``: simultaneous).

    ``separate`` gives L_f an Adam of its own. As the length of Adam's step does not depend on the scale of a loss, L_f
    then moves the weights as far as L_g does in each step it takes part in, whatever alpha: for studies of that.

    Args:
        alpha: weight of the retain loss, in (0, 1].
        separate: an Adam of its own for the forget loss.
    """

    alpha: float = 0.7
    separate: bool = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise UserError(f"alpha is the weight of the retain loss, in (0, 1]; got {self.alpha}")

    def parts(self, retain: Tensor, forget: Tensor | None) -> list[Tensor]:
        if forget is None or not self.separate:
            return [self(retain, forget)]
        return [self.alpha * retain, (1 - self.alpha) * forget]

    def direction(self, gradients: list[Tensor], probe: Probe) -> list[Tensor]:
        return gradients

    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        return self.alpha * retain + (1 - self.alpha) * forget

    def __call__(self, retain: Tensor, forget: Tensor | None) -> Tensor:
        return self.alpha * retain + (1 - self.alpha) * forget if forget is not None else self.alpha * retain


@dataclass(frozen=True, kw_only=True)
class Turns(Combiner):
    """One loss at a time: the forget loss alone on every ``every``-th step, the retain loss alone on the others.

    ``every=1`` leaves the retain loss out altogether.
    """

    def parts(self, retain: Tensor, forget: Tensor | None) -> list[Tensor]:
        return [retain if forget is None else forget]

    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        return forget


@dataclass(frozen=True, kw_only=True)
class Adaptive(Combiner):
    """EraseDiff's multiplier: g_r + max(0, eta - <g_r, g_f> / |g_f|^2) g_f (Wu et al. 2024).

    It is as large as needed for the step to lower the forget loss: <direction, g_f> >= eta |g_f|^2. With ``inner`` = K,
    the K-step form, g_f is the gradient of what K descent steps of length ``rate`` on the forget loss would gain,
    ``grad L_f(theta) - grad L_f(theta_K)`` with theta_K held fixed: at the end of forgetting it vanishes.

    Args:
        eta: least share of the forget gradient that a step follows.
        inner: descent steps that g_f looks ahead; 0 for none.
        rate: length of these steps.
    """

    eta: float = 1e-3
    inner: int = 0
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.eta > 0 and self.inner >= 0 and self.rate > 0):
            raise UserError(f"eta and rate must be positive, inner 0 or more; got {self}")

    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        gain = forget
        if self.inner:
            ahead, shift = forget, torch.zeros_like(forget)
            for _ in range(self.inner):
                shift = shift - self.rate * ahead
                ahead = probe(shift)
            gain = forget - ahead
        square = gain.dot(gain)
        multiplier = (self.eta - retain.dot(gain) / square.clamp(min=_TINY)).clamp(min=0)
        return retain + multiplier * gain


@dataclass(frozen=True, kw_only=True)
class NormFixed(Combiner):
    """g_r + share |g_r| g_f / |g_f|: the forget gradient at a fixed length, as in SISS (Alberti et al. 2025).

    Args:
        share: length of the forget gradient over that of the retain gradient.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share < math.inf:
            raise UserError(f"share is the length of the forget gradient over the retain one's; got {self.share}")

    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        length: Tensor = self.share * retain.norm() / forget.norm().clamp(min=_TINY)
        return retain + length * forget


@dataclass(frozen=True, kw_only=True)
class Bargain(Combiner):
    """MUNBa, Nash's bargain of the two losses: (g_r/|g_r| + g_f/|g_f|) / sqrt(1 + cos) (Wu and Harandi 2025).

    It maximises the product of what both gain, log <d, g_r> + log <d, g_f>, over directions of length sqrt(2), and so
    lowers both unless they are opposite.
    """

    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        r: Tensor = retain / retain.norm().clamp(min=_TINY)
        f: Tensor = forget / forget.norm().clamp(min=_TINY)
        return (r + f) / (1 + r.dot(f)).clamp(min=1e-6).sqrt()


@dataclass(frozen=True, kw_only=True)
class PCGrad(Combiner):
    """alpha g_r + (1 - alpha) g_f, where they conflict each without its part along the other (Yu et al. 2020).

    Args:
        alpha: weight of the retain gradient, in (0, 1).
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha is the weight of the retain gradient, in (0, 1); got {self.alpha}")

    def meet(self, retain: Tensor, forget: Tensor, probe: Probe) -> Tensor:
        r, f = self.alpha * retain, (1 - self.alpha) * forget
        along = r.dot(f).clamp(max=0)
        return r + f - along / f.dot(f).clamp(min=_TINY) * f - along / r.dot(r).clamp(min=_TINY) * r


_TINY = 1e-30
