"""What every sampler shares: it walks down a grid of times, one overridable step at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor

from ..errors import UserError
from ..model.memory import Halving, free, held
from ..model.modes import blank, evaluating
from ..model.score import ScoreModel
from ..processes import here
from .grids import GRIDS, Grid
from .streams import Streams

Tick = Callable[[float], None]
"""Progress: called with the work done since the last call, in images; it sums to their number."""


LARGEST = 250


def fitting(model: ScoreModel, memory: float | None = None) -> int:
    """A batch size whose evaluations fit the free memory, 1 to 250.

    One image is put through the network, and all that its layers return is taken to be alive at once, twice
    over. ``memory`` is what may be used, in bytes; by default half of what is free on the model's device.
    """
    if memory is None:
        memory = free(blank(model, 1).device) / 2
    return max(1, min(LARGEST, int(memory / max(1, 2 * held(model)))))


MOST_STEPS = 10**5


@dataclass(frozen=True, eq=False, kw_only=True)
class Sampler(ABC):
    """Draws images from a score model: a subclass gives `step`, and `times` if none of `GRIDS` will do.

    Args:
        steps: times visited, the last one for denoising (Jolicoeur-Martineau et al. 2021).
        grid: how they lie: uniform in t, in (sigma/alpha)^(1/7) (edm) or in the log-snr, or DDPM's own (discrete).

    Raises UserError for too few steps and for a grid that does not exist.
    """

    model: ScoreModel = field(kw_only=False)
    steps: int
    grid: Grid = "uniform"

    evaluations: ClassVar[int] = 1
    """Network evaluations of one step."""

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= MOST_STEPS:
            raise UserError(
                f"a sampler needs at least 2 steps, and at most {MOST_STEPS}, got {self.steps}; choose steps=18 or more"
            )
        if self.grid not in GRIDS:
            raise UserError(f"no grid {self.grid!r}; known: {', '.join(GRIDS)}")

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, generator: Streams) -> Tensor:
        """x at time s from x (B, *) at time t, both float64 scalars; ``generator.normal(x)`` draws noise."""

    def times(self) -> Tensor:
        """The times visited, from 1 down to t_min, float64 (steps,)."""
        return GRIDS[self.grid](self.model.sde, self.steps)

    @property
    def nfe(self) -> int:
        """Network evaluations for each image."""
        return self.evaluations * (len(self.times()) - 1) + 1

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        batch: int | Literal["auto"] = "auto",
        start: int = 0,
        tick: Tick | None = None,
    ) -> Tensor:
        """Images ``start`` to ``start + n - 1`` of the run ``seed``, (n, *shape) in model space.

        ``batch`` images are drawn at a time (``auto``: as `fitting` finds), fewer where the memory is full, which
        changes nothing but memory and speed. ``tick`` drives a progress bar of n images. The model is put in evaluation
        mode and left as it was. Several processes share the batches, and all get all images.
        """
        all_of_us = here()
        if batch == "auto":
            batch = -all_of_us.most(-fitting(self.model))
        if n < 1 or batch < 1:
            raise UserError(f"sample needs at least one image and a batch of one, got n={n}, batch={batch}")
        own, grid = all_of_us.batches(range(start, start + n), batch), self.times()
        out, done = blank(self.model, n).zero_(), n / max(1, sum(map(len, own)))

        def draw(part: range) -> None:
            size = len(part)
            generator = Streams(seed, part)
            x = self.model.sde.prior_std * generator.normal(blank(self.model, size))
            for t, s in pairwise(grid):
                x = self.step(x, t, s, generator)
                if tick is not None:
                    tick(done * size / len(grid))
            out[part.start - start : part.stop - start] = self.model.denoise(x, grid[-1])
            if tick is not None:
                tick(done * size / len(grid))

        with evaluating(self.model):
            halving = Halving()
            for part in own:
                halving(part, draw)
        return all_of_us.summed(out)
