"""A training run's folder while the run goes on: its loss curve, and the state from which it can be resumed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..formats.native import read_tensors, write_tensors
from ..model.score import ScoreModel
from ..storage import write_bytes

STATE, LOG = "resume.safetensors", "log.jsonl"


@dataclass(kw_only=True)
class Run:
    """What changes while a run goes on."""

    model: ScoreModel
    average: ScoreModel
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    smooth: float = math.nan
    lowest: float = math.inf


def store(run: Run, folder: Path, identity: str) -> None:
    """Save all that the next step depends on; ``identity`` is a hash of what must be the same on resuming."""
    tensors = {f"model.{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in run.average.state_dict().items()}
    for name, optimizer in run.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["run"] = torch.tensor([run.step, run.smooth, run.lowest], dtype=torch.float64)
    tensors["identity"] = torch.tensor(list(bytes.fromhex(identity)), dtype=torch.uint8)
    write_tensors(folder / STATE, tensors)


def restore(run: Run, folder: Path, identity: str) -> None:
    """Put a saved state into a fresh run. Raises UserError where it belongs to another run."""
    tensors = read_tensors(folder / STATE)
    if bytes(tensors["identity"].tolist()).hex() != identity:
        raise UserError(
            f"{folder} was started with other settings, data or parent; resume with the same or use another folder"
        )
    run.step = int(tensors["run"][0])
    run.smooth, run.lowest = float(tensors["run"][1]), float(tensors["run"][2])

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    run.model.load_state_dict(part("model."))
    run.average.load_state_dict(part("average."))
    for name, optimizer in run.optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part(f"{name}.").items():
            index, moment = key.split(".", 1)
            state.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


class Log:
    """``log.jsonl``: one line a step. A resumed run first drops the lines after its saved step."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self.path = folder / LOG if folder is not None else None
        self.step = step

    def __enter__(self) -> Log:
        if self.path is not None:
            kept = self.path.read_text().splitlines(keepends=True)[: self.step] if self.path.exists() else []
            write_bytes(self.path, "".join(kept).encode())
            self.file = self.path.open("a")
        return self

    def __call__(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            self.file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        if self.path is not None:
            self.file.flush()

    def __exit__(self, *error: object) -> None:
        if self.path is not None:
            self.file.close()


def read_log(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The loss curve of a run: dictionaries with step, retain, forget (None where it took no part) and norm."""
    return [json.loads(line) for line in (Path(folder) / LOG).read_text().splitlines()]
