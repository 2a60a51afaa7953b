"""A model as it is used, not trained: in evaluation mode, with batches of its shape, type and place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .score import ScoreModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients; each part's own mode is restored after."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def blank(model: ScoreModel, n: int) -> Tensor:
    """An empty batch of n images of the model's shape, on its device, in its precision or float32 if that is less."""
    first = next(model.parameters(), torch.zeros(()))
    wide = torch.promote_types(first.dtype, torch.float32)
    return torch.empty((n, *model.shape), dtype=wide, device=first.device)
