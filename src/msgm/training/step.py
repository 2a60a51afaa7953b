"""One step: its losses and what they ask of the weights (`step`, which changes nothing), and the move itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..forgetting.methods import Method
from ..forgetting.regularise import Prepared
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
    of the retain loss and its lowest value.
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
    everyone = here()
    combine, weights = objective.method.combine, state.weights
    parameters = list(state.model.parameters())

    def gradient(loss: Tensor, *, last: bool = True) -> Tensor:
        """By all weights, one flat vector."""
        for p in parameters:
            p.grad = None
        loss.backward(retain_graph=not last)
        own = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        return everyone.mean(own, batch.share)

    def probe(shift: Tensor) -> Tensor:
        """The gradient of this batch's forget loss where the weights are moved by ``shift``."""
        unmoved = weights.clone()
        weights.add_(shift)
        try:
            loss = objective.losses(batch)[1]
            assert loss is not None
            return gradient(loss)
        finally:
            weights.copy_(unmoved)

    retain, forget = objective.losses(batch)
    losses = combine.parts(retain, forget) if objective.method.forget is not None else [retain]
    directions = combine.direction([gradient(loss, last=loss is losses[-1]) for loss in losses], probe)
    if objective.regularise is not None:
        directions = [objective.regularise.direction(directions[0], weights, forget is not None)]
    whole = [None if loss is None else everyone.mean(loss.detach(), batch.share) for loss in (retain, forget)]
    assert whole[0] is not None
    return Step(
        retain=whole[0], forget=whole[1], directions=directions, norms=[direction.norm() for direction in directions]
    )


def update(state: State, found: Step, settings: TrainSettings, regularise: Prepared | None = None) -> None:
    """Move the weights: each optimiser against its direction, clipped."""
    for optimizer, direction, length in zip(state.optimizers.values(), found.directions, found.norms, strict=False):
        optimizer.param_groups[0]["lr"] = settings.rate(state.step)
        state.weights.grad = direction * (settings.clip / (length + 1e-6)).clamp(max=1)
        optimizer.step()
    if regularise is not None:
        state.weights.copy_(regularise.weights(state.weights))


def follow(average: Tensor, weights: Tensor, decay: float) -> None:
    """The average goes a part of the way to the weights: decay * average + (1 - decay) * weights."""
    average.lerp_(weights, 1 - decay)
