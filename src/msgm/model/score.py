"""A score model: one network, read three ways.

The network's raw output is turned into a noise prediction by its `Precondition` and nowhere else; losses, samplers and
likelihood are all written in terms of ``noise(x, t)``, so they hold for every process and every kind of network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..process.sde import SDE, expand
from .precondition import EDM, Level, Precondition, Prediction
from .space import Space

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a model was read.

    Args:
        family: whose format it was.
        weights: which of its files.
        notes: what was assumed or left out, a few words each.
        kept: files beside the weights that are not ours, by their place in the folder; given back as they were.
    """

    family: str
    weights: str
    notes: tuple[str, ...] = ()
    kept: Mapping[str, bytes] = field(default_factory=dict)


class ScoreModel(nn.Module):
    """``ScoreModel(network, sde)``: the noise, the score and the denoised image that a network predicts.

    ``network(x, label)`` takes a batch ``(B, *)`` and a time label ``(B,)`` and returns a tensor (or an object
    with one in ``.sample``, as diffusers' networks do).

    Args:
        network: in any precision. Times, alpha, sigma and labels are in float32 or better whatever its own.
        sde: the process whose noise it knows.
        shape: of one image.
        precondition: what goes into the network and what its output means (`EDM`, `Noise`, `Score`, `V`, `Sample`).
        patch: folds squares of that side into channels before the network and back after it (space-to-depth).
        space: how pixels lie in the model's space.

    ``record`` tells what the weights were made for, ``origin`` which files they were read from (`msgm.formats`).
    ``precision`` (not saved) is what the network alone is computed in: times, noise levels and what is made of its
    output are in float32 or better.
    """

    def __init__(
        self,
        network: nn.Module,
        sde: SDE,
        *,
        shape: tuple[int, ...],
        precondition: Precondition | None = None,
        patch: int = 1,
        space: Space | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.sde = sde
        self.shape = tuple(shape)
        self.precondition = precondition or EDM()
        self.patch = patch
        self.space = space or Space()
        self.precision: Precision = "fp32"
        self.record: dict[str, Any] = {}
        self.origin: Origin | None = None

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise eps(x_t, t), shape (B, *), in float32 or better; t of shape () or (B,)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        t = t.to(x).expand(x.shape[0])
        at = Level(expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x))
        raw = self._network(self.precondition.enter(x, at), self.precondition.label(self.sde, t))
        return self.precondition.read(raw, x, at)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """`noise`, so that wrappers of modules (data parallelism) apply."""
        return self.noise(x, t)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted score grad_x log p_t(x) = -eps(x, t) / sigma(t)."""
        noise = self.noise(x, t)
        return -noise / expand(self.sde.sigma(t.to(noise)), x)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted clean image E[x_0 | x_t] = (x - sigma eps) / alpha."""
        noise = self.noise(x, t)
        t = t.to(noise)
        return (x - expand(self.sde.sigma(t), x) * noise) / expand(self.sde.alpha(t), x)

    def _network(self, x: Tensor, label: Tensor) -> Tensor:
        """The raw output in the precision of x; a network of bf16 or fp16 weights gets its input in that."""
        if self.patch > 1:
            x = functional.pixel_unshuffle(x, self.patch)
        weight = next(self.network.parameters(), x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            out = self.network(x.to(weight.dtype) if weight.dtype.itemsize < 4 else x, label)
        out = out if isinstance(out, Tensor) else out.sample
        out = out.to(torch.promote_types(out.dtype, x.dtype))
        return functional.pixel_shuffle(out, self.patch) if self.patch > 1 else out

    @property
    def prediction(self) -> Prediction:
        """What the network's output means, in a word."""
        return self.precondition.name

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the images in model space, as the precondition has it."""
        return self.precondition.sigma_data

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
