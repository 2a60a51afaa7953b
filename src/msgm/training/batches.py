"""Batches of training data. All that is random in step k is a function of (seed, k), so any step can be made again."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..data import Images, to_model
from .runtime import Runtime


def mix(seed: int, step: int) -> int:
    """A seed for this step of this run, in [0, 2^32)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "little")


class Pixels:
    """Rows of a data set in the model's space; on a GPU all of them stay there, if they fit.

    Row numbers are to be on ``device``.
    """

    def __init__(self, images: Images, runtime: Runtime) -> None:
        self.images, self.runtime = images, runtime
        held = runtime.fits(len(images) * images.store[:1].nbytes)
        self.held = images.rows().to(runtime.device) if held else None
        self.device = runtime.device if held else torch.device("cpu")

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, index: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
        """Some rows: pixels freshly dequantised, vectors as they are; ``flip`` mirrors some."""
        chosen = self.held[index] if self.held is not None else self.runtime.send(self.images.rows(index))
        x = to_model(chosen, generator) if chosen.dtype == torch.uint8 else chosen
        if flip:
            mirrored = torch.rand(len(x), generator=generator, device=x.device) < 0.5
            x = torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
        return x

    def clean(self) -> Tensor:
        """All rows, float32, on the run's device: pixels at the middle of their steps."""
        rows = self.images.rows().to(self.runtime.device)
        return (to_model(rows) if rows.dtype == torch.uint8 else rows).float()


class Shuffled:
    """Row numbers of step k: the k-th piece of an endless sequence of permutations of ``size`` rows."""

    def __init__(self, size: int, batch: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.size, self.batch, self.seed, self.device = size, batch, seed, device
        self.permutations: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        start, end = step * self.batch, (step + 1) * self.batch
        epochs = range(start // self.size, (end - 1) // self.size + 1)
        pieces = [self._permutation(e)[max(start - e * self.size, 0) : end - e * self.size] for e in epochs]
        return torch.cat(pieces)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self.permutations:
            generator = torch.Generator().manual_seed(mix(self.seed, -1 - epoch))
            self.permutations = {
                **{k: v for k, v in self.permutations.items() if k == epoch - 1},
                epoch: torch.randperm(self.size, generator=generator).to(self.device),
            }
        return self.permutations[epoch]
