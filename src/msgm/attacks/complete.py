"""Completion: half of a forget image is hidden, and the model fills it in (the paper's Table 3)."""

from __future__ import annotations

import torch

from ..metrics.measured import Measured, Quantity
from ..model.score import ScoreModel
from ..sampling import Ancestral
from ..sampling.editing import inpaint, read_mask
from .target import Attack, Found, Target, part

SETS = {"forget": "held forget", "retain": "held retain"}


def prepare(model: ScoreModel, target: Target) -> Found:
    """Held-out images of both sets, their upper half (of vectors: the first half of the numbers) drawn anew."""
    if len(model.shape) == 3:
        known = read_mask("upper-half", model.shape)
    else:
        known = torch.arange(model.shape[0]) >= model.shape[0] // 2
    sampler = Ancestral(model, steps=3 * target.budget.sampling_steps, grid="log-snr")
    return {
        name: inpaint(sampler, target.cohorts[cohort].points, known, seed=target.budget.seed)
        for name, cohort in SETS.items()
    }


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """The share of images that the judge gives their own label again."""
    measured = {}
    for name, cohort in SETS.items():
        about = f"{name} images given their own class when half is filled in"
        quantity = Quantity(name=name, unit="%", about=about, detail=name != "forget")
        measured[name] = part(quantity, target.verdicts(found[name]) == target.cohorts[cohort].labels)
    return measured


ATTACK = Attack(
    name="complete",
    question="Shown half of a forget image, does it draw the rest?",
    prepare=prepare,
    measure=measure,
)
