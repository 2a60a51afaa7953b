"""Batches of training data. All that is random in step k is a function of (seed, k), so any step can be made again."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..data import to_model


def mix(seed: int, step: int) -> int:
    """A seed for this step of this run, in [0, 2^32)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "little")


def draw(data: Tensor, index: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """Rows of the data in model space: pixels freshly dequantised, vectors as they are; ``flip`` mirrors some."""
    chosen = data[index]
    x = to_model(chosen, generator) if data.dtype == torch.uint8 else chosen
    if flip:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
    return x


def clean(data: Tensor, device: torch.device) -> Tensor:
    """All of the data in model space, float32: pixels at the middle of their steps."""
    return (to_model(data) if data.dtype == torch.uint8 else data).to(device, torch.float32)


class Shuffled:
    """Row numbers of step k: the k-th piece of an endless sequence of permutations of ``size`` rows."""

    def __init__(self, size: int, batch: int, seed: int) -> None:
        self.size, self.batch, self.seed = size, batch, seed
        self.permutations: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        place = torch.arange(step * self.batch, (step + 1) * self.batch)
        epochs = place // self.size
        return torch.cat([self._permutation(int(e))[place[epochs == e] % self.size] for e in epochs.unique()])

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self.permutations:
            generator = torch.Generator().manual_seed(mix(self.seed, -1 - epoch))
            self.permutations = {
                **{k: v for k, v in self.permutations.items() if k == epoch - 1},
                epoch: torch.randperm(self.size, generator=generator),
            }
        return self.permutations[epoch]
