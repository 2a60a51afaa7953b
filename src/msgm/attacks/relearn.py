"""Relearning: fine-tuned on a few of the forget images, how soon does the model make the whole class again?

Nothing known withstands it; what counts is whether it takes a retrained model as long.
"""

from __future__ import annotations

from ..metrics.measured import Measured
from ..model.score import ScoreModel
from . import tuning
from .target import Attack, Found, Target


def prepare(model: ScoreModel, target: Target) -> Found:
    """Samples after each checkpoint, of one run for each number of forget images in ``budget.shown``."""
    found: Found = {}
    for shown in target.budget.shown:
        found |= tuning.tuned(model, target.some(target.train.forget, shown), target, _name(shown))
    return found


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """UR against steps for each number of images."""
    measured: dict[str, Measured] = {}
    for shown in target.budget.shown:
        measured |= tuning.curve(found, target, _name(shown))
    return measured


def _name(shown: int) -> str:
    return f"{shown} image{'s' if shown > 1 else ''}"


ATTACK = Attack(
    name="relearn",
    question="Fine-tuned on a few forget images, how soon is it back?",
    prepare=prepare,
    measure=measure,
)
