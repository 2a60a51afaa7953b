"""Pixels <-> model space."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError


def to_model(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pixels 0..255 -> float32 model space [-1, 1), dequantised: x = (pixels + u)/128 - 1.

    u is uniform on the multiples of 2^-16 in [0, 1), drawn from ``generator`` (on the images' device), or 1/2
    without one. For these u float32 holds x exactly, so that `to_pixels` gives back the very pixels.
    For a density p of x an image has -log p(x)/(d ln 2) + 7 bits/dim, as one pixel step is 2^-7.
    """
    if images.dtype != torch.uint8:
        raise UserError(f"images must be uint8, not {images.dtype}; model space is reached from pixels only")
    if generator is None:
        return (images.float() + 0.5) / 128 - 1
    u = torch.randint(2**16, images.shape, generator=generator, device=images.device).float() / 2**16
    return (images.float() + u) / 128 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Model space -> uint8 pixels floor((x + 1)·128) clamped to 0..255. Exactly undoes `to_model`."""
    return ((x.float() + 1) * 128).floor().clamp(0, 255).to(torch.uint8)
