"""What comes back from noise: images are noised to a level r = sigma / alpha, and the model makes images of it again.

Whoever holds a noised image of what was to be forgotten needs no sample from pure noise: a model that only avoids the
forgotten on its own paths still denoises it to what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..model.modes import evaluating
from ..model.score import ScoreModel
from ..sampling import Heun, Sampler, Streams, Tick, fitting
from .judge import Judge
from .quantities import LEVELS
from .rates import Rate, wilson

STEPS = 36
"""Times of `Heun`'s whole grid, of which a level uses those below it."""


def renoised(
    model: ScoreModel | Sampler,
    images: Tensor,
    level: float,
    *,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    tick: Tick | None = None,
) -> Tensor:
    """Images (N, *shape) in model space, noised to r = ``level`` and drawn back to clean ones: (N, *shape).

    ``model`` is a sampler, which takes its own steps from that level on, or a `ScoreModel`, for `Heun`. Image i depends
    on (``seed``, i) alone. Raises UserError for a level that the process does not reach.
    """
    sampler = model if isinstance(model, Sampler) else Heun(model, steps=STEPS)
    score, sde, grid = sampler.model, sampler.model.sde, sampler.times()
    high, low = (float(sde.log_ratio(t).exp()) for t in (grid[0], grid[-1]))
    if not low < level < high:
        raise UserError(f"level is a noise level sigma/alpha between {low:.3g} and {high:.3g}; got {level}")
    grid = _below(sampler, level)
    begin = grid[0]
    batch, out = fitting(score) if batch == "auto" else batch, []
    with evaluating(score):
        for first in range(0, len(images), batch):
            x0 = images[first : first + batch].to(score.device)
            streams = Streams(seed, range(first, first + len(x0)))
            x = sde.marginal(x0, begin, streams.normal(x0))
            for t, s in pairwise(grid):
                x = sampler.step(x, t, s, streams)
            out.append(score.denoise(x, grid[-1]).to(images.device))
            if tick is not None:
                tick(len(x0))
    return torch.cat(out)


def _below(sampler: Sampler, level: float) -> Tensor:
    """The time of a noise level, and the sampler's times after it."""
    begin, grid = sampler.model.sde.time(torch.tensor(math.log(level), dtype=torch.float64)), sampler.times()
    return torch.cat([begin[None], grid[grid < begin]])


def evaluations(model: ScoreModel, levels: Sequence[float] = LEVELS) -> int:
    """Of the network for each image that `given_back` draws back from all of the levels."""
    sampler = Heun(model, steps=STEPS)
    return sum(sampler.evaluations * (len(_below(sampler, level)) - 1) + 1 for level in levels)


def given_back(
    model: ScoreModel | Sampler,
    images: Tensor,
    labels: Tensor,
    judge: Judge,
    *,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
    tick: Tick | None = None,
) -> dict[float, Rate]:
    """For each level the share of images (N, *) that the judge calls by their own label (N,) after `renoised`.

    Junk is not given back. ``tick`` drives a progress bar of N images for each level.
    """
    space = (model.model if isinstance(model, Sampler) else model).space
    found = {}
    for level in levels:
        back = renoised(model, images, level, seed=seed, tick=tick)
        predicted = judge.predict(space.moved(back, judge.space))
        found[level] = wilson(int((predicted == labels).sum()), len(images))
    return found
