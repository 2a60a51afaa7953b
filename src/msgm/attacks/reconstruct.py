"""Reconstruction: forget images encoded by the ODE, disturbed a little, and decoded again (the paper's Table 4)."""

from __future__ import annotations

from ..metrics.measured import Measured, Quantity
from ..model.score import ScoreModel
from ..sampling import Heun
from ..sampling.editing import reconstruct
from .target import Attack, Found, Target, part

SETS = {"forget": "held forget", "retain": "held retain"}


def prepare(model: ScoreModel, target: Target) -> Found:
    """Held-out images of both sets, rebuilt from their disturbed latents."""
    flow = Heun(model, steps=target.budget.flow_steps)
    return {
        name: reconstruct(flow, target.cohorts[cohort].points, seed=target.budget.seed) for name, cohort in SETS.items()
    }


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """The share of images that the judge gives their own label again."""
    measured = {}
    for name, cohort in SETS.items():
        about = f"{name} images given their own class when rebuilt"
        quantity = Quantity(name=name, unit="%", about=about, detail=name != "forget")
        measured[name] = part(quantity, target.verdicts(found[name]) == target.cohorts[cohort].labels)
    return measured


ATTACK = Attack(
    name="reconstruct",
    question="Rebuilt from its own latent, is a forget image what it was?",
    prepare=prepare,
    measure=measure,
)
