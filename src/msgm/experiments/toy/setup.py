"""The toy: three Gaussians in the plane, of which the middle one is to be forgotten; its objectives and budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...data import Images
from ...forgetting.combine import Weighted
from ...forgetting.methods import Method, erasediff, obtuse, orthogonal, standard, unseen
from ...forgetting.terms import Denoising
from ...model.score import ScoreModel
from ...process.sde import SDE, VESDE
from ..exact.mixture import GaussianMixture
from ..exact.optima import optimum

PROCESS: SDE = VESDE()
RULE = "label == 1"
POINTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Toy:
    """0.4 N((-a, -a), I) + 0.2 N(0, I) + 0.4 N((a, a), I); the middle component is forgotten."""

    name: str
    a: float

    @cached_property
    def data(self) -> GaussianMixture:
        """p_data."""
        return GaussianMixture([0.4, 0.2, 0.4], [[-self.a, -self.a], [0.0, 0.0], [self.a, self.a]])

    @cached_property
    def retain(self) -> GaussianMixture:
        """p_g."""
        return GaussianMixture([0.5, 0.5], [[-self.a, -self.a], [self.a, self.a]])

    @cached_property
    def forget(self) -> GaussianMixture:
        """p_f."""
        return GaussianMixture([1.0], [[0.0, 0.0]])

    def points(self, seed: int) -> Images:
        """Training points, the component of each as its label."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [round(float(w) * POINTS) for w in self.data.weights]
        parts = [
            GaussianMixture([1.0], [m.tolist()]).sample(n, generator)
            for n, m in zip(sizes, self.data.means, strict=True)
        ]
        labels = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
        return Images.of(torch.cat(parts).float(), columns={"label": labels}, name=f"{self.name} toy")

    def nearest_forgotten(self, x: Tensor) -> Tensor:
        """Which points (N, 2) lie nearest the forgotten mode, bool (N,): the zone."""
        return torch.cdist(x.double(), self.data.means).argmin(1) == 1


TOYS = {toy.name: toy for toy in (Toy(name="overlapping", a=2.0), Toy(name="separated", a=6.0))}

OBJECTIVES: dict[str, tuple[str, Callable[..., Method]]] = {
    "standard": ("Standard", lambda alpha, every: standard()),
    "unseen": ("Unseen", lambda alpha, every: unseen()),
    "orthogonal": ("Orthogonal", orthogonal),
    "orthogonal-inner": ("Orthogonal, inner", lambda **o: orthogonal(form="inner", **o)),
    "orthogonal-literal": ("Orthogonal, literal", lambda **o: orthogonal(form="literal", **o)),
    "obtuse": ("Obtuse, windowed", obtuse),
    "obtuse-literal": ("Obtuse, literal", lambda **o: obtuse(form="literal", **o)),
    "erasediff": ("EraseDiff's target", erasediff),
}
"""Title and recipe of each objective."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is spent on each run.

    Args:
        steps: of re-training.
        tuning: steps of fine-tuning.
        batch: points a step, of each set.
        seeds: runs of each objective.
        study_seeds: runs of each cell of the two studies.
        test: points of each set whose likelihood is measured, other ones for each seed.
        nll_steps: Runge-Kutta steps; half of what is reported, which has twice as many. Four times as many where these
            fail their check.
        samples: drawn of each model, by each sampler.
    """

    steps: int = 6000
    tuning: int = 3000
    batch: int = 384
    seeds: int = 5
    study_seeds: int = 3
    test: int = 300
    nll_steps: int = 12
    samples: int = 2000


BUDGETS = {"small": Budget(), "paper": Budget(steps=20_000, tuning=5_000, seeds=10, study_seeds=5, samples=10_000)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A toy and an objective with its weights: what has one exact optimum."""

    toy: str
    objective: str
    alpha: float = 0.7
    every: int = 1
    separate: bool = False

    @property
    def method(self) -> Method:
        """The recipe; its retain loss weighs all times alike, as the paper's does and the exact optima want."""
        made = OBJECTIVES[self.objective][1](alpha=self.alpha, every=self.every)
        combine = Weighted(alpha=self.alpha, every=self.every, separate=self.separate)
        return replace(made, retain=Denoising(weighting="noise"), combine=combine)

    @property
    def key(self) -> str:
        """A name for files."""
        weights = f"-{self.alpha:g}-{self.every}" if self.method.forget is not None else ""
        return f"{self.toy}-{self.objective}{weights}{'-separate' if self.separate else ''}"

    @property
    def grids(self) -> tuple[int, ...]:
        """Steps for the optimum's likelihood; the windowed one costs twenty times the others, found by iteration."""
        return (24,) if self.objective == "obtuse" else (24, 96)

    def optimum(self) -> ScoreModel | None:
        """The exact optimum, or None where none is known."""
        toy = TOYS[self.toy]
        if self.objective == "standard":
            return toy.data.as_model(PROCESS)
        return None if self.separate else optimum(self.method, toy.retain, toy.forget, PROCESS)
