"""What terms are given: a noised batch, and the state before the first step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ..model.score import ScoreModel
from ..process.times import Clock, stratified
from ..processes import Share


@dataclass(frozen=True, kw_only=True, eq=False)
class Noised:
    """A batch at its times: the noise ``eps`` in it, and what the network ``predicted``.

    Shapes: x, eps, predicted (B, *); t (B,).

    ``generator`` is for terms that draw numbers of their own; in training it is a function of the seed and the step.
    ``share`` says which rows these are where other processes have the others; numbers for each pixel come from
    `uniform`, so that an image meets the same ones whichever process has it.
    ``weight`` (B,) is what each retained image counts, ``progress`` the share of the run that is done, and ``pair``
    the other half of the step: the forget images at the same times and with the same eps, or the retained ones.
    ``retained`` are the retained images, for a term that `recalls` them.
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
    retained: Recalled | None = None
    share: Share | None = None

    def uniform(self) -> Tensor:
        """Numbers in [0, 1) of the shape of x."""
        whole = len(self.x) if self.share is None else self.share.of
        drawn = torch.rand((whole, *self.x.shape[1:]), generator=self.generator, device=self.drawn_on)
        return (drawn if self.share is None else drawn[self.share.rows]).to(self.predicted)

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


class Rows(Protocol):
    """Images in the model's space, (N, *), of which some are asked for at a time; a tensor is one."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """The rows of these numbers (n,), which are on ``device``."""
        ...


def everything(data: Rows) -> Tensor:
    """All rows at once."""
    return data[torch.arange(len(data), device=data.device)]


@dataclass(frozen=True, eq=False)
class Recalled:
    """Images (N, *) in the model's space for a term that asks for them at every step: ``all``, which are then held in
    memory, or some of their ``rows``."""

    rows: Rows

    @cached_property
    def all(self) -> Tensor:
        return self.rows if isinstance(self.rows, Tensor) else everything(self.rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """The rows of one set, then those of another."""

    first: Rows
    second: Rows

    @property
    def device(self) -> torch.device:
        return self.first.device

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: Tensor) -> Tensor:
        late = index >= len(self.first)
        rows = torch.cat([self.first[index[~late]], self.second[index[late] - len(self.first)]])
        return rows[torch.cat([(~late).nonzero()[:, 0], late.nonzero()[:, 0]]).argsort().to(rows.device)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The state before the first step: a model that may be used up, all data in its space, and how times are drawn.

    ``retain`` and ``forget`` give rows by number (`Rows`); ``batch`` is the number of images a step; ``compile`` asks
    for compiled networks, ``show`` for progress bars.
    """

    model: ScoreModel
    retain: Rows
    forget: Rows
    clock: Clock
    batch: int
    generator: torch.Generator
    compile: bool = False
    show: bool = False

    def noised(self, model: ScoreModel, data: Rows, n: int) -> Noised:
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
