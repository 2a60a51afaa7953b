"""Random numbers for a batch of images: image i meets the same noise whatever batch it is drawn in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class Streams:
    """A random stream for each image of a batch, fixed by ``key`` (a seed or a tuple with one) and its index.

    Numbers are drawn in float32 on the CPU and then cast: they are the same on every device and precision.
    """

    def __init__(self, key: object, indices: Iterable[int]) -> None:
        # PyTorch's CPU generator reads 32 bits of its seed; an odd multiplier keeps those of a run distinct.
        base = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")
        self._generators = [torch.Generator().manual_seed((base + 2654435761 * i) % 2**32) for i in indices]
        self._ahead: dict[tuple[object, ...], list[Tensor]] = {}
        self.past: tuple[Tensor, Tensor, Tensor] | None = None
        """What a multistep sampler keeps of this batch's last step: its times t and s, and a tensor (B, *)."""

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of ``like`` (B, *)."""
        return self._next(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape, type and device of ``like`` (B, *)."""
        return self._next(torch.rand, like)

    def rademacher(self, like: Tensor) -> Tensor:
        """Fair signs, -1 or 1, of the shape, type and device of ``like`` (B, *)."""
        return self._next(_signs, like)

    def _next(self, draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        shape = tuple(like.shape[1:])
        ahead = self._ahead.setdefault((draw, shape), [])
        if not ahead:
            # One call for each image and draw would cost more than the network when images are small vectors.
            size = (max(1, 1024 // math.prod(shape)), *shape)
            blocks = torch.stack([draw(size, generator=g) for g in self._generators], dim=1)
            ahead.extend(blocks.flip(0))
        return ahead.pop().to(like)


def _signs(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, size, generator=generator) * 2 - 1
