"""Nothing but samples: what the model makes when it is asked for nothing. All else is compared with it."""

from __future__ import annotations

from ..metrics.distances import frechet_distance
from ..metrics.judge import JUNK
from ..metrics.measured import Measured, Quantity
from ..model.score import ScoreModel
from .target import Attack, Found, Target, part

UR = Quantity(name="UR", unit="%", better="lower", about="share of samples taken for what was to be forgotten")
FRECHET = Quantity(
    name="Fréchet",
    better="lower",
    detail=True,
    about="of the judge's features of the other samples from retained images",
)
MADE_JUNK = Quantity(name="junk", unit="%", better="lower", detail=True, about="share of samples of no class")


def prepare(model: ScoreModel, target: Target) -> Found:
    """``images``: samples of the model as it is served, filters and all."""
    return {"images": target.samples(model)}


def measure(found: Found, target: Target) -> dict[str, Measured]:
    """Shares of the samples, forgotten and junk; how far what is not forgotten is from held-out retained images."""
    images = found["images"]
    junk, others = target.verdicts(images) == JUNK, images[~target.forgets(images)]
    distance = FRECHET.missing("fewer than two samples are not what was to be forgotten")
    if len(others) > 1 and bool(others.isfinite().all()):
        real = target.judge.features(target.seen(target.everything(target.held.retain), target.judge))
        distance = FRECHET.of(
            frechet_distance(target.judge.features(target.seen(others, target.judge)), real), n=len(others)
        )
    return {UR.name: target.share(UR, images), MADE_JUNK.name: part(MADE_JUNK, junk), FRECHET.name: distance}


ATTACK = Attack(name="ask", question="What does it make when asked for nothing?", prepare=prepare, measure=measure)
