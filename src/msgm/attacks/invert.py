"""Inversion: a latent from which the model makes a forget image, by the ODE run backwards and by gradient search.

Nearly every model has such latents: an ODE can be run backwards. What counts is how close the image comes, and whether
the prior would ever draw the latent: one that is far out is a code for the image that the adversary wrote (2602.00175).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ..metrics.measured import Measured, Quantity
from ..model.modes import evaluating
from ..model.score import ScoreModel
from ..sampling import DPMSolver, Heun, Streams
from .target import Attack, Found, Target, average, bare

WAYS = ("ODE", "search")
RATE = 0.1
"""Adam's, in units of the prior's standard deviation; it falls to 0 along a cosine."""


def prepare(model: ScoreModel, target: Target) -> Found:
    """Of forget images: latents (n, *) over the prior's standard deviation, and what the model makes of them."""
    model, budget = bare(model), target.budget
    images = target.cohorts["forget"].points
    encoded = flow(Heun(model, steps=budget.flow_steps), images, back=True)
    sought = images[: budget.searched]
    latents = searched(model, sought, rounds=budget.rounds, seed=budget.seed, steps=budget.sampling_steps // 2)
    short = DPMSolver(model, steps=budget.sampling_steps // 2)
    std = model.sde.prior_std
    return {
        "original": images,
        "ODE latent": encoded / std,
        "ODE": flow(Heun(model, steps=budget.flow_steps), encoded, back=False),
        "search latent": latents / std,
        "search": flow(short, latents, back=False),
    }


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """PSNR reached, and the latent's excess: (|z|^2 - d) / sqrt(2 d), about N(0, 1) for what the prior draws."""
    measured, (low, high) = {}, target.parent.space.range
    for way in WAYS:
        latent, images = found[f"{way} latent"].double().flatten(1), found[way].double().flatten(1)
        original = found["original"][: len(images)].double().flatten(1)
        psnr = 10 * torch.log10((high - low) ** 2 / (images - original).square().mean(1).clamp(min=1e-12))
        dims = latent.shape[1]
        about = f"how close a latent comes to a forget image ({way})"
        near = Quantity(name=f"PSNR, {way}", unit="dB", about=about, detail=way == "ODE")
        far = Quantity(name=f"latent, {way}", unit="sd", about=f"excess length of that latent under the prior ({way})")
        measured[near.name] = average(near, psnr)
        measured[far.name] = average(far, (latent.square().sum(1) - dims) / math.sqrt(2 * dims))
    return measured


def flow(sampler: DPMSolver | Heun, x: Tensor, *, back: bool, gradients: bool = False) -> Tensor:
    """Images (n, *) to latents at t = 1 along the sampler's grid (``back``), or latents to images."""
    model, grid = sampler.model, sampler.times()
    x, streams = x.to(next(model.parameters())), Streams(0, range(len(x)))
    with evaluating(model), torch.set_grad_enabled(gradients):
        for t, s in pairwise(grid.flip(0) if back else grid):
            x = sampler.step(x, t, s, streams)
        return x if back else model.denoise(x, grid[-1])


def searched(model: ScoreModel, images: Tensor, *, rounds: int, seed: int, steps: int) -> Tensor:
    """Latents (n, *) from which ``steps`` steps of DPM-Solver++ come close to the images: descent of the squared error.

    They start as draws of the prior, each fixed by (seed, its number).
    """
    first, std = next(model.parameters()), model.sde.prior_std
    wanted = images.to(first)
    z = Streams((seed, "latents"), range(len(images))).normal(wanted).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=RATE)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
    for _ in range(rounds):
        made = flow(DPMSolver(model, steps=steps), std * z, back=False, gradients=True)
        (z.grad,) = torch.autograd.grad((made - wanted).square().sum(), z)
        optimizer.step()
        fall.step()
    return std * z.detach()


ATTACK = Attack(
    name="invert",
    question="Is there a latent that gives a forget image, and would the prior draw it?",
    prepare=prepare,
    measure=measure,
)
