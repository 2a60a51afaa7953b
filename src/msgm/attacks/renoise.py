"""Renoising: a forget image under noise, and the model's own answer to it. Who holds one needs no sample.

At each noise level r = sigma / alpha the image is noised and drawn back, along the ODE and with fresh noise (SDE); what
counts is the share that the judge gives the image's own label. Low noise gives everything back, whatever the model;
how far up that goes is what sets models apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics.measured import Measured, Quantity
from ..metrics.renoise import renoised
from ..model.score import ScoreModel
from ..sampling import DPMSolver, DPMSolverSDE, Sampler
from .target import Attack, Found, Target, part

WAYS = ("ODE", "SDE")
SETS = {"forget": "held forget", "retain": "held retain"}


def prepare(model: ScoreModel, target: Target) -> Found:
    """Held-out images of both sets, noised to each level and drawn back in both ways."""
    budget, found = target.budget, {}
    steps = 3 * budget.sampling_steps // 2
    samplers: dict[str, Sampler] = {
        "ODE": DPMSolver(model, steps=steps),
        "SDE": DPMSolverSDE(model, steps=steps, grid="log-snr"),
    }
    for name, cohort in SETS.items():
        points = target.cohorts[cohort].points
        for way, sampler in samplers.items():
            for level in budget.levels:
                found[_key(name, way, level)] = renoised(sampler, points, level, seed=budget.seed)
    return found


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """The share given back at each level, its mean over log r, and how far forgotten images fall below retained ones.

    The mean is by the trapezoid rule in log r: the area under the curve, over the width.
    """
    levels, measured, area = target.budget.levels, {}, {}
    weights = _trapezoid(levels)
    for name, cohort in SETS.items():
        labels = target.cohorts[cohort].labels
        for way in WAYS:
            hits = [target.verdicts(found[_key(name, way, level)]) == labels for level in levels]
            for level, back in zip(levels, hits, strict=True):
                about = f"share of {name} images that come back from noise of level {level} ({way})"
                quantity = Quantity(name=_key(name, way, level), unit="%", about=about, detail=True)
                measured[quantity.name] = part(quantity, back)
            about = f"{name} images given back, mean over levels ({way})"
            mean = Quantity(name=f"{name} {way}", unit="%", about=about, detail=name != "forget")
            area[name, way] = torch.stack(hits).double().mul(weights[:, None]).sum(0)
            measured[mean.name] = part(mean, area[name, way])
    return measured


def _trapezoid(levels: tuple[float, ...]) -> Tensor:
    """Weights (L,) that sum to one, of the trapezoid rule in the logarithm."""
    if len(levels) == 1:
        return torch.ones(1, dtype=torch.float64)
    logs = torch.tensor(levels, dtype=torch.float64).log()
    gaps = logs.diff()
    weights = torch.zeros(len(levels), dtype=torch.float64)
    weights[:-1] += gaps / 2
    weights[1:] += gaps / 2
    return weights / weights.sum()


def _key(name: str, way: str, level: float) -> str:
    return f"{name} {way} r={level:g}"


ATTACK = Attack(
    name="renoise",
    question="Noised and denoised, which forget images come back?",
    prepare=prepare,
    measure=measure,
)
