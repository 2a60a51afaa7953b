"""What all pieces of a grid share: the images, the judge, untrained models, how long there is."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ...data import ForgetRequest, Images, Source, Split
from ...errors import Interrupted
from ...metrics.judge import Judge
from ...model.networks import preset
from ...model.precondition import PRECONDITIONS
from ...model.score import ScoreModel
from ...process.sde import PROCESSES
from ...progress import Tick
from ...storage import read_json
from ...training.runs import RunSpec
from ...training.runtime import Runtime
from ...training.settings import TrainSettings
from ..core.pieces import ROW
from .budgets import Budget
from .tables import ProcessName, Request

JUDGE, SPEED, MODEL = "judge", "speed", "model"

Settings = TypeVar("Settings", bound=TrainSettings)


class Deadline:
    """When to stop: ``minutes`` after it was made; None: never. It goes to other processes."""

    def __init__(self, minutes: float | None) -> None:
        self.end = math.inf if minutes is None else time.time() + 60 * minutes

    @property
    def passed(self) -> bool:
        """Whether time is up."""
        return time.time() > self.end

    def check(self) -> None:
        """Raise Interrupted if time is up."""
        if self.passed:
            raise Interrupted("time is up", resumable=True)


class Timed:
    """A `Watch` that tells how far a training is (``cost`` in all), and ends it, state saved, when time is up."""

    def __init__(self, deadline: Deadline, steps: int, tick: Tick, cost: float) -> None:
        self.deadline, self.tick, self.share, self.told = deadline, tick, cost / steps, 0

    def __call__(self, step: int, average: ScoreModel) -> bool:
        self.tick(self.share * (step - self.told))
        self.told = step
        if self.deadline.passed:
            signal.raise_signal(signal.SIGINT)
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}


@lru_cache(maxsize=2)
def opened(source: Source, split: Literal["train", "test"]) -> Images:
    """The images, read once in each process."""
    return source.open(split)


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that the pieces of one grid share. It goes to other processes."""

    out: Path
    budget: Budget
    request: Request
    data: Source
    runtime: Runtime
    deadline: Deadline
    command: str = ""

    @property
    def train(self) -> Images:
        """Training images."""
        return opened(self.data, "train")

    @property
    def test(self) -> Images:
        """Test images."""
        return opened(self.data, "test")

    @property
    def rule(self) -> ForgetRequest:
        """What is to be forgotten."""
        return ForgetRequest(self.request.rule)

    @property
    def split(self) -> Split:
        """The training images in two."""
        return self.rule.split(self.train)

    def judge(self) -> Judge:
        """The one that was trained here."""
        return Judge.load(self.out / JUDGE / MODEL).to(self.runtime.device)

    def identity(self) -> dict[str, Any]:
        """What every piece depends on, for JSON."""
        budget = self.budget
        return {
            "data": [self.train.digest, self.test.digest],
            "image_size": budget.image_size,
            "rule": self.request.rule,
            "network": budget.network,
            "judge": asdict(budget.judge),
            "precision": budget.precision,
        }

    def fresh(self, process: ProcessName, seed: int = 0) -> ScoreModel:
        """An untrained model of the training images."""
        return self.untrained(process, self.train, seed)

    def untrained(self, process: ProcessName, images: Images, seed: int = 0) -> ScoreModel:
        """An untrained model of these images."""
        chosen = preset(self.budget.network, images.shape)
        # The images' standard deviation in model space.
        spread = round(float(images.rows().float().std()) / 128, 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = chosen.build(images.shape[0])
        return ScoreModel(
            network, PROCESSES[process](), shape=images.shape, patch=chosen.patch,
            precondition=PRECONDITIONS[self.budget.kinds[process].prediction](sigma_data=spread),
        )  # fmt: skip

    def spec(self, folder: Path | None) -> RunSpec:
        """Where and how a training runs."""
        return RunSpec(
            folder=folder, resume=folder is not None, device=self.runtime.device.type,
            precision=self.runtime.precision, compile=self.runtime.compile, command=self.command, progress=False,
        )  # fmt: skip

    def sized(self, settings: Settings, seconds: float | None, rate: str) -> Settings:
        """The settings with as many steps as fit ``seconds`` at the measured ``rate`` (steps a second)."""
        if seconds is None:
            return settings
        speed = read_json(self.out / SPEED / ROW)["steps_per_second"][rate]
        steps = min(settings.steps, max(1, round(seconds * speed, -2 if seconds * speed > 1000 else 0)))
        return replace(settings, steps=int(steps))
