"""How much memory a model takes, estimated from one image before anything large is made."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import UserError
from .modes import blank, evaluating
from .score import ScoreModel

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


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"
