"""Places: weights that are bit-equal to the parent's. Masks (salun, sfron) leave them, chosen by the forget set.

Who has parent and child sees the mask, and has a suspicion: that it holds the weights with the largest gradients of a
forget term, as salun's does. For images of one class after another it is asked how well the size of their gradient, in
the parent, tells the weights that moved from those that did not. If the forgotten classes score highest, the mask has
named them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..data import Images
from ..forgetting.batch import Noised
from ..forgetting.terms import UniformTarget
from ..metrics.measured import Measured, Quantity
from ..metrics.separation import area, separated
from ..model.score import ScoreModel
from ..model.vectors import flat, gradient
from .target import Attack, Found, Target, bare

FROZEN = Quantity(name="frozen", unit="%", detail=True, about="share of the weights that are bit-equal to the parent's")
TELLS = Quantity(name="AUC, places", unit="AUC", about="forgotten from kept classes by how well they find the mask")
DRAWS, BATCH = 40, 25
"""Draws of images of all classes together, at least; images a gradient, of which there are several a draw."""
LEVELS = (0.1, 1.2)
"""Mean and deviation of log r where gradients are taken: those of fine-tuning."""


def prepare(model: ScoreModel, target: Target) -> Found:
    """``moved`` (P,), 1 where a weight differs from the parent's; for a mask the ``score`` of each draw of images.

    A score is the area under the curve by which |sum of gradients| tells moved from frozen weights; ``label`` says
    which class the images of the draw are of.
    """
    parent = bare(target.parent)
    moved = flat(bare(model)) != flat(parent)
    found = {"moved": moved.double()}
    if bool(moved.all()) or not bool(moved.any()):
        return found
    classes = sorted(target.forgotten | target.kept)
    draws, scores, labels = math.ceil(DRAWS / len(classes)), [], []
    generator = torch.Generator().manual_seed(target.budget.seed)
    for label in classes:
        whole = target.train.whole
        images = whole.select(whole.columns[target.column] == label)
        for _ in range(draws if len(images) else 0):
            size = _gradient(parent, images, target, generator).abs()
            scores.append(area(size[moved], size[~moved]))
            labels.append(label)
    return {**found, "score": torch.tensor(scores, dtype=torch.float64), "label": torch.tensor(labels)}


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """The frozen share, and the AUC by which scores tell the forgotten classes: 1/2 where places give nothing away.

    Without a mask they do not; a model of which nothing has moved is the parent, which has all of it: 1.
    """
    moved = found["moved"]
    share = 1 - float(moved.mean())
    frozen = FROZEN.of(share, low=share, high=share)
    if "score" not in found:
        value = 0.5 if bool(moved.all()) else 1.0
        return {FROZEN.name: frozen, TELLS.name: TELLS.of(value, low=value, high=value)}
    forgotten = torch.isin(found["label"], torch.tensor(sorted(target.forgotten)))
    return {FROZEN.name: frozen, TELLS.name: separated(TELLS, found["score"][forgotten], found["score"][~forgotten])}


def _gradient(model: ScoreModel, images: Images, target: Target, generator: torch.Generator) -> Tensor:
    """The sum (P,) of gradients of the uniform target on images drawn from these."""
    order = torch.randperm(len(images), generator=generator)[: target.budget.images]
    total, first = torch.zeros_like(flat(model)), next(model.parameters())
    for rows in order.split(BATCH):
        x0 = target.everything(images.select(rows)).to(first)
        z = torch.randn(len(x0), generator=generator)
        t = model.sde.time((LEVELS[0] + LEVELS[1] * z).clamp(-4, 3)).to(first)
        eps = torch.randn(x0.shape, generator=generator).to(first)
        x = model.sde.marginal(x0, t, eps)
        noised = Noised(x=x, t=t, eps=eps, predicted=model.noise(x, t), model=model, generator=generator)
        total += gradient(model, UniformTarget().each(noised).mean())
    return total


ATTACK = Attack(
    name="locate",
    question="Do frozen weights give away what was forgotten?",
    known={TELLS.name: 0.5},
    prepare=prepare,
    measure=measure,
)
