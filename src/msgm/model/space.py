"""Between pixels and a model: where a network wants its images to lie, and what that is worth in bits/dim."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Space:
    """Model space: ``x = (pixels + u) scale + shift``, with pixels 0 ... 255 and u in [0, 1).

    The default is [-1, 1), one pixel step being 2^-7. A model of [0, 1) pixels has `UNIT`.
    """

    scale: float = 1 / 128
    shift: float = -1.0

    def __post_init__(self) -> None:
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (self.scale, self.shift))
        if not numbers or not self.scale > 0:
            raise UserError(f"a space has a finite scale above 0 and a finite shift; got {self.scale} and {self.shift}")

    @property
    def bits_offset(self) -> float:
        """An image of density p in model space has -log p(x) / (d ln 2) + this many bits/dim: -log2(scale)."""
        return -math.log2(self.scale)

    @property
    def range(self) -> tuple[float, float]:
        """The ends of the pixels' range."""
        return self.shift, 256 * self.scale + self.shift

    def place(self, pixels: Tensor, u: Tensor | float) -> Tensor:
        """The points x of floating-point pixels (B, *) and their places u in the step, in their precision."""
        return (pixels + u) * self.scale + self.shift

    def to_model(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 pixels (B, *) -> float32 points of model space, dequantised.

        u is uniform on the multiples of 2^-16 in [0, 1), drawn from ``generator`` (on the pixels' device), or 1/2
        without one. For these u, and a scale that is a power of two, float32 holds x exactly, so that `to_pixels` gives
        back the very pixels. Raises UserError for anything but uint8.
        """
        if pixels.dtype != torch.uint8:
            raise UserError(f"images must be uint8, not {pixels.dtype}; model space is reached from pixels only")
        if generator is None:
            return self.place(pixels.float(), 0.5)
        u = torch.randint(2**16, pixels.shape, generator=generator, device=pixels.device).float() / 2**16
        return self.place(pixels.float(), u)

    def to_pixels(self, x: Tensor) -> Tensor:
        """Points of model space -> uint8 pixels floor((x - shift) / scale), held to 0 ... 255, NaN as 0.

        Undoes `to_model`.
        """
        return ((x.float() - self.shift) / self.scale).floor().nan_to_num(0.0).clamp(0, 255).to(torch.uint8)

    def moved(self, x: Tensor, other: Space) -> Tensor:
        """Points of this space as points of another; differentiable."""
        return x if other == self else (x - self.shift) * (other.scale / self.scale) + other.shift


UNIT = Space(scale=1 / 256, shift=0)
"""Of models of [0, 1) pixels: VE models of score_sde, and of diffusers."""
