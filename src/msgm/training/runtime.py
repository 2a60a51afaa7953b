"""Where a run computes, and how: device, precision, compilation, number of processes. Nothing else chooses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from ..errors import UserError
from ..model.score import Precision, ScoreModel
from ..processes import gpus_shared, here, launched

KEPT = 0.25
"""Share of a GPU's free memory that training data may take; larger sets are read row by row."""
LAG = 10
"""Steps whose losses may lie on a GPU before they are looked at: to fetch one makes the CPU wait for all before it."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How the network is computed; `choose` makes one from what was asked for.

    ``bf16`` computes the network alone in bfloat16 (autocast): weights, times, noise levels, losses and optimiser
    stay float32. On a GPU it allows TF32 as well, which ``fp32`` turns off.
    """

    device: torch.device
    precision: Precision = "fp32"
    compile: bool = False

    @classmethod
    def choose(cls, device: str = "auto", *, precision: str = "fp32", compile: bool = False) -> Runtime:
        """``auto`` is the GPU if there is one, else the CPU.

        Raises UserError for a device that is not there, another precision, compilation on a CPU or by several
        processes, and processes that have not met (`processes.joined`).
        """
        size = here().size
        if launched() not in (1, size):
            raise UserError(f"WORLD_SIZE is {launched()}, and {size} of the processes met; join them, or start one")
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"no device {device!r}; choose auto, cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device cuda asks for a GPU that PyTorch can use, and there is none; use auto or cpu")
        if precision not in get_args(Precision):
            hint = "; float16 needs gradient scaling, which msgm has not" if precision in ("fp16", "float16") else ""
            raise UserError(f"no precision {precision!r}; choose {' or '.join(get_args(Precision))}{hint}")
        place = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
        if compile and place == "cpu":
            raise UserError("compile gains nothing on a CPU; leave it out, or use a GPU (device cuda)")
        if compile and size > 1:
            raise UserError(f"compile is for one process, and there are {size}; leave it out")
        if place == "cuda" and size > 1 and gpus_shared():
            raise UserError("there are more processes here than GPUs; start as many as GPUs, or use device cpu")
        return cls(device=torch.device(place), precision=precision, compile=compile)  # type: ignore[arg-type]

    def place(self, model: ScoreModel) -> ScoreModel:
        """The model (in place) on this device, its network computed in this precision, compiled if asked."""
        model.to(self.device)
        model.precision = self.precision
        if self.compile:
            model.network.compile(dynamic=False)
        return model

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers that are drawn where they are used."""
        return torch.Generator(device=self.device).manual_seed(seed)

    def fits(self, size: int) -> bool:
        """Whether this many bytes of data may stay on the GPU for the whole run."""
        return self.device.type == "cuda" and size <= KEPT * torch.cuda.mem_get_info(self.device)[0]

    def send(self, values: Tensor) -> Tensor:
        """A copy on this device, without waiting for what the device is doing."""
        if values.device.type == self.device.type:
            return values
        return values.pin_memory().to(self.device, non_blocking=True)

    @property
    def lag(self) -> int:
        """Steps after which losses are fetched from the device."""
        return 1 if self.device.type == "cpu" else LAG

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it a GPU's multiplications are as exact as the precision says; outside as they were."""
        if self.device.type == "cpu":
            yield
            return
        import torch._dynamo.config as dynamo
        import torch._functorch.config as functorch

        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
        matmul.allow_tf32 = cudnn.allow_tf32 = self.precision == "bf16"
        cudnn.benchmark = True
        try:
            # Some methods take two gradients of one pass. A network is compiled for each size of batch and each mode.
            with functorch.patch(donated_buffer=False), dynamo.patch(recompile_limit=32):
                yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before

    @property
    def identity(self) -> dict[str, Any]:
        """What a run's numbers depend on, and so what must be the same on resuming."""
        kind = self.device.type
        several = {"processes": here().size} if here().size > 1 else {}
        threads = {"threads": torch.get_num_threads()} if kind == "cpu" else {}
        return {"device": kind, "precision": self.precision} | threads | several

    def to_dict(self) -> dict[str, Any]:
        """For the record: all of it, and the threads that a CPU's sums depend on."""
        on_gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "precision": self.precision,
            "compile": self.compile,
            "threads": torch.get_num_threads(),
            "processes": here().size,
        }
