"""Samplers: from noise to images, one overridable step at a time.

A sampler walks down a grid of times from t = 1 to the process' ``t_min`` and ends with one denoising step
(Jolicoeur-Martineau et al. 2021). A new sampler is a subclass that gives `Sampler.step`, and a
`Sampler.grid` if it wants its own. Image i of a run depends on (seed, i) alone, not on the batch it was
drawn in: a model and its unlearned copy, sampled with the same seed, meet the same noise image by image.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from .errors import UserError
from .score import ScoreModel
from .sde import expand

Tick = Callable[[float], None]
"""Progress: called with the work done since the last call, in images; it sums to their number."""


class Streams:
    """A random stream for each image of a batch, fixed by ``key`` (a seed or a tuple with one) and its index.

    Numbers are drawn in float32 on the CPU and then cast: they are the same on every device and precision.
    """

    def __init__(self, key: object, indices: Iterable[int]) -> None:
        # PyTorch's CPU generator reads 32 bits of its seed; an odd multiplier keeps those of a run distinct.
        base = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")
        self._generators = [torch.Generator().manual_seed((base + 2654435761 * i) % 2**32) for i in indices]
        self._ahead: dict[tuple[object, ...], list[Tensor]] = {}

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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients; each part's own mode is restored after."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def blank(model: ScoreModel, n: int) -> Tensor:
    """An empty batch of n images of the model's shape, type and device."""
    first = next(model.parameters(), torch.zeros(()))
    return torch.empty((n, *model.shape), dtype=first.dtype, device=first.device)


@dataclass(frozen=True, eq=False)
class Sampler(ABC):
    """Draws images from a score model. ``steps`` counts the times of the grid, the last one for denoising."""

    model: ScoreModel
    steps: int = field(kw_only=True)

    evaluations: ClassVar[int] = 1
    """Network evaluations of one step."""

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise UserError(f"a sampler needs at least 2 steps, got {self.steps}; choose steps=18 or more")

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        """x at time s from x (B, *) at time t, both float64 scalars; ``generator.normal(x)`` draws noise."""

    def grid(self) -> Tensor:
        """The times visited, from 1 down to t_min, float64 (steps,)."""
        return torch.linspace(1, self.model.sde.t_min, self.steps, dtype=torch.float64)

    @property
    def nfe(self) -> int:
        """Network evaluations for each image."""
        return self.evaluations * (self.steps - 1) + 1

    def sample(self, n: int, *, seed: int = 0, batch: int = 250, start: int = 0, tick: Tick | None = None) -> Tensor:
        """Images ``start`` to ``start + n - 1`` of the run ``seed``, (n, *shape) in model space.

        ``batch`` images are drawn at a time, which changes nothing but memory and speed. ``tick`` drives a
        progress bar of n images. The model is put in evaluation mode and left as it was.
        """
        if n < 1 or batch < 1:
            raise UserError(f"sample needs at least one image and a batch of one, got n={n}, batch={batch}")
        out, grid = [], self.grid()
        with evaluating(self.model):
            for first in range(start, start + n, batch):
                size = min(batch, start + n - first)
                generator = Streams(seed, range(first, first + size))
                x = self.model.sde.prior_std * generator.normal(blank(self.model, size))
                for t, s in pairwise(grid):
                    x = self.step(x, t, s, generator)
                    if tick is not None:
                        tick(size / self.steps)
                out.append(self.model.denoise(x, grid[-1]))
                if tick is not None:
                    tick(size / self.steps)
        return torch.cat(out)


@dataclass(frozen=True, eq=False)
class Heun(Sampler):
    """Heun on the probability-flow ODE ``dy/dr = eps(alpha y, t)`` in y = x / alpha, r = sigma / alpha.

    The grid is that of Karras et al. 2022, Eq. 5, uniform in r^(1/rho) from r(1) to r(t_min); second order.
    A step may go in either direction, so it also encodes images.
    """

    steps: int = field(default=18, kw_only=True)
    rho: float = field(default=7.0, kw_only=True)

    evaluations: ClassVar[int] = 2

    def grid(self) -> Tensor:
        sde = self.model.sde
        ends = sde.log_ratio(torch.tensor([1.0, sde.t_min], dtype=torch.float64))
        high, low = (ends / self.rho).exp()
        ratios = torch.linspace(0, 1, self.steps, dtype=torch.float64).mul(low - high).add(high)
        times = sde.time(self.rho * ratios.log())
        times[0], times[-1] = 1.0, sde.t_min
        return times

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde = self.model.sde
        y, leap = x / expand(sde.alpha(t), x), expand(sde.log_ratio(s).exp() - sde.log_ratio(t).exp(), x)
        slope = self.model.noise(x, t)
        ahead = self.model.noise(expand(sde.alpha(s), x) * (y + leap * slope), s)
        return expand(sde.alpha(s), x) * (y + leap * (slope + ahead) / 2)


@dataclass(frozen=True, eq=False)
class EulerMaruyama(Sampler):
    """The reverse SDE ``dx = (c x - g^2 score) dt + g dw`` (Song et al. 2021, Eq. 6), steps uniform in t."""

    steps: int = field(default=200, kw_only=True)

    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        sde, width = self.model.sde, expand(t - s, x)
        drift, diffusion = expand(sde.drift(t), x), expand(sde.diffusion(t), x)
        slope = drift * x - diffusion.square() * self.model.score(x, t)
        return x - width * slope + width.sqrt() * diffusion * generator.normal(x)
