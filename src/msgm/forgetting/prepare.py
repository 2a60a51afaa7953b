"""What methods work out before their first step: importance of weights, an expert, a spread of checkpoints.

All of it is a function of the model, the data and the generator in `Start`, so that a resumed run finds the same again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..progress import bar
from ..score import ScoreModel
from ..times import Clock, stratified
from .terms import Denoising, Noised


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The state before the first step: a model that may be used up, all data in its space, and how times are drawn.

    ``retain`` (N, *), ``forget`` (M, *); ``batch`` is the number of images a step; ``show`` asks for progress bars.
    """

    model: ScoreModel
    retain: Tensor
    forget: Tensor
    clock: Clock
    batch: int
    generator: torch.Generator
    show: bool = False

    def noised(self, model: ScoreModel, data: Tensor, n: int) -> Noised:
        """n random rows of the data, noised, and what the model says of them."""
        x0 = data[torch.randint(len(data), (n,), generator=self.generator).to(data.device)]
        t = self.clock(stratified(n, self.generator), model.sde).to(x0)
        eps = torch.randn(x0.shape, generator=self.generator).to(x0)
        x = model.sde.marginal(x0, t, eps)
        return Noised(x=x, t=t, eps=eps, noise=model(x, t), model=model, generator=self.generator)

    def copy(self) -> ScoreModel:
        """A model of its own, without dropout: what is prepared draws no other random numbers."""
        return copy.deepcopy(self.model).eval().requires_grad_(True)


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


def fisher(start: Start, data: Tensor, samples: int, title: str) -> Tensor:
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
    return total * data[0].numel() / samples


def fine_tuned(start: Start, data: Tensor, *, steps: int, lr: float, title: str) -> Iterator[ScoreModel]:
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
