"""What is not an image of any class, made from images that are: the judge's junk class, and its test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError
from ..process.posterior import exact_denoiser

KINDS = ("noise", "noisy", "blend", "shuffled", "half_denoised", "blank", "glued")
"""In words: no signal; an image under heavy noise; two images laid over each other; patches out of order;
a denoiser's undecided average; (nearly) constant; halves of two images that do not fit."""


class JunkMaker:
    """Makes junk of each of `KINDS` from ``images`` (N, C, H, W) in model space with ``labels`` (N,).

    Every draw comes from the generator given, which is on the images' device, so the same generator state gives the
    same junk.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if len(images) < 8 or len(labels.unique()) < 2:
            raise UserError("junk is made from at least 8 images of at least 2 classes; give more images")
        self.images, self.labels = images, labels
        gaps = torch.cdist(images[:500].flatten(1), images.flatten(1))
        gaps[labels[:500, None] == labels] = torch.inf
        self.gap = max(1e-3, float(gaps.amin(1).median()))
        """The typical distance of an image to the nearest one of another class."""

    def make(self, kind: str, n: int, generator: torch.Generator) -> Tensor:
        """n junk images of one kind, (n, C, H, W)."""
        if kind not in KINDS:
            raise UserError(f"no kind of junk {kind!r}; known: {', '.join(KINDS)}")
        made: Tensor = getattr(self, f"_{kind}")(n, generator)
        return made.clamp(-1, 1)

    def mixture(self, n: int, generator: torch.Generator) -> Tensor:
        """n junk images, the kinds in equal parts (what is left over falls to kinds drawn at random)."""
        order = torch.randperm(len(KINDS), generator=generator, device=generator.device).tolist()
        sizes = {KINDS[kind]: n // len(KINDS) + (rank < n % len(KINDS)) for rank, kind in enumerate(order)}
        return torch.cat([self.make(kind, size, generator) for kind, size in sizes.items() if size])

    def _noise(self, n: int, generator: torch.Generator) -> Tensor:
        gaussian = self._normal((n, *self.images.shape[1:]), generator)
        uniform = 2 * torch.rand(gaussian.shape, generator=generator, device=generator.device) - 1
        level, width = self._uniform(n, generator, -0.5, 0.5), self._uniform(n, generator, 0.2, 2)
        return level + width * torch.where(self._coin(n, generator), gaussian, uniform)

    def _noisy(self, n: int, generator: torch.Generator) -> Tensor:
        images = self.images[self._pick(n, generator)]
        return images + self._uniform(n, generator, 0.7, 2) * self._normal(images.shape, generator)

    def _blend(self, n: int, generator: torch.Generator) -> Tensor:
        first = self._pick(n, generator)
        second = self._others(first, 1, generator)[:, 0]
        weight = self._uniform(n, generator, 0.35, 0.65)
        return weight * self.images[first] + (1 - weight) * self.images[second]

    def _shuffled(self, n: int, generator: torch.Generator) -> Tensor:
        """Each image cut into 2x2 or 4x4 blocks, put back so that none keeps its place."""
        images = self.images[self._pick(n, generator)].clone()
        for image in images:
            side = 2 if torch.rand((), generator=generator, device=generator.device) < 0.5 else 4
            h, w = image.shape[1] // side, image.shape[2] // side
            area = image[:, : h * side, : w * side]
            blocks = functional.unfold(area[None], (h, w), stride=(h, w))
            # One cycle through all blocks in random order: a permutation without fixed points.
            order = torch.randperm(side * side, generator=generator, device=generator.device)
            moved = torch.empty_like(blocks)
            moved[..., order] = blocks[..., order.roll(1)]
            area.copy_(functional.fold(moved, area.shape[1:], (h, w), stride=(h, w))[0])
        return images

    def _half_denoised(self, n: int, generator: torch.Generator) -> Tensor:
        """The exact denoiser's answer where it is undecided: far from every single image.

        Of 4 n candidates those farther from the nearest image than 0.6 of the typical gap between classes are
        taken in random order, then the farthest of the rest. Half of them keep a little noise.
        """
        images = self.images[self._pick(4 * n, generator)]
        # Noise of a seventh of the gap leaves one image probable, noise of all of it the mean of very many.
        ratio = self.gap * self._uniform(4 * n, generator, math.log(0.15), 0).exp()
        y = images + ratio * self._normal(images.shape, generator)
        denoised = exact_denoiser(y, ratio.flatten(), self.images)
        distance = torch.cdist(denoised.flatten(1), self.images.flatten(1)).amin(1)
        best = distance.clamp(max=0.6 * self.gap).argsort(descending=True, stable=True)[:n]
        noise = self._uniform(n, generator, 0, 0.3) * self._coin(n, generator)
        return denoised[best] + noise * self._normal((n, *images.shape[1:]), generator)

    def _blank(self, n: int, generator: torch.Generator) -> Tensor:
        level = self._uniform(n, generator, -1, 1)
        level = torch.where(self._coin(n, generator), level, level.sign())
        width = self._uniform(n, generator, 0, 0.1)
        return level + width * self._normal((n, *self.images.shape[1:]), generator)

    def _glued(self, n: int, generator: torch.Generator) -> Tensor:
        """Upper (or left) half of one image, lower (or right) half of another class's, chosen not to fit.

        Of 16 partners the one whose edge differs most; of 2 n such pairs the n that differ most. Halves that
        do fit make a digit that nobody would call junk.
        """
        upright = self._glue(self.images, n - n // 2, generator)
        sideways = self._glue(self.images.transpose(2, 3), n // 2, generator)
        return torch.cat([upright, sideways.transpose(2, 3)])

    def _glue(self, images: Tensor, n: int, generator: torch.Generator) -> Tensor:
        half = images.shape[2] // 2
        first = self._pick(2 * n, generator)
        others = self._others(first, 16, generator)
        above, below = images[first, :, half - 1].flatten(1), images[others, :, half].flatten(2)
        worst, which = (above[:, None] - below).square().sum(2).max(1)
        second = others.gather(1, which[:, None])[:, 0]
        keep = worst.argsort(descending=True, stable=True)[:n]
        return torch.cat([images[first[keep], :, :half], images[second[keep], :, half:]], dim=2)

    def _pick(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.images), (n,), generator=generator, device=generator.device)

    def _others(self, first: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """For each index ``count`` indices of images of other classes, (n, count)."""
        differs = (self.labels[first][:, None] != self.labels).float()
        return torch.multinomial(differs, count, replacement=True, generator=generator)

    def _uniform(self, n: int, generator: torch.Generator, low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1, device=generator.device).uniform_(low, high, generator=generator)

    def _coin(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand((n, 1, 1, 1), generator=generator, device=generator.device) < 0.5

    def _normal(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return torch.randn(tuple(shape), generator=generator, device=generator.device)
