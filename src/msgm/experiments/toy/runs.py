"""The runs of the toy experiment: what is trained, how, and what one of them leaves behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ...data import ForgetRequest
from ...errors import UserError
from ...formats import load
from ...formats.native import RECORD
from ...model.networks import MLP
from ...model.precondition import EDM
from ...model.score import ScoreModel
from ...training.loop import Diverged, train, unlearn
from ...training.runs import RunSpec, completed
from ...training.settings import TrainSettings, UnlearnSettings
from .measure import measure
from .setup import OBJECTIVES, PROCESS, RULE, TOYS, Budget, Setting, Toy

Mode = Literal["retrain", "fine-tune"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a setting, re-trained or fine-tuned from the Standard model of the same toy and seed."""

    setting: Setting
    mode: Mode
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

    def add(setting: Setting, mode: Mode, seeds: int, study: str) -> None:
        for seed in range(seeds):
            run = Run(setting=setting, mode=mode, seed=seed, studies=(study,))
            known = runs.get(run.key)
            runs[run.key] = replace(run, studies=(*known.studies, study)) if known else run

    modes: tuple[Mode, ...] = ("retrain", "fine-tune")
    for mode in modes:
        for objective in OBJECTIVES:
            for toy in toys:
                if mode == "retrain" or objective != "standard":
                    add(Setting(toy=toy, objective=objective), mode, budget.seeds, "main")
    for toy in toys:
        for objective in ("orthogonal", "obtuse", "obtuse-literal"):
            for alpha in ALPHAS:
                add(Setting(toy=toy, objective=objective, alpha=alpha), "fine-tune", budget.study_seeds, "alpha")
        for objective in ("orthogonal", "obtuse"):
            for every, separate in SCHEDULES:
                setting = Setting(toy=toy, objective=objective, every=every, separate=separate)
                add(setting, "fine-tune", budget.study_seeds, "schedule")
    return list(runs.values())


def own_seed(seed: int, number: int) -> int:
    """What the n-th repetition draws from, in an experiment of this seed: training and test points, weights, noise."""
    return 1000 * seed + number


def settings_of(run: Run, budget: Budget, seed: int) -> TrainSettings:
    """Adam at 1e-2; most times where the modes part and merge, sigma about 5.

    An optimum is one at each point and time, so how often a time is drawn does not move it, but what is left to
    learn lies there.
    """
    common: dict[str, Any] = {
        "batch": budget.batch,
        "lr": 1e-2,
        "clock": "lognormal",
        "noise_mean": 1.6,
        "ema": 0.999,
        "save_every": 10_000,
        "seed": own_seed(seed, run.seed),
    }
    if run.mode == "retrain":
        return TrainSettings(steps=budget.steps, warmup=50, cooldown=0.7, **common)
    return UnlearnSettings(steps=budget.tuning, warmup=20, cooldown=0.9, **common)


def fresh(toy: Toy, seed: int) -> ScoreModel:
    """An untrained model; ``sigma_data`` is the standard deviation of the data along one axis."""
    torch.manual_seed(seed)
    return ScoreModel(
        MLP(width=64), PROCESS, shape=(2,), precondition=EDM(sigma_data=round((1 + 0.8 * toy.a**2) ** 0.5, 2))
    )


def trained(run: Run, budget: Budget, seed: int, folder: Path) -> ScoreModel:
    """The model of a run; those that others need (`kept`) are stored in ``folder`` and read from there.

    A run that the guard stopped gives its last good weights; the record's ``status`` says so.
    """
    place = folder / run.key if kept(run) else None
    if place is not None and completed(place):
        return load(place)
    toy, settings = TOYS[run.setting.toy], settings_of(run, budget, seed)
    split = ForgetRequest(RULE).split(toy.points(settings.seed))
    options: dict[str, Any] = {
        "method": run.setting.method,
        "settings": settings,
        "run": RunSpec(folder=place, resume=True, overwrite=True, device="cpu", progress=False),
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
    began = time.process_time()
    model = trained(run, budget, seed, out)
    seconds = time.process_time() - began
    own = own_seed(seed, run.seed)
    found = measure(model, TOYS[run.setting.toy], budget, seed=own, tests=[own])
    total = time.process_time() - began
    status = model.record["status"]
    return {"run": asdict(run), "status": status, "seconds": seconds, "cpu_seconds": total, **found}
