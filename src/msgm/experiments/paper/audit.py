"""The evidence about one model of a table: counts of the judge, Fréchet distance, likelihoods, what was flagged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Images, Split
from ...formats import load
from ...likelihood import log_likelihood
from ...likelihood.result import mean_and_error
from ...metrics.distances import frechet_distance
from ...metrics.judge import Judge
from ...metrics.shares import forget_classes
from ...model.score import ScoreModel
from ...report.pictures import grid, png
from ...sampling import build
from ...storage import write_bytes
from ...training.runtime import Runtime
from .budgets import AuditSettings, Draw

SAMPLES, MARKED = "samples.png", "flagged.png"
SHOWN, FLAGGED, NEAREST = 60, 8, 3
"""Samples in a model's picture; flagged samples in another, and the training images beside each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Auditor:
    """Measures models by one judge against the same test images, on the runtime's device.

    Samples are drawn in the runtime's precision; likelihoods in float32.
    """

    judge: Judge
    split: Split
    test: Images
    settings: AuditSettings
    runtime: Runtime

    @cached_property
    def sets(self) -> dict[str, Tensor]:
        """The test images to retain and to forget, uint8."""
        chosen = self.split.request.mask(self.test)
        return {"retain": self.test.rows(~chosen), "forget": self.test.rows(chosen)}

    @cached_property
    def reference(self) -> Tensor:
        """The judge's features of the retained test images."""
        return self.judge.features(self.sets["retain"].to(self.runtime.device))

    def draws(self, folder: Path, pictures: Path) -> dict[str, Any]:
        """What the judge sees in the samples of each sampler; the first sampler's are shown, and the flagged of them.

        Two pictures are written into ``pictures``: samples.png, and flagged.png, in which each line begins with a
        sample that the judge calls forgotten, the surest first, beside the nearest forget images of the training set.
        """
        model = self.runtime.place(load(folder))
        found: dict[str, Any] = {}
        for draw in self.settings.draws:
            with self.runtime.active():
                found[draw.name], pixels = self.judged(partial(self._pixels, model, draw), draw.n)
            if len(found) == 1:
                write_bytes(pictures / SAMPLES, png(grid(pixels[:SHOWN], columns=10, scale=1, gap=1)))
                found[draw.name]["flagged"] = self.flagged(pixels, pictures / MARKED)
        return found

    def _pixels(self, model: ScoreModel, draw: Draw) -> Tensor:
        drawn = build(draw.sampler, model, steps=draw.steps).sample(draw.n, seed=self.settings.seed, batch=draw.batch)
        return model.space.to_pixels(drawn).cpu()

    def judged(self, source: Callable[[], Tensor], n: int) -> tuple[dict[str, Any], Tensor]:
        """Counts by class, the Fréchet distance to the retained test images, and how long ``source()`` took."""
        began = time.perf_counter()
        pixels = source()
        seconds = time.perf_counter() - began
        x = pixels.to(self.runtime.device)
        found = {
            "n": n,
            "counts": self.judge.counts(self.judge.predict(x)),
            "frechet": frechet_distance(self.judge.features(x), self.reference),
            "seconds": seconds,
        }
        return found, pixels

    def flagged(self, pixels: Tensor, picture: Path) -> list[dict[str, Any]]:
        """The samples that the judge is surest to be forgotten: its confidence, and how far the training images are.

        A distance is the root mean square over pixels, of 255; beside it stands that of the nearest other forget image
        to the nearest one: how far apart such images are among themselves.
        """
        forget = forget_classes(self.split.request, self.judge)
        places = [index for index, value in enumerate(self.judge.classes) if value in forget]
        sure = self.judge.probabilities(pixels.to(self.runtime.device)).cpu()
        mine = torch.isin(sure.argmax(1), torch.tensor(places))
        order = sure[:, places].sum(1).masked_fill(~mine, -1).argsort(descending=True)[: min(FLAGGED, int(mine.sum()))]
        known = self.split.forget.rows().flatten(1).float()
        found, lines = [], []
        for index in order.tolist():
            near, rows = _distances(pixels[index], known).topk(min(NEAREST, len(known)), largest=False)
            among = _distances(known[rows[0]], known).topk(2, largest=False).values[-1]
            verdict = int(sure[index].argmax())
            found.append(
                {
                    "sample": index,
                    "called": self.judge.names[verdict],
                    "confidence": float(sure[index, verdict]),
                    "distance": float(near[0]),
                    "among_training": float(among),
                }
            )
            lines += [pixels[index], *self.split.forget.rows(rows)]
        if lines:
            write_bytes(picture, png(grid(torch.stack(lines), columns=len(lines) // len(found), scale=2, gap=2)))
        return found

    def likelihoods(self, folder: Path) -> dict[str, Any]:
        """Bits/dim of both sets of test images, with the step-doubling check beside each."""
        model = Runtime(device=self.runtime.device).place(load(folder))
        wanted, found = self.settings, {}
        with Runtime(device=self.runtime.device).active():
            for name, images in self.sets.items():
                began = time.perf_counter()
                result = log_likelihood(
                    model, images[: wanted.nll_images].to(self.runtime.device), steps=wanted.nll_steps,
                    check=wanted.nll_check, seed=wanted.seed, batch=wanted.nll_images,
                )  # fmt: skip
                mean, error = result.mean()
                change, change_error = mean_and_error(result.doubling)
                found[name] = {
                    "bits_per_dim": mean,
                    "stderr": error,
                    "n": len(result.values),
                    "doubling": {"change": change, "stderr": change_error, "n": len(result.doubling)},
                    "reliable": result.reliable,
                    "seconds": time.perf_counter() - began,
                }
        return found


def real(auditor: Auditor) -> dict[str, Any]:
    """What the judge says of real images: test images of both sets, and as many retained training images as samples.

    Its errors are the floor under every number here.
    """
    retained = auditor.split.retain
    some = torch.randperm(len(retained), generator=torch.Generator().manual_seed(0))[: auditor.settings.draws[0].n]
    sets: Mapping[str, Tensor] = {**auditor.sets, "retained training images": retained.rows(some)}
    return {name: auditor.judged(partial(torch.clone, images), len(images))[0] for name, images in sets.items()}


def _distances(x: Tensor, images: Tensor) -> Tensor:
    """Root mean square difference of x (C, H, W) or (D,) from each of images (N, D): (N,)."""
    return (images - x.flatten().float()).square().mean(1).sqrt()
