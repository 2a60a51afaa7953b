"""Membership: forget images that were trained on against images of the same classes that were not.

A model that never saw the forget set cannot tell them apart. One that still holds them finds them more likely; one
that was pushed away from them finds them less likely, which says as much.
"""

from __future__ import annotations

from ..metrics.measured import Measured, Quantity
from ..metrics.separation import caught, separated
from ..model.score import ScoreModel
from .statistics import STATISTICS
from .target import Attack, Found, Target, bare

SETS = ("forget", "held forget")


def prepare(model: ScoreModel, target: Target) -> Found:
    """Each statistic of both sets of images, (n,)."""
    return {
        f"{name} {cohort}": statistic(bare(model), target.cohorts[cohort], target)
        for name, statistic in STATISTICS.items()
        for cohort in SETS
    }


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """AUC (members are those of low values; 1/2 is chance), and the members caught at 1 % false alarms."""
    measured = {}
    for name in STATISTICS:
        members, others = (-found[f"{name} {cohort}"] for cohort in SETS)
        area = Quantity(name=f"AUC, {name}", unit="AUC", about=f"images trained on from others like them by {name}")
        rate = Quantity(
            name=f"TPR at 1 % FPR, {name}", unit="%", detail=True, about="images trained on that pass for such"
        )
        measured[area.name] = separated(area, members, others)
        measured[rate.name] = caught(rate, members, others)
    return measured


ATTACK = Attack(
    name="member",
    question="Does it know which images of the forgotten classes it was trained on?",
    prepare=prepare,
    measure=measure,
)
