"""The toy: three Gaussians in the plane, of which the middle one is to be forgotten. Here every claim can be checked.

A `Run` is one training: an objective, by re-training or fine-tuning, at some alpha and schedule, with one seed. `plan`
lists all that the experiment makes; `execute` makes one and measures it (`toy_measure`); `toy_report` gathers them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..checkpoint import RECORD, load
from ..data import ForgetRequest, ImageData
from ..errors import UserError
from ..forgetting.combine import Weighted
from ..forgetting.methods import Method, erasediff, obtuse, orthogonal, standard, unseen
from ..forgetting.terms import Denoising
from ..networks import MLP
from ..score import ScoreModel
from ..sde import SDE, VESDE
from ..training import Diverged, TrainSettings, UnlearnSettings, train, unlearn
from .mixture import GaussianMixture
from .optima import optimum

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

    def points(self, seed: int) -> ImageData:
        """Training points, the component of each as its label."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [round(float(w) * POINTS) for w in self.data.weights]
        parts = [
            GaussianMixture([1.0], [m.tolist()]).sample(n, generator)
            for n, m in zip(sizes, self.data.means, strict=True)
        ]
        labels = torch.cat([torch.full((n,), k) for k, n in enumerate(sizes)])
        return ImageData(images=torch.cat(parts).float(), columns={"label": labels}, name=f"{self.name} toy")

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
        test: points of each set whose likelihood is measured.
        nll_steps: Runge-Kutta steps; half of what is reported, which has twice as many.
        samples: drawn of each model, by each sampler.
    """

    steps: int = 1500
    tuning: int = 400
    batch: int = 256
    seeds: int = 5
    study_seeds: int = 3
    test: int = 1000
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

    def optimum(self) -> ScoreModel | None:
        """The exact optimum, or None where none is known."""
        toy = TOYS[self.toy]
        if self.objective == "standard":
            return toy.data.as_model(PROCESS)
        return None if self.separate else optimum(self.method, toy.retain, toy.forget, PROCESS)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a setting, re-trained or fine-tuned from the Standard model of the same toy and seed."""

    setting: Setting
    mode: Literal["retrain", "fine-tune"]
    seed: int
    studies: tuple[str, ...] = field(default=("main",))

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.setting.key}-{self.mode}-{self.seed}"

    @property
    def parent(self) -> Run:
        """The Standard model that fine-tuning starts from."""
        return Run(setting=Setting(toy=self.setting.toy, objective="standard"), mode="retrain", seed=self.seed)


ALPHAS = (0.5, 0.7, 0.9, 0.99)
SCHEDULES = ((1, False), (4, False), (4, True))
"""``every`` and whether the forget loss has an optimiser of its own."""


def plan(budget: Budget, toys: Sequence[str] = tuple(TOYS)) -> list[Run]:
    """All runs: each objective re-trained and fine-tuned; alpha and the schedule by fine-tuning. Parents come first."""
    runs: dict[str, Run] = {}

    def add(setting: Setting, mode: Literal["retrain", "fine-tune"], seeds: int, study: str) -> None:
        for seed in range(seeds):
            run = Run(setting=setting, mode=mode, seed=seed, studies=(study,))
            known = runs.get(run.key)
            runs[run.key] = replace(run, studies=(*known.studies, study)) if known else run

    for mode in ("retrain", "fine-tune"):
        for objective in OBJECTIVES:
            for toy in toys:
                if mode == "retrain" or objective != "standard":
                    add(Setting(toy=toy, objective=objective), mode, budget.seeds, "main")  # type: ignore[arg-type]
    for toy in toys:
        for objective in ("orthogonal", "obtuse", "obtuse-literal"):
            for alpha in ALPHAS:
                add(Setting(toy=toy, objective=objective, alpha=alpha), "fine-tune", budget.study_seeds, "alpha")
        for objective in ("orthogonal", "obtuse"):
            for every, separate in SCHEDULES:
                setting = Setting(toy=toy, objective=objective, every=every, separate=separate)
                add(setting, "fine-tune", budget.study_seeds, "schedule")
    return list(runs.values())


def settings_of(run: Run, budget: Budget, seed: int) -> TrainSettings:
    """Adam at 3e-3 (fine-tuning 1e-3); noise levels around 1.6, where the modes part."""
    common: dict[str, Any] = {
        "batch": budget.batch,
        "noise_mean": 0.5,
        "save_every": 10_000,
        "seed": 1000 * seed + run.seed,
    }
    if run.mode == "retrain":
        return TrainSettings(steps=budget.steps, lr=3e-3, warmup=50, cooldown=0.7, ema=0.99, **common)
    return UnlearnSettings(steps=budget.tuning, lr=2e-3, warmup=20, cooldown=0.7, ema=0.98, **common)


def fresh(toy: Toy, seed: int) -> ScoreModel:
    """An untrained model; ``sigma_data`` is the standard deviation of the data along one axis."""
    torch.manual_seed(seed)
    return ScoreModel(
        MLP(width=64), PROCESS, shape=(2,), prediction="edm", sigma_data=round((1 + 0.8 * toy.a**2) ** 0.5, 2)
    )


def trained(run: Run, budget: Budget, seed: int, folder: Path) -> ScoreModel:
    """The model of a run; those that others need (`kept`) are stored in ``folder`` and read from there.

    A run that the guard stopped gives its last good weights; the record's ``status`` says so.
    """
    place = folder / run.key if kept(run) else None
    if place is not None and (place / RECORD).exists():
        return load(place)
    toy, settings = TOYS[run.setting.toy], settings_of(run, budget, seed)
    split = ForgetRequest(RULE).split(toy.points(settings.seed))
    options: dict[str, Any] = {
        "method": run.setting.method,
        "settings": settings,
        "out": place,
        "resume": place is not None and place.exists(),
        "device": "cpu",
        "progress": False,
    }
    try:
        if run.mode == "retrain":
            return train(fresh(toy, settings.seed), split, **options)
        parent = folder / run.parent.key
        if not (parent / RECORD).exists():
            raise UserError(f"{parent} is missing; the Standard models are trained first")
        return unlearn(load(parent), split, **options)
    except Diverged as error:
        return error.model


def kept(run: Run) -> bool:
    """Whether the model is stored: the Standard ones, which fine-tuning starts from, and those of the figures."""
    drawn = run.seed == 0 and run.mode == "retrain" and run.studies[0] == "main"
    return run.setting.objective == "standard" or drawn


def execute(run: Run, budget: Budget, seed: int, out: Path) -> dict[str, Any]:
    """Train and measure: the JSON object of one run."""
    from .toy_measure import measure

    began = time.process_time()
    model = trained(run, budget, seed, out / "models")
    seconds = time.process_time() - began
    return {
        "run": asdict(run),
        "status": model.record["status"],
        "seconds": seconds,
        **measure(model, TOYS[run.setting.toy], budget, seed=1000 * seed + run.seed),
    }
