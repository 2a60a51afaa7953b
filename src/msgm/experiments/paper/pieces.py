"""The pieces of a grid: a judge, Standard models, models that forget, and an audit of each. Each leaves a result.json.

What is finished is never done again; a training that was broken off goes on from its saved state.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ...data import ForgetRequest, Images, Source, Split
from ...forgetting.methods import METHODS, Method
from ...formats.native import RECORD, load
from ...metrics.judge import Judge, train_judge
from ...model.networks import preset
from ...model.score import ScoreModel
from ...process.sde import PROCESSES
from ...report.page import write_json
from ...report.pictures import grid, png
from ...storage import read_json, write_bytes
from ...training.loop import Diverged, train, unlearn
from ...training.runs import STATE, RunSpec
from ...training.runtime import Runtime
from ...training.settings import TrainSettings
from .audit import SHOWN, Auditor, real
from .budgets import Budget, Kind
from .speed import measure
from .tables import Origin, ProcessName, Request, Table

RESULT, MODEL = "result.json", "model"

Settings = TypeVar("Settings", bound=TrainSettings)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of work; ``key`` names its folder. ``model`` makes a model, ``audit`` measures the one beside it."""

    key: str
    kind: Literal["speed", "judge", "model", "audit"]
    process: ProcessName = "vp"
    origin: Origin = "tuned"
    method: str = "standard"
    seed: int = 0

    def of(self, kind: Literal["model", "audit"]) -> Piece:
        """The piece that makes the model, or the one that measures it."""
        return replace(self, kind=kind, key=f"{Path(self.key).parent}/{kind}")


def pieces(tables: Sequence[Table], budget: Budget) -> list[Piece]:
    """All pieces that the tables need, what matters most first: what is there when time is up is worth most."""
    parts = [part for table in tables for part in table.parts]
    processes = list(dict.fromkeys(part.process for part in parts))
    origins = {o: dict.fromkeys(part.process for part in parts if part.origin == o) for o in ("tuned", "scratch")}

    def pair(process: ProcessName, origin: Origin, method: str, seed: int = 0) -> Iterator[Piece]:
        folder = f"{process}/{origin}/{method}/seed-{seed}" if method != "standard" else f"{process}/standard"
        made = Piece(key=f"{folder}/model", kind="model", process=process, origin=origin, method=method, seed=seed)
        yield from (made, made.of("audit"))

    found = [Piece(key="judge", kind="judge")]
    if any(kind.seconds is not None for kind in budget.kinds.values()):
        found.insert(0, Piece(key="speed", kind="speed"))
    for seed in range(budget.seeds):
        for process in processes:
            if seed == 0:
                found += pair(process, "scratch", "standard")
            if process in origins["tuned"]:
                found += [p for method in budget.methods for p in pair(process, "tuned", method, seed)]
    for process in origins["scratch"]:
        found += [p for method in budget.retrain for p in pair(process, "scratch", method)]
    return found


class Deadline:
    """A `Watch` that ends a training, state saved, once ``minutes`` have passed since it was made; None: never."""

    def __init__(self, minutes: float | None) -> None:
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def passed(self) -> bool:
        """Whether time is up."""
        return time.monotonic() > self.end

    def __call__(self, step: int, average: ScoreModel) -> bool:
        if self.passed:
            signal.raise_signal(signal.SIGINT)
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """All that the pieces of one grid share; `do` does one of them."""

    out: Path
    budget: Budget
    request: Request
    place: str
    """Folder of the data set."""
    runtime: Runtime
    deadline: Deadline
    command: str = ""

    @cached_property
    def data(self) -> tuple[Images, Images]:
        """Training and test images."""
        source = Source(self.place, size=self.budget.image_size)
        return source.open("train"), source.open("test")

    @cached_property
    def spread(self) -> float:
        """The images' standard deviation in model space."""
        return round(float(self.data[0].rows().float().std()) / 128, 2)

    @cached_property
    def split(self) -> Split:
        """The training images in two."""
        return ForgetRequest(self.request.rule).split(self.data[0])

    @cached_property
    def auditor(self) -> Auditor:
        """With the judge that was trained here."""
        return Auditor(
            judge=Judge.load(self.out / "judge" / MODEL).to(self.runtime.device), test=self.data[1],
            request=ForgetRequest(self.request.rule), settings=self.budget.audit, runtime=self.runtime,
        )  # fmt: skip

    def result(self, piece: Piece) -> dict[str, Any] | None:
        """What a finished piece found."""
        path = self.out / piece.key / RESULT
        return read_json(path) if path.exists() else None

    def do(self, piece: Piece) -> None:
        """Do a piece, or go on with it, and store its result. Raises Interrupted where time is up on the way."""
        began = time.monotonic()
        found = {"speed": self._speed, "judge": self._judge, "model": self._model, "audit": self._audit}[piece.kind](
            piece
        )
        spent = {"piece_seconds": time.monotonic() - began, "runtime": self.runtime.to_dict()}
        write_json(self.out / piece.key / RESULT, {**found, **spent})

    def fresh(self, process: ProcessName, seed: int = 0) -> ScoreModel:
        """An untrained model."""
        images, chosen = self.data[0], preset(self.budget.network, self.data[0].shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = chosen.build(images.shape[0])
        return ScoreModel(
            network, PROCESSES[process](), shape=images.shape, prediction=self.budget.kinds[process].prediction,
            sigma_data=self.spread, patch=chosen.patch,
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
        speed = read_json(self.out / "speed" / RESULT)["steps_per_second"][rate]
        steps = min(settings.steps, max(1, round(seconds * speed, -2 if seconds * speed > 1000 else 0)))
        return replace(settings, steps=int(steps))

    def kind(self, piece: Piece) -> Kind:
        """How the models of a piece's process are made."""
        return self.budget.kinds[piece.process]

    def _speed(self, piece: Piece) -> dict[str, Any]:
        return measure(
            self.fresh(next(iter(self.budget.kinds))), budget=self.budget, split=self.split, test=self.data[1],
            run=self.spec(None), runtime=self.runtime,
        )  # fmt: skip

    def _judge(self, piece: Piece) -> dict[str, Any]:
        train_images, test = self.data
        judge = train_judge(
            train_images, test, self.budget.judge, names=self.request.names[: int(train_images.labels.max()) + 1],
            device=self.runtime.device.type, progress=False,
        )  # fmt: skip
        judge.save(self.out / piece.key / MODEL)
        return {
            "accuracy": judge.accuracy,
            "confusion": judge.confusion.tolist(),
            "names": list(judge.names),
            "junk_recall": judge.junk_recall,
            "real_called_junk": judge.real_called_junk,
            "real": real(self.auditor, train_images),
        }

    def _model(self, piece: Piece) -> dict[str, Any]:
        folder, kind = self.out / piece.key, self.kind(piece)
        own = piece.origin == "scratch"
        settings = (
            self.sized(replace(kind.train, seed=piece.seed), kind.seconds, "train")
            if own
            else self.sized(replace(kind.tune, seed=piece.seed), kind.tune_seconds, "tune")
        )
        began, whole, status = time.monotonic(), not (folder / STATE).exists(), "finished"
        if not (folder / RECORD).exists():
            method, run = recipe(piece.method), self.spec(folder)
            try:
                if own:
                    data: Images | Split = self.data[0] if piece.method == "standard" else self.split
                    model = self.fresh(piece.process, piece.seed)
                    train(model, data, method=method, settings=settings, run=run, watch=self.deadline)
                else:
                    parent = load(self.out / piece.process / "standard" / MODEL)
                    unlearn(parent, self.split, method=method, settings=settings, run=run, watch=self.deadline)  # type: ignore[arg-type]
            except Diverged as problem:
                status = str(problem)
        return {
            "status": status,
            "settings": asdict(settings),
            "method": recipe(piece.method).to_dict(),
            "seconds": time.monotonic() - began if whole else None,
        }

    def _audit(self, piece: Piece) -> dict[str, Any]:
        folder = self.out / piece.of("model").key
        draws, picture = {}, None
        for draw in self.budget.audit.draws:
            draws[draw.name], pixels = self.auditor.samples(str(folder), draw)
            picture = pixels[:SHOWN] if picture is None else picture
        assert picture is not None
        write_bytes(self.out / piece.key / "samples.png", samples(picture))
        return {"draws": draws, "nll": self.auditor.likelihoods(str(folder))}


def recipe(name: str) -> Method:
    """The method of this name as it stands."""
    return METHODS[name]()


def samples(pixels: Tensor) -> bytes:
    """A small picture of samples, ten a row."""
    return png(grid(pixels, columns=10, scale=1, gap=1))
