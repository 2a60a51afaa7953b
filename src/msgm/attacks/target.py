"""What an adversary has beside the weights: images of both sets, what the parent makes, judges, and a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..data import Images, Split
from ..errors import UserError
from ..metrics.measured import Measured, Quantity
from ..metrics.rates import wilson
from ..model.score import ScoreModel
from ..sampling import DPMSolver
from ..sampling.filters import Filter

Found = dict[str, Tensor]
"""What an adversary brought back, by name: images in model space, labels, or a statistic of each image."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much work goes into the attacks on one model.

    Args:
        images: of each set: forgotten and retained, trained on and held out.
        samples: that each share of samples is taken of.
        sampling_steps: of the sampler that draws them (DPM-Solver++).
        shown: how many forget images fine-tuning sees, one run each.
        checkpoints: steps of fine-tuning after which samples are drawn, ascending.
        batch: images a step of fine-tuning.
        lr: its learning rate.
        levels: noise levels r = sigma / alpha for renoising.
        draws: noise draws for the loss of an image.
        nll_steps: Runge-Kutta steps of a likelihood.
        flow_steps: times of the grid on which images are encoded and decoded.
        searched: images for which a latent is searched for by descent.
        rounds: steps of that descent.
        scales: strengths of guidance.
        seed: of all that is random.
    """

    images: int = 150
    samples: int = 150
    sampling_steps: int = 10
    shown: tuple[int, ...] = (1, 10, 100)
    checkpoints: tuple[int, ...] = (5, 15, 40)
    batch: int = 16
    lr: float = 3e-4
    levels: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    draws: int = 8
    nll_steps: int = 4
    flow_steps: int = 12
    searched: int = 10
    rounds: int = 40
    scales: tuple[float, ...] = (2.0, 8.0, 32.0)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "samples", "sampling_steps", "batch", "draws", "nll_steps", "flow_steps", "searched"):
            if getattr(self, name) < 2:
                raise UserError(f"{name} must be 2 or more; got {getattr(self, name)}")
        for name in ("shown", "checkpoints", "levels", "scales"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or list(values) != sorted(set(values)):
                raise UserError(f"{name} must be positive and ascending; got {values}")


SMALL = Budget()
FULL = Budget(
    images=500, samples=1000, sampling_steps=16, checkpoints=(5, 15, 40, 100, 300), draws=32, nll_steps=6,
    flow_steps=36, searched=50, rounds=200,
)  # fmt: skip
BUDGETS = {"small": SMALL, "full": FULL}


class Classifier(Protocol):
    """What says of samples (N, *) in model space which label they have, `JUNK` (-1) for none: `Judge` is one.

    ``features`` (N, F) are what a Fréchet distance compares.
    """

    def predict(self, x: Tensor) -> Tensor: ...

    def features(self, x: Tensor) -> Tensor: ...


class Guide(Protocol):
    """What has a differentiable log P(none of these labels | x_0): `Judge` is one."""

    def log_retain(self, forget: Collection[int]) -> Callable[[Tensor], Tensor]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohort:
    """Some images: ``rows`` (n, *) as stored, ``points`` (n, *) in model space, their ``labels`` (n,)."""

    rows: Tensor
    points: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What all models are attacked with.

    Args:
        parent: the model before it was unlearned.
        train: what the parent was trained on, in two.
        held: images that no model was trained on, in two.
        column: the labels that the judge speaks of.
        judge: says what comes back.
        forgotten: labels that were to be forgotten, ``kept``: the judge's others.
        guide: another judge, which guides; without one nothing is guided, and ``unguided`` says why.
        other: images that have nothing to do with the data, to fine-tune on.
        parent_share: share of the parent's samples that the judge takes for what was to be forgotten.
        budget: how much work an attack may be.
    """

    parent: ScoreModel
    train: Split
    held: Split
    column: str
    judge: Classifier
    forgotten: frozenset[int]
    kept: frozenset[int]
    guide: Guide | None = None
    unguided: str = "there is no second judge to guide with"
    other: Images | None = None
    parent_share: float
    budget: Budget

    @property
    def cohorts(self) -> Mapping[str, Cohort]:
        """``forget`` and ``retain``, that the parent was trained on; ``held forget`` and ``held retain``."""
        sets = {
            "forget": self.train.forget, "retain": self.train.retain, "held forget": self.held.forget,
            "held retain": self.held.retain,
        }  # fmt: skip
        return {name: self._cohort(images) for name, images in sets.items()}

    def _cohort(self, images: Images) -> Cohort:
        some = self.some(images, self.budget.images)
        return Cohort(rows=some.rows(), points=self.everything(some), labels=some.columns[self.column])

    def everything(self, images: Images) -> Tensor:
        """All of the images in model space: pixels at the middle of their steps, vectors as they are."""
        rows = images.rows()
        return rows if rows.is_floating_point() else self.parent.space.to_model(rows)

    def some(self, images: Images, n: int) -> Images:
        """n of the images at random, or all that there are; more of them hold fewer."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.budget.seed))
        return images.select(order[:n])

    def pixels(self, x: Tensor) -> Tensor:
        """Points of model space (N, C, H, W) as uint8 pixels."""
        return self.parent.space.to_pixels(x)

    def features(self, x: Tensor) -> Tensor:
        """The judge's features (N, F) of samples (N, *)."""
        return self.judge.features(self.seen(x, self.judge))

    def seen(self, x: Tensor, by: object) -> Tensor:
        """Points of the models' space in that of a judge, if it has one of its own."""
        return self.parent.space.moved(x, getattr(by, "space", self.parent.space))

    def samples(self, model: ScoreModel) -> Tensor:
        """Samples of a model, (samples, *)."""
        budget = self.budget
        return DPMSolver(model, steps=budget.sampling_steps).sample(budget.samples, seed=budget.seed).cpu()

    def verdicts(self, x: Tensor) -> Tensor:
        """The judge's label of each of x (N, *), points of the models' space: (N,)."""
        return self.judge.predict(self.seen(x, self.judge))

    def forgets(self, x: Tensor) -> Tensor:
        """Whether the judge takes each of x (N, *) for what was to be forgotten: bool (N,)."""
        return torch.isin(self.verdicts(x), torch.tensor(sorted(self.forgotten)))

    def share(self, quantity: Quantity, x: Tensor) -> Measured:
        """The share of x (N, *) that the judge takes for what was to be forgotten."""
        return part(quantity, self.forgets(x))


def part(quantity: Quantity, hits: Tensor) -> Measured:
    """The mean of numbers in [0, 1], one an image, with Wilson's interval.

    For shares of several tries an image it is too wide: no law on [0, 1] has a larger variance than that of hits.
    """
    hits = hits.double()
    rate = wilson(float(hits.sum()), len(hits))
    return quantity.of(rate.value, low=rate.low, high=rate.high, n=rate.n)


def average(quantity: Quantity, values: Tensor, z: float = 1.96) -> Measured:
    """The mean of numbers (n,), with its standard error and the normal interval."""
    values = values.double()
    mean, error = float(values.mean()), float(values.std() / len(values) ** 0.5)
    return quantity.of(mean, low=mean - z * error, high=mean + z * error, stderr=error, n=len(values))


def bare(model: ScoreModel) -> ScoreModel:
    """The model without its filters: who holds the weights leaves them off."""
    while isinstance(model, Filter):
        model = model.network
    return model


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack: its name, and the question that it answers. The verdict is about all its numbers but the details."""

    name: str
    question: str
    known: Mapping[str, float] = field(default_factory=dict)
    """Numbers that a retrained model has by its making, with no need to measure one."""
    prepare: Callable[[ScoreModel, Target], Found]
    measure: Callable[[Found, Target], dict[str, Measured]]
