"""What a model says of an image in one number: its exact likelihood, its loss, how far renoising takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..likelihood import log_likelihood
from ..metrics.renoise import renoised
from ..model.modes import evaluating
from ..model.score import ScoreModel
from ..sampling import DPMSolver, Streams
from .target import Cohort, Target

LOSS_LEVELS = (0.1, 0.3, 1.0, 3.0)
RENOISED_LEVEL = 0.5
EXACT = 8
"""Up to so many numbers an image, the trace in its likelihood is taken without probes."""


def unlikelihood(model: ScoreModel, cohort: Cohort, target: Target) -> Tensor:
    """-log p of each image, (n,): bits/dim of pixels, nats of vectors; the same noise for every model."""
    few = math.prod(model.shape) <= EXACT
    result = log_likelihood(
        model, cohort.rows, steps=target.budget.nll_steps, probes="exact" if few else None, check=False,
        seed=target.budget.seed, batch=50,
    )  # fmt: skip
    return -result.nats if result.bits_per_dim is None else result.bits_per_dim


def loss(model: ScoreModel, cohort: Cohort, target: Target, levels: Sequence[float] = LOSS_LEVELS) -> Tensor:
    """The squared error of the predicted noise, a mean over levels, draws and pixels, of each image: (n,).

    Every model meets the same noise, and opposite draws (eps, -eps) in pairs: only the models differ.
    """
    x0, sde, draws = cohort.points, model.sde, max(1, target.budget.draws // len(levels))
    streams = Streams((target.budget.seed, "loss"), range(len(x0)))
    total, first = torch.zeros(len(x0), dtype=torch.float64), next(model.parameters())
    with evaluating(model):
        for level in levels:
            t = sde.time(torch.tensor(math.log(level), dtype=torch.float64))
            for draw in range(draws):
                if draw % 2 == 0:
                    eps = streams.normal(x0)
                eps = -eps if draw % 2 else eps
                x = sde.marginal(x0, t, eps).to(first)
                predicted = torch.cat([model.noise(part, t) for part in x.split(100)])
                total += (predicted.cpu().double() - eps.double()).square().flatten(1).mean(1)
    return total / (len(levels) * draws)


def drift(model: ScoreModel, cohort: Cohort, target: Target, level: float = RENOISED_LEVEL) -> Tensor:
    """How far an image is moved by noising it to ``level`` and following the ODE back: mean squared, (n,)."""
    sampler = DPMSolver(model, steps=target.budget.sampling_steps)
    back = renoised(sampler, cohort.points, level, seed=target.budget.seed)
    return (back - cohort.points).double().square().flatten(1).mean(1)


STATISTICS = {"NLL": unlikelihood, "loss": loss, "renoising": drift}
