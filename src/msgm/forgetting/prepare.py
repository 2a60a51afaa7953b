"""What methods work out before their first step: importance of weights, an expert, a spread of checkpoints.

All of it is a function of the model, the data and the generator in `Start`, so that a resumed run finds the same again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import UserError
from ..model.score import ScoreModel
from ..model.vectors import flat, gradient
from ..progress import bar
from .batch import Rows, Start
from .terms import Denoising


def fisher(start: Start, data: Rows, samples: int, title: str) -> Tensor:
    """The diagonal of Fisher's information of the denoising loss l, image by image: F = d E[(grad l)^2], (P,).

    l is a mean over the d pixels. In an objective of sums over pixels F would be d^2 E[(grad l)^2]; divided by d, so
    that all its losses are means, it has this factor.
    """
    model, total = start.copy(), torch.zeros_like(flat(start.model))
    with bar(title, samples, show=start.show) as tick:
        for _ in range(samples):
            total += gradient(model, Denoising()(start.noised(model, data, 1))).square()
            tick(1)
    if not bool(total.isfinite().all()):
        raise UserError(f"{title}: it is not finite; this method starts from a model that was trained")
    return total * math.prod(model.shape) / samples


def fine_tuned(start: Start, data: Rows, *, steps: int, lr: float, title: str) -> Iterator[ScoreModel]:
    """A copy of the model after each of ``steps`` steps of plain training on the data (the same object each time)."""
    model = start.copy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    with bar(title, steps, show=start.show) as tick:
        for _ in range(steps):
            optimizer.zero_grad()
            Denoising()(start.noised(model, data, start.batch)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            tick(1)
            yield model
