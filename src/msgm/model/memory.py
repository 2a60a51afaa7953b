"""How much memory a model takes, estimated from one image before anything large is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..progress import note
from .modes import blank, evaluating
from .score import ScoreModel

T = TypeVar("T")
COPIES = 8
"""Of the weights while they are trained: their gradients (two of some methods), two averages, two moments, the last
good ones."""


def held(model: ScoreModel) -> int:
    """Bytes that the layers return for one image: what training keeps of it, at the least."""
    seen = 0

    def count(layer: nn.Module, given: object, returned: object) -> None:
        nonlocal seen
        if isinstance(returned, Tensor):
            seen += returned.numel() * returned.element_size()

    hooks = [part.register_forward_hook(count) for part in model.modules() if not any(part.children())]
    try:
        with evaluating(model):
            model.noise(blank(model, 1).zero_(), torch.ones(()))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def free(device: torch.device) -> float:
    """Bytes of free memory."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    import psutil

    return float(psutil.virtual_memory().available)


def check_memory(model: ScoreModel, images: int) -> None:
    """Raise UserError where training with so many images a step cannot fit the memory of this machine."""
    weights, one, there = COPIES * sum(p.nbytes for p in model.parameters()), held(model), free(torch.device("cpu"))
    if weights + images * one > there:
        raise UserError(
            f"training needs at least {_gib(weights)} GiB for the network and {_gib(images * one)} for {images} images "
            f"a step, and {_gib(there)} are free; take a smaller batch, smaller images or a smaller network",
            option="batch",
        )


@dataclass(eq=False)
class Halving:
    """Work on rows, at most ``limit`` at a time: as many as were found to fit the memory. None: all at once."""

    limit: int | None = None

    def __call__(self, rows: range, work: Callable[[range], T]) -> list[T]:
        """What ``work`` gives of these rows, in as many parts as it needs; where the memory is full, of their halves.

        Raises UserError where a single row does not fit.
        """
        found: list[T] = []
        while rows:
            size = min(len(rows), self.limit or len(rows))
            try:
                found.append(work(rows[:size]))
            except torch.OutOfMemoryError as full:
                if size == 1:
                    raise UserError("the memory is full with one image; take smaller ones") from full
                self.limit = size // 2
            else:
                rows = rows[size:]
                continue
            # Not where the error is at hand: it holds what filled the memory.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            note(f"the memory is full with {size} images at a time: going on with {self.limit}")
        return found


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"
