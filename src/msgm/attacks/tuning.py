"""Fine-tuning by an adversary, watched: samples after each of some steps, and how soon the forgotten is back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from ..data import Images
from ..metrics.measured import Measured, Quantity
from ..model.score import ScoreModel
from ..training.loop import train
from ..training.runs import RunSpec
from ..training.settings import TrainSettings
from .target import Found, Target, bare, part

GUARD = 1e6
"""An adversary does not stop where the loss of one image, once learned by heart, goes up again."""


@dataclass
class _Watch:
    """Draws samples of the average after the steps in ``target.budget.checkpoints``."""

    target: Target
    name: str
    found: Found = field(default_factory=dict)

    def __call__(self, step: int, average: ScoreModel) -> bool:
        if step in self.target.budget.checkpoints:
            self.found[_key(self.name, step)] = self.target.samples(average)
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}


def tuned(model: ScoreModel, images: Images, target: Target, name: str) -> Found:
    """Samples of a copy of the model that is trained on these images alone, by the ordinary loss."""
    budget, watch = target.budget, _Watch(target, name)
    settings = TrainSettings(
        steps=budget.checkpoints[-1], batch=budget.batch, lr=budget.lr, warmup=1, cooldown=0.0, ema=0.9,
        noise_mean=0.1, guard=GUARD, seed=budget.seed,
    )  # fmt: skip
    train(copy.deepcopy(bare(model)), images, settings=settings, run=RunSpec(device="cpu", progress=False), watch=watch)
    return watch.found


def curve(found: Found, target: Target, name: str) -> dict[str, Measured]:
    """UR after each step, the mean over the steps, and the first step at which half of the parent's UR is back.

    The mean is over what all steps give, so that a model which lets go of the forgotten at once has a larger one.
    """
    steps, measured = target.budget.checkpoints, {}
    hits = {step: target.forgets(found[_key(name, step)]).double() for step in steps}
    about = f"UR, fine-tuned on {name}"
    for step in steps:
        quantity = Quantity(name=_key(name, step), unit="%", better="lower", about=about, detail=True)
        measured[quantity.name] = part(quantity, hits[step])
    mean = Quantity(name=name, unit="%", better="lower", about=f"{about}, mean over the steps")
    measured[name] = part(mean, torch.stack(list(hits.values())).mean(0))
    half = Quantity(
        name=f"{name}: half", unit="steps", better="higher", detail=True, about="steps until half of the parent's UR"
    )
    back = [step for step in steps if float(hits[step].mean()) >= target.parent_share / 2]
    measured[half.name] = half.of(back[0]) if back else half.missing(f"not within {steps[-1]} steps")
    return measured


def _key(name: str, step: int) -> str:
    return f"{name}, step {step}"
