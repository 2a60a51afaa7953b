"""The evidence about one model of a table: counts of the judge, Fréchet distance, likelihoods. Numbers only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...data import ForgetRequest, Images, to_model, to_pixels
from ...formats.native import load
from ...likelihood import log_likelihood
from ...likelihood.result import mean_and_error
from ...metrics.judge import Judge
from ...metrics.shares import frechet_distance
from ...model.score import ScoreModel
from ...sampling import build
from ...training.runtime import Runtime
from .budgets import AuditSettings, Draw

SHOWN = 60
"""Samples in a model's picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Auditor:
    """Measures models by one judge against the same test images, on the runtime's device.

    Samples are drawn in the runtime's precision; likelihoods in float32.
    """

    judge: Judge
    request: ForgetRequest
    test: Images
    settings: AuditSettings
    runtime: Runtime

    @cached_property
    def sets(self) -> dict[str, Tensor]:
        """The test images to retain and to forget, uint8."""
        chosen = self.request.mask(self.test)
        return {"retain": self.test.rows(~chosen), "forget": self.test.rows(chosen)}

    @cached_property
    def reference(self) -> Tensor:
        """The judge's features of the retained test images."""
        return self.judge.features(to_model(self.sets["retain"].to(self.runtime.device)))

    def samples(self, folder: str, draw: Draw) -> tuple[dict[str, Any], Tensor]:
        """What the judge sees in a model's samples, and the samples, uint8 (n, C, H, W)."""
        model = self.runtime.place(load(folder))
        with self.runtime.active():
            return self.judged(lambda: to_pixels(self._drawn(model, draw)).cpu(), draw.n)

    def _drawn(self, model: ScoreModel, draw: Draw) -> Tensor:
        sampler = build(draw.sampler, model, steps=draw.steps)
        return sampler.sample(draw.n, seed=self.settings.seed, batch=draw.batch)

    def judged(self, source: Any, n: int) -> tuple[dict[str, Any], Tensor]:
        """Counts by class, the Fréchet distance to the retained test images, and how long ``source()`` took."""
        began = time.perf_counter()
        pixels: Tensor = source()
        seconds = time.perf_counter() - began
        x = to_model(pixels.to(self.runtime.device))
        found = {
            "n": n,
            "counts": self.judge.counts(self.judge.predict(x)),
            "frechet": frechet_distance(self.judge.features(x), self.reference),
            "seconds": seconds,
        }
        return found, pixels

    def likelihoods(self, folder: str) -> dict[str, Any]:
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


def real(auditor: Auditor, train: Images) -> dict[str, Any]:
    """What the judge says of real images: test images of both sets, and as many retained training images as samples.

    Its errors are the floor under every number here.
    """
    retained = train.select(~auditor.request.mask(train))
    some = torch.randperm(len(retained), generator=torch.Generator().manual_seed(0))[: auditor.settings.draws[0].n]
    sets: Mapping[str, Tensor] = {**auditor.sets, "retained training images": retained.rows(some)}
    return {name: auditor.judged(lambda images=images: images, len(images))[0] for name, images in sets.items()}
