"""Evidence without a classifier: which training image a sample is nearest to, and how near samples come to some."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Images
from . import quantities
from .measured import Measured
from .subject import Drawn


def nearest(pixels: Tensor, images: Images) -> tuple[Tensor, Tensor]:
    """Distance to the nearest of some images, and its row: float32 and int64 (n,), for uint8 (n, C, H, W).

    The distance is the root mean square of the differences of all values (L2 by the root of their number), in grey
    levels: 0 to 255. Of equal distances the first row counts.
    """
    flat = pixels.flatten(1).double()  # in which the whole numbers below are exact
    best, row, start = torch.full_like(flat[:, 0], torch.inf), torch.zeros(len(flat), dtype=torch.int64), 0
    for part in images.chunks():
        rows = part.flatten(1).double()
        square, index = (flat.square().sum(1)[:, None] - 2 * flat @ rows.T + rows.square().sum(1)).min(1)
        row = torch.where(square < best, index + start, row)
        best = torch.minimum(square, best)
        start += len(part)
    return (best / flat.shape[1]).sqrt().float(), row


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """How often a sample is nearest to a training image to be forgotten, and how near samples come to those.

    The share is of all samples, with Wilson's interval: the forget images against the retained ones, in L2. The
    distance is that from a forget image to the sample nearest to it, a mean over forget images with its standard error.
    """

    names = (quantities.NEAR.name, quantities.CLOSEST.name)

    def measure(self, subject: Drawn) -> dict[str, Measured]:
        """As `nearest` measures distances; at a tie the retained image counts."""
        pixels = subject.pixels
        to_forget, to_retain = (nearest(pixels, part)[0] for part in (subject.forgotten, subject.retained))
        hits = int((to_forget < to_retain).sum())
        samples = Images.of(pixels, name="samples")
        closest = torch.cat([nearest(part, samples)[0] for part in subject.forgotten.chunks()])
        error = float(closest.std() / len(closest) ** 0.5) if len(closest) > 1 else None
        near = quantities.CLOSEST.of(float(closest.mean()), stderr=error, n=len(closest))
        return {quantities.NEAR.name: quantities.NEAR.share(hits, len(pixels)), quantities.CLOSEST.name: near}
