"""One step: its losses and what they ask of the weights (`step`, which changes nothing), and the move itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..forgetting.methods import Method
from ..forgetting.regularise import Prepared
from ..model.memory import Halving
from ..model.score import ScoreModel
from ..model.vectors import flatten
from ..processes import here
from .objective import Batch, Objective
from .settings import TrainSettings


@dataclass(kw_only=True, eq=False)
class State:
    """What changes while a run goes on.

    ``weights`` and ``averaged`` are all weights of ``model`` and of ``average``, one vector (P,) each: to change one
    changes the model. ``good`` (P,) is the average when all was well. ``smooth`` and ``lowest`` are the running mean
    of the retain loss and its lowest value. ``recovered`` is the step at which the run went back to its good weights,
    if it did. ``halving`` knows how many images fit the memory.
    """

    model: ScoreModel
    average: ScoreModel
    weights: Tensor
    averaged: Tensor
    good: Tensor
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    smooth: float = math.nan
    lowest: float = math.inf
    recovered: int = 0
    halving: Halving = field(default_factory=Halving)

    @classmethod
    def begin(cls, model: ScoreModel, method: Method, settings: TrainSettings) -> State:
        """The state before the first step, of a model that is where it will be trained."""
        model.train()
        average = copy.deepcopy(model).requires_grad_(False)
        weights, averaged = flatten(model), flatten(average)
        names = ("optimizer", "forget_optimizer") if method.combine.separate else ("optimizer",)
        return cls(
            model=model, average=average, weights=weights, averaged=averaged, good=averaged.clone(),
            optimizers={
                name: torch.optim.AdamW([weights], lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
                for name in names
            },
        )  # fmt: skip

    def recover(self, step: int) -> None:
        """Go on from the good weights after a step that exploded: the moments and the running mean begin again."""
        self.weights.copy_(self.good)
        self.averaged.copy_(self.good)
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        self.step, self.smooth, self.recovered = step - 1, math.nan, step


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """The losses of a step, and a direction (P,) for each optimiser, with its length."""

    retain: Tensor
    forget: Tensor | None
    directions: Sequence[Tensor]
    norms: Sequence[Tensor]


def step(objective: Objective, batch: Batch, state: State) -> Step:
    """The losses on this batch, and what they ask of the weights; all directions are found before any weight moves.

    Losses and gradients are means over the whole batch, whichever process has which rows, before any is combined.
    """
    everyone, share, due = here(), batch.share, objective.due(batch.step)
    combine, weights = objective.method.combine, state.weights
    parameters = list(state.model.parameters())

    def gradient(loss: Tensor, *, last: bool = True) -> Tensor:
        """By all weights, one flat vector."""
        for p in parameters:
            p.grad = None
        loss.backward(retain_graph=not last)
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])

    def everything(part: Batch) -> list[Tensor]:
        """The losses, the forget loss where it is due, and the gradients of what is differentiated."""
        retain, forget = objective.losses(part)
        losses = combine.parts(retain, forget) if objective.method.forget is not None else [retain]
        gradients = [gradient(loss, last=loss is losses[-1]) for loss in losses]
        return [*(loss.detach() for loss in (retain, forget) if loss is not None), *gradients]

    def forgetting(part: Batch) -> list[Tensor]:
        """The gradient of the forget loss alone."""
        loss = objective.losses(part)[1]
        assert loss is not None
        return [gradient(loss)]

    def mean(find: Callable[[Batch], list[Tensor]]) -> list[Tensor]:
        """What is found, over all rows: of this process', at once or in parts, and of the others'."""
        rows = range(share.first, share.end)
        parts = state.halving(rows, lambda some: (len(some) / len(rows), find(batch.part(some))))
        _, found = parts[0]
        if len(parts) > 1:
            each = zip(*([part * value for value in values] for part, values in parts), strict=True)
            found = [torch.stack(values).sum(0) for values in each]
        return [everyone.mean(value, share) for value in found]

    def probe(shift: Tensor) -> Tensor:
        """The gradient of this batch's forget loss where the weights are moved by ``shift``."""
        unmoved = weights.clone()
        weights.add_(shift)
        try:
            return mean(forgetting)[0]
        finally:
            weights.copy_(unmoved)

    found = mean(everything)
    losses, gradients = found[: 1 + due], found[1 + due :]
    directions = combine.direction(gradients, probe)
    if objective.regularise is not None:
        directions = [objective.regularise.direction(directions[0], weights, due)]
    return Step(
        retain=losses[0], forget=losses[1] if due else None, directions=directions,
        norms=[direction.norm() for direction in directions],
    )  # fmt: skip


def update(state: State, found: Step, settings: TrainSettings, regularise: Prepared | None = None) -> None:
    """Move the weights: each optimiser against its direction, clipped; half as far once a run has recovered."""
    for optimizer, direction, length in zip(state.optimizers.values(), found.directions, found.norms, strict=False):
        optimizer.param_groups[0]["lr"] = settings.rate(state.step) * (0.5 if state.recovered else 1.0)
        state.weights.grad = direction * (settings.clip / (length + 1e-6)).clamp(max=1)
        optimizer.step()
    if regularise is not None:
        state.weights.copy_(regularise.weights(state.weights))


def follow(average: Tensor, weights: Tensor, decay: float) -> None:
    """The average goes a part of the way to the weights: decay * average + (1 - decay) * weights."""
    average.lerp_(weights, 1 - decay)
