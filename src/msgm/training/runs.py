"""A training run's folder while the run goes on: its loss curve, and the state from which it can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..folders import IDENTITY, Making, Opened, opened, unlocked
from ..formats.native import MODEL, RECORD, names, read_record
from ..formats.tensors import read_tensors, write_tensors
from ..model.score import ScoreModel
from ..processes import here
from ..status import Status
from ..storage import read_json, write_bytes, write_json
from .settings import TrainSettings
from .step import State
from .trackers import FOLDER as TRACKED

STATE, LOG = "resume.safetensors", "log.jsonl"
LINE = 120
"""Bytes of a line of the log, at most."""
MADE = Making(kind="model", names=(STATE, LOG, TRACKED, *MODEL))
LONGER = "every step's learning rate depends on how many there are, so a longer run is another run"


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
        log_with: a tracker that is told the losses as well: tensorboard, wandb or trackio.
        progress: show a bar.
    """

    folder: str | os.PathLike[str] | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    command: str = ""
    log_with: str | None = None
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder of a run; without ``place`` the run has none, and nothing is kept. Only the first process has it."""

    place: Opened | None = None

    @property
    def path(self) -> Path | None:
        """Where it is."""
        return self.place.path if self.place is not None else None

    def store(self, state: State) -> None:
        """Save all that the next step depends on."""
        if self.place is None:
            return
        tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in state.average.state_dict().items()}
        for name, optimizer in state.optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        tensors["good"] = state.good
        tensors["run"] = torch.tensor([state.step, state.smooth, state.lowest, state.recovered], dtype=torch.float64)
        tensors["identity"] = self._mark()
        write_tensors(self.place.path / STATE, tensors)

    def restore(self, state: State, steps: int) -> None:
        """Put the saved state, if there is one of this run, into a fresh one: the same in every process.

        Raises UserError where it is broken.
        """
        path, tensors = here().told(self._saved)
        if not path:
            return
        try:
            _put(state, tensors, steps)
        except (KeyError, RuntimeError, ValueError, IndexError, OverflowError) as error:
            why = " ".join(str(error).split())[:100]
            raise UserError(f"{path} is no state of this run ({why}); remove it to start the run again") from None

    def _saved(self) -> tuple[str, dict[str, Tensor]]:
        """The saved state and where it is; nothing where there is none of this run."""
        if self.place is None or not self.place.resumed or not (path := self.place.path / STATE).exists():
            return "", {}
        tensors = read_tensors(path)
        ours = torch.equal(tensors.pop("identity", torch.empty(0)), self._mark())
        # Another may be of a run that this one replaces, and that was not removed for want of time.
        return (str(path), tensors) if ours else ("", {})

    def finish(self, status: Status) -> None:
        """Note that the model is in place; what only an unfinished run needs goes."""
        if self.place is not None:
            self.place.end(status.to_dict())
            (self.place.path / STATE).unlink(missing_ok=True)

    def _mark(self) -> Tensor:
        assert self.place is not None
        content = json.dumps(self.place.making.identity, sort_keys=True).encode()
        return torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)


@contextmanager
def open_folder(
    run: RunSpec, identity: Mapping[str, Any], model: ScoreModel, settings: TrainSettings
) -> Iterator[Folder]:
    """The folder of a run, locked; `folders.opened` has what is refused."""
    if run.folder is None:
        yield Folder()
        return
    made, why = (STATE, LOG, TRACKED, *names(model)), {"settings.steps": LONGER}
    making = replace(MADE, identity=identity, names=made, size=disk(model, settings.steps), why=why)
    with opened(run.folder, making, resume=run.resume, overwrite=run.overwrite) as place:
        if not here().first:
            yield Folder()
            return
        if not place.resumed:
            for name in (STATE, LOG):
                (place.path / name).unlink(missing_ok=True)
        yield Folder(place=place)


def spare(folder: str | os.PathLike[str] | None, weights_sha256: str) -> None:
    """Raise UserError for the folder of the very model that a run starts from."""
    path = Path(folder) / RECORD if folder is not None else None
    there = read_json(path) if path is not None and path.is_file() else {}
    # A run that diverged at once has its parent's weights, and is another.
    child = there.get("parent", {}).get("weights_sha256") == weights_sha256
    if there.get("weights_sha256") == weights_sha256 and not child:
        raise UserError(f"{folder} holds the model that the run starts from; name another folder for the new one")


def _put(state: State, tensors: Mapping[str, Tensor], steps: int) -> None:
    step, state.smooth, state.lowest, recovered = tensors["run"].tolist()
    state.step, state.recovered = int(step), int(recovered)
    if not 0 < state.step <= steps or state.step != step:
        raise ValueError(f"step {step:g} of {steps}")

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    state.model.load_state_dict(part("model."))
    state.average.load_state_dict(part("average."))
    state.good.copy_(tensors["good"])
    for name, optimizer in state.optimizers.items():
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in part(f"{name}.").items():
            index, moment = key.split(".", 1)
            moments.setdefault(int(index), {})[moment] = value
        if any(each["exp_avg"].shape != state.weights.shape for each in moments.values()):
            raise ValueError("moments of another network")
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    if not state.optimizers["optimizer"].state:
        raise ValueError("no moments of the optimiser")
    if not all(bool(vector.isfinite().all()) for vector in (state.weights, state.averaged, state.good)):
        raise ValueError("weights that are not finite")


class Log:
    """``log.jsonl``: one line a step, on disk as it is written. A resumed run drops those after its saved step.

    A ``tracker`` (`trackers.tracking`) is told the numbers as well.
    """

    def __init__(self, folder: Path | None, step: int, tracker: Any = None) -> None:
        self.path = folder / LOG if folder is not None else None
        self.step, self.tracker = step, tracker

    def __enter__(self) -> Log:
        if self.path is not None:
            kept = (
                self.path.read_text(encoding="utf-8").splitlines(keepends=True)[: self.step]
                if self.path.is_file()
                else []
            )
            write_bytes(self.path, "".join(kept).encode())
            self.file = self.path.open("a", buffering=1, encoding="utf-8")
        return self

    def __call__(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            self.file.write(json.dumps(line) + "\n")
        if self.tracker is not None:
            self.tracker.log({k: v for k, v in line.items() if k != "step" and v is not None}, step=line["step"])

    def sync(self) -> None:
        """What was written outlives a power cut."""
        if self.path is not None:
            os.fsync(self.file.fileno())

    def __exit__(self, *error: object) -> None:
        if self.path is not None:
            self.file.close()


def read_log(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The loss curve of a run: dictionaries with step, retain, forget (None where it took no part) and norm."""
    return [json.loads(line) for line in (Path(folder) / LOG).read_text(encoding="utf-8").splitlines()]


def disk(model: nn.Module, steps: int, runs: int = 1, at_once: int = 1) -> int:
    """About how many bytes so many runs of a model take, of which some go on at once.

    A run that goes on has weights, average, the last good ones and two moments, once more while a new state replaces
    the old, and in the end the model; the log stays beside that.
    """
    weights = sum(int(value.nbytes) for value in model.state_dict().values())
    return runs * (weights + LINE * steps) + min(runs, at_once) * 10 * weights


def completed(folder: str | os.PathLike[str]) -> bool:
    """Whether a run's model is in its folder.

    What it was killed before is done: it is noted as ended, its state and its lock go.

    Where the state is still there and nothing is noted, the run is to be resumed.
    """
    path = Path(folder)
    note = read_json(path / IDENTITY) if (path / IDENTITY).is_file() else {}
    if not (path / RECORD).is_file() or ("ended" not in note and (path / STATE).exists()):
        return False
    unlocked(path)
    if note and "ended" not in note:
        write_json(path / IDENTITY, note | {"ended": read_record(path / RECORD)["status"]})
    (path / STATE).unlink(missing_ok=True)
    return True
