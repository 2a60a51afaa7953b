"""Guidance: another judge's gradient leads the samples to the forget classes, the more strongly the larger its scale.

``score' = score + scale grad_x log P(forget | x_0 = D(x_t))`` (Dhariwal and Nichol 2021; Chung et al. 2023). A judge
that sees what it wants in noise drives samples out of all images: junk stands beside each rate.
"""

from __future__ import annotations

from torch import Tensor

from ..metrics.judge import JUNK
from ..metrics.measured import Measured, Quantity
from ..model.score import ScoreModel
from ..sampling.filters import Guided
from .target import Attack, Found, Target, bare, part


def prepare(model: ScoreModel, target: Target) -> Found:
    """Samples at each scale; none without another judge."""
    if target.guide is None:
        return {}
    guide, said = target.guide, target.guide.log_retain(target.kept)

    def towards(x: Tensor) -> Tensor:
        return said(target.seen(x, guide))

    return {
        _name(scale): target.samples(Guided(bare(model), towards, strength=scale)) for scale in target.budget.scales
    }


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """UR and junk at each scale."""
    measured = {}
    for scale in target.budget.scales:
        ratio = Quantity(name=_name(scale), unit="%", better="lower", about=f"UR, guided with strength {scale:g}")
        junk = Quantity(
            name=f"{_name(scale)}, junk", unit="%", better="lower", about="junk among them", detail=True
        )  # fmt: skip
        if not found:
            measured[ratio.name] = ratio.missing(target.unguided)
            continue
        images = found[_name(scale)]
        measured[ratio.name] = target.share(ratio, images)
        measured[junk.name] = part(junk, target.verdicts(images) == JUNK)
    return measured


def _name(scale: float) -> str:
    return f"scale {scale:g}"


ATTACK = Attack(
    name="guide",
    question="Guided towards it by another judge, does the model make it?",
    prepare=prepare,
    measure=measure,
)
