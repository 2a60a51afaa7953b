"""The weights of a model, or their gradient, as one flat vector."""

from __future__ import annotations

import torch
from torch import Tensor

from .score import ScoreModel


def flat(model: ScoreModel) -> Tensor:
    """All weights of a model as one vector (P,), a copy."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def flatten(model: ScoreModel) -> Tensor:
    """All weights of a model as one vector (P,), of which they are views from here on: to change it changes them.

    A step of an optimiser, or of an average, is one operation on a vector, and hundreds on the tensors of a network.
    """
    parameters, vector = list(model.parameters()), flat(model)
    for p, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        p.data = part.view_as(p)
    return vector


def gradient(model: ScoreModel, loss: Tensor) -> Tensor:
    """The gradient of a loss by all weights, (P,)."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([g.reshape(-1) for g in found])
