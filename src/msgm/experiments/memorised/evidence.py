"""What a model still knows of one image: how often it draws it, what comes back from noise, how likely it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ...choice import Choice
from ...data import Images
from ...likelihood import log_likelihood
from ...metrics import quantities
from ...metrics.distances import frechet_distance
from ...metrics.judge import Judge
from ...metrics.measured import Measured
from ...metrics.neighbours import nearest
from ...metrics.renoise import renoised
from ...model.score import ScoreModel
from ...sampling import SAMPLERS

CLOSE = 45.5
"""Grey levels, root mean square, within which an image is the one: L2 of 10 over 784 pixels in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """How much evidence to gather.

    Args:
        n: samples.
        sampler: how they are drawn.
        renoise: times that the image is noised, at each level.
        nll_images: test images to retain whose likelihood is measured.
        nll_steps: Runge-Kutta steps of the likelihood.
        nll_check: images that are measured again with twice the steps.
        seed: of all noise: all models start from the same.
    """

    n: int = 10_000
    sampler: Annotated[Choice, SAMPLERS] = Choice.of("dpm++", steps=10)
    renoise: int = 64
    nll_images: int = 40
    nll_steps: int = 12
    nll_check: int = 8
    seed: int = 0


def evidence(
    model: ScoreModel, image: Tensor, *, test: Images, judge: Judge, settings: EvidenceSettings
) -> tuple[dict[str, Measured], Tensor]:
    """What is measured of a model, and eight samples, uint8: those that are nearest to the image, the nearest first.

    ``image`` is uint8 (1, C, H, W), ``test`` images to be retained, which the ``judge`` knows: the Fréchet distance of
    its features is that of all samples that are not the image.
    """
    drawn = settings.sampler.maker("sampler", SAMPLERS)(model).sample(settings.n, seed=settings.seed)
    pixels = model.space.to_pixels(drawn).cpu()
    distance, _ = nearest(pixels, Images.of(image, name="image"))
    found = [
        quantities.DRAWN.share(int((distance <= CLOSE).sum()), len(pixels)),
        quantities.CLOSEST.of(float(distance.min()), n=len(pixels)),
        quantities.JUNK.share(int((judge.predict(pixels[distance > CLOSE]) < 0).sum()), len(pixels)),
        quantities.FRECHET.of(_frechet(judge, pixels[distance > CLOSE], test), n=len(pixels)),
    ]
    for level in quantities.LEVELS:
        several = model.space.to_model(image).expand(settings.renoise, *image.shape[1:])
        back = model.space.to_pixels(renoised(model, several, level, seed=settings.seed)).cpu()
        apart, _ = nearest(back, Images.of(image, name="image"))
        found.append(quantities.AGAIN[level].share(int((apart <= CLOSE).sum()), len(back)))
    for key, images in (("retain", test.rows(slice(settings.nll_images))), ("forget", image)):
        result = log_likelihood(
            model, images, steps=settings.nll_steps, check=min(len(images), settings.nll_check), seed=settings.seed
        )
        mean, error = result.mean()
        quantity = quantities.NLL[key]
        found.append(
            quantity.of(mean, stderr=error if len(images) > 1 else None, n=len(images))
            if result.reliable
            else quantity.missing("the likelihood fails its check")
        )
    return {each.name: each for each in found}, pixels[distance.argsort(stable=True)[:8]]


def _frechet(judge: Judge, pixels: Tensor, test: Images) -> float:
    real = torch.cat([judge.features(part) for part in test.chunks()])
    return frechet_distance(judge.features(pixels), real)
