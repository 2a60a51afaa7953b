"""Near duplicates: images that look the same in a thumbnail. Cheap, and blind to what a thumbnail does not show."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .images import Images

SIDE = 8
"""Pixels of a thumbnail, each way. Smaller images have none."""
CLOSE = 3.0
"""Grey levels, as a root mean square over a thumbnail: a copy that was compressed again is about 1 away."""
BLOCK = 1 << 21
"""Pairs that are compared at a time."""


def thumbnails(images: Images) -> Tensor:
    """(N, 64): the means of an 8 x 8 grid of the grey image, 0 to 255. Of vectors and smaller images (N, 0).

    In half precision, a sixteenth of a grey level: there is one for each image.
    """
    if len(images.shape) != 3 or min(images.shape[1:]) < SIDE:
        return torch.zeros(len(images), 0)
    found, done = torch.empty(len(images), SIDE * SIDE, dtype=torch.half), 0
    for part in images.chunks():
        for few in part.split(500):
            found[done : done + len(few)] = functional.adaptive_avg_pool2d(few.float().mean(1), SIDE).flatten(1)
            done += len(few)
    return found


def nearest(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each thumbnail (N, 64) to the nearest of others (M, 64), a root mean square, and its row: (N,)."""
    others = others.float()
    found = [
        torch.cdist(part.float(), others).min(1) for part in images.split(max(1, BLOCK // max(1, len(others))))
    ]  # fmt: skip
    distance = torch.cat([each.values for each in found]) / images.shape[1] ** 0.5
    return distance, torch.cat([each.indices for each in found])


def near(images: Images, others: Images) -> Tensor:
    """Which images are within `CLOSE` of one of others, bool (N,).

    The means of two thumbnails differ by no more than the thumbnails do, so that only those are compared whose means
    are as close.
    """
    mine, theirs = thumbnails(images), thumbnails(others)
    close = torch.zeros(len(images), dtype=torch.bool)
    if not mine.shape[1] or not len(others):
        return close
    theirs = theirs[theirs.mean(1, dtype=torch.float).argsort()]
    means, order = theirs.mean(1, dtype=torch.float), mine.mean(1, dtype=torch.float).argsort()
    for rows in order.split(512):
        middle = mine[rows].mean(1, dtype=torch.float)
        low = int(torch.searchsorted(means, middle[:1] - CLOSE))
        high = int(torch.searchsorted(means, middle[-1:] + CLOSE, right=True))
        if low < high:
            close[rows] = nearest(mine[rows], theirs[low:high])[0] <= CLOSE
    return close
