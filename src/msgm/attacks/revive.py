"""Revival: fine-tuned on images that have nothing of what was forgotten, does it come back by itself?

Harmless fine-tuning is known to bring back what was only hidden (2410.08074, 2512.03564).
"""

from __future__ import annotations

from ..metrics.measured import Measured
from ..model.score import ScoreModel
from . import tuning
from .target import Attack, Found, Target

RETAINED, OTHER = "retained images", "other images"


def prepare(model: ScoreModel, target: Target) -> Found:
    """Samples after each checkpoint of fine-tuning on the retained images, and on unrelated ones if there are any."""
    found = tuning.tuned(model, target.train.retain, target, RETAINED)
    if target.other is not None:
        found |= tuning.tuned(model, target.other, target, OTHER)
    return found


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """UR against steps for each set of images."""
    measured = tuning.curve(found, target, RETAINED)
    return measured | (tuning.curve(found, target, OTHER) if target.other is not None else {})


ATTACK = Attack(
    name="revive",
    question="Fine-tuned on other images, does it come back by itself?",
    prepare=prepare,
    measure=measure,
)
