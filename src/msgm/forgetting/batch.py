"""What terms are given: a noised batch, and the state before the first step."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..model.score import ScoreModel
from ..process.times import Clock, stratified


@dataclass(frozen=True, kw_only=True, eq=False)
class Noised:
    """A batch at its times: the noise ``eps`` in it, and what the network ``predicted``.

    Shapes: x, eps, predicted (B, *); t (B,).

    ``generator`` is for terms that draw numbers of their own; in training it is a function of the seed and the step.
    ``weight`` (B,) is what each retained image counts, ``progress`` the share of the run that is done, and ``pair``
    the other half of the step: the forget images at the same times and with the same eps, or the retained ones.
    """

    x: Tensor
    t: Tensor
    eps: Tensor
    predicted: Tensor
    model: ScoreModel
    generator: torch.Generator | None = None
    weight: Tensor | None = None
    progress: float = 0.0
    pair: Noised | None = None

    def rows(self, index: Tensor) -> Noised:
        """The images with these numbers (n,), of both halves."""
        return replace(
            self, x=self.x[index], t=self.t[index], eps=self.eps[index], predicted=self.predicted[index],
            weight=None if self.weight is None else self.weight[index],
            pair=None if self.pair is None else self.pair.rows(index),
        )  # fmt: skip

    @property
    def sigma(self) -> Tensor:
        """(B,), standard deviation of the noise."""
        return self.model.sde.sigma(self.t)

    @property
    def drawn_on(self) -> torch.device:
        """The device of ``generator``: where random numbers are drawn."""
        return self.generator.device if self.generator is not None else torch.device("cpu")

    @property
    def ratio(self) -> Tensor:
        """(B,), sigma / alpha."""
        return self.model.sde.log_ratio(self.t).exp()


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The state before the first step: a model that may be used up, all data in its space, and how times are drawn.

    ``retain`` (N, *), ``forget`` (M, *); ``batch`` is the number of images a step; ``compile`` asks for compiled
    networks, ``show`` for progress bars.
    """

    model: ScoreModel
    retain: Tensor
    forget: Tensor
    clock: Clock
    batch: int
    generator: torch.Generator
    compile: bool = False
    show: bool = False

    def noised(self, model: ScoreModel, data: Tensor, n: int) -> Noised:
        """n random rows of the data, noised, and what the model says of them."""
        x0 = data[torch.randint(len(data), (n,), generator=self.generator).to(data.device)]
        t = self.clock(stratified(n, self.generator), model.sde).to(x0)
        eps = torch.randn(x0.shape, generator=self.generator).to(x0)
        x = model.sde.marginal(x0, t, eps)
        return Noised(x=x, t=t, eps=eps, predicted=model(x, t), model=model, generator=self.generator)

    def copy(self) -> ScoreModel:
        """A model of its own, without dropout: what is prepared draws no other random numbers."""
        model = copy.deepcopy(self.model).eval().requires_grad_(True)
        if self.compile:
            model.network.compile(dynamic=False)
        return model
