"""A training run's folder while the run goes on: its loss curve, and the state from which it can be resumed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..formats.native import RECORD, read_tensors, write_tensors
from ..storage import claim, write_bytes
from .step import State

STATE, LOG = "resume.safetensors", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Where a run is kept, and on what it computes. What its result is made of stands in the settings, seed included.

    Args:
        folder: for the model, its record and log.jsonl; without one nothing is written.
        resume: go on with a run that was stopped.
        overwrite: replace the run that is in the folder.
        device: auto (the GPU if there is one), cpu or cuda.
        precision: fp32, or bf16 for the network alone.
        compile: compile the network, on a GPU; that takes a minute or two, once.
        command: the command line, for the record.
        progress: show a bar.
    """

    folder: str | os.PathLike[str] | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    command: str = ""
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder of a run, if it has one; ``identity`` is a hash of what must be the same on resuming."""

    path: Path | None
    identity: str

    @classmethod
    def open(cls, run: RunSpec, identity: str) -> Folder:
        """Claim the folder for a run of this identity. Raises UserError where it holds something else."""
        if run.folder is None:
            return cls(path=None, identity=identity)
        path = Path(run.folder)
        if not (run.resume and (path / STATE).exists()):
            if run.resume and (path / RECORD).exists():
                raise UserError(f"{path} is finished; there is nothing to resume. Use another folder or --overwrite")
            # A run killed before its first state has only a log: resuming it starts it again.
            claim(path, overwrite=run.overwrite or (run.resume and not (path / "unet").exists()))
            path.mkdir(parents=True, exist_ok=True)
            (path / LOG).unlink(missing_ok=True)
            (path / STATE).unlink(missing_ok=True)
        return cls(path=path, identity=identity)

    def store(self, state: State) -> None:
        """Save all that the next step depends on."""
        if self.path is None:
            return
        tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
        for name, optimizer in state.optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        tensors["run"] = torch.tensor([state.step, state.smooth, state.lowest], dtype=torch.float64)
        tensors["identity"] = torch.tensor(list(bytes.fromhex(self.identity)), dtype=torch.uint8)
        write_tensors(self.path / STATE, tensors)

    def restore(self, state: State) -> None:
        """Put a saved state, if there is one, into a fresh one. Raises UserError where it belongs to another run."""
        if self.path is None or not (self.path / STATE).exists():
            return
        tensors = read_tensors(self.path / STATE)
        if bytes(tensors["identity"].tolist()).hex() != self.identity:
            raise UserError(
                f"{self.path} was started with other settings, data or parent; resume with the same or use another "
                f"folder"
            )
        state.step = int(tensors["run"][0])
        state.smooth, state.lowest = float(tensors["run"][1]), float(tensors["run"][2])

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        state.model.load_state_dict(part("model."))
        state.average.load_state_dict(part("average."))
        state.good = state.averaged.clone()
        for name, optimizer in state.optimizers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in part(f"{name}.").items():
                index, moment = key.split(".", 1)
                moments.setdefault(int(index), {})[moment] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


class Log:
    """``log.jsonl``: one line a step. A resumed run first drops the lines after its saved step."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self.path = folder / LOG if folder is not None else None
        self.step = step

    def __enter__(self) -> Log:
        if self.path is not None:
            kept = self.path.read_text().splitlines(keepends=True)[: self.step] if self.path.exists() else []
            write_bytes(self.path, "".join(kept).encode())
            self.file = self.path.open("a", buffering=1)
        return self

    def __call__(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            self.file.write(json.dumps(line) + "\n")

    def __exit__(self, *error: object) -> None:
        if self.path is not None:
            self.file.close()


def read_log(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The loss curve of a run: dictionaries with step, retain, forget (None where it took no part) and norm."""
    return [json.loads(line) for line in (Path(folder) / LOG).read_text().splitlines()]
