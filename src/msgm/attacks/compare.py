"""Comparison: somebody has parent and child, and an image. Does what changed say that it was to be forgotten?

The statistic is the change of the image's NLL, or of its loss, from parent to child, with the same noise for both. A
retrained model changes, too: being more telling than it, or less, is what counts.
"""

from __future__ import annotations

import torch

from ..metrics.measured import Measured, Quantity
from ..metrics.separation import separated
from ..model.score import ScoreModel
from .statistics import loss, unlikelihood
from .target import Attack, Found, Target, bare

SETS = ("forget", "retain")
BY = {"NLL": unlikelihood, "loss": loss}


def prepare(model: ScoreModel, target: Target) -> Found:
    """By how much each statistic of training images of both sets rose from the parent to the model: (n,) each."""
    child, parent, cohorts = bare(model), bare(target.parent), target.cohorts
    if child is parent:
        return {f"{name} {cohort}": torch.zeros(len(cohorts[cohort])) for name in BY for cohort in SETS}
    return {
        f"{name} {cohort}": statistic(child, cohorts[cohort], target) - statistic(parent, cohorts[cohort], target)
        for name, statistic in BY.items()
        for cohort in SETS
    }


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """The area under the curve by which the change tells forget images (larger) from retained ones; 1/2 is chance."""
    measured = {}
    for name in BY:
        quantity = Quantity(
            name=f"AUC, change of {name}", unit="AUC", about=f"forget from kept images by change of {name}"
        )
        measured[quantity.name] = separated(quantity, *(found[f"{name} {cohort}"] for cohort in SETS))
    return measured


ATTACK = Attack(
    name="compare",
    question="Beside its parent, does the change tell what was forgotten?",
    prepare=prepare,
    measure=measure,
)
