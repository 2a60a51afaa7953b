"""A small classifier of forget against retain images that are seen through noise, for terms that need P(retain | x_t).

Seen as ``y = x_t / alpha`` at the noise level ``r = sigma / alpha`` every process only adds noise, so that one
classifier of (y, r) serves all of them: ``log P(forget | x_t) - log P(retain | x_t)``, with the share of the data that
each set has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..process.sde import expand
from ..progress import bar
from .batch import Start

LogOdds = Callable[[Tensor, Tensor], Tensor]
"""``log_odds(y, ratio)``: log P(forget | y) - log P(retain | y) for y (B, *) and ratio (B,); (B,), differentiable."""

LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Noise levels at which the held-out images are looked at."""


class _Modulated(nn.Module):
    """A layer and a norm, then a shift and a scale of each channel that depend on the noise level, then SiLU."""

    def __init__(self, layer: nn.Module, norm: nn.Module, channels: int, embedding: int) -> None:
        super().__init__()
        self.layer, self.norm, self.film = layer, norm, nn.Linear(embedding, 2 * channels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h: Tensor = self.norm(self.layer(x))
        scale, shift = (expand(v, h) for v in self.film(level).chunk(2, 1))
        return functional.silu(h * (1 + scale) + shift)


class NoisyClassifier(nn.Module):
    """log P(forget | y) - log P(retain | y), y (B, *) = x_0 + r eps; ``prior`` is that of no image at all, log M / N.

    Images are folded to about 16 x 16 (space to depth) and pass three 3 x 3 convolutions, are pooled to 4 x 4, and one
    hidden layer; vectors pass three layers. The input is scaled to unit variance, ``y / sqrt(r^2 + sigma_data^2)``.
    """

    def __init__(self, shape: Sequence[int], *, sigma_data: float, prior: float = 0.0, width: int = 32) -> None:
        super().__init__()
        if len(shape) not in (1, 3):
            raise UserError(f"the classifier takes images (C, H, W) or vectors (d,); got shape {tuple(shape)}")
        self.sigma_data, self.prior, self.patch = sigma_data, prior, 1
        self.level = nn.Sequential(nn.Linear(7, 32), nn.SiLU())
        if len(shape) == 3:
            while min(shape[1:]) / self.patch >= 28 and not any(side % (2 * self.patch) for side in shape[1:]):
                self.patch *= 2
            sizes = [shape[0] * self.patch**2, width, 2 * width, 2 * width]
            layers = [
                _Modulated(nn.Conv2d(a, b, 3, stride, padding=1), nn.GroupNorm(8, b), b, 32)
                for a, b, stride in zip(sizes[:-1], sizes[1:], (1, 2, 2), strict=True)
            ]
            pooled: list[nn.Module] = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * sizes[-1], 64), nn.SiLU()]
        else:
            sizes = [shape[0], 2 * width, 2 * width, 2 * width]
            layers = [_Modulated(nn.Linear(a, b), nn.Identity(), b, 32) for a, b in pairwise(sizes)]
            pooled = []
        self.layers = nn.ModuleList(layers)
        self.out = nn.Sequential(*pooled, nn.Linear(64 if pooled else sizes[-1], 1))

    def forward(self, y: Tensor, ratio: Tensor) -> Tensor:
        weight = next(self.parameters())
        x, r = y.to(weight), ratio.to(weight)
        h = x * expand((r.square() + self.sigma_data**2).rsqrt(), x)
        h = functional.pixel_unshuffle(h, self.patch) if self.patch > 1 else h
        phase = r.log()[:, None] / 2
        waves = phase * torch.tensor([1.0, 2.0, 4.0], device=x.device)
        level = self.level(torch.cat([phase, waves.sin(), waves.cos()], 1))
        for layer in self.layers:
            h = layer(h, level)
        odds: Tensor = self.out(h)[:, 0]
        return (odds + self.prior).to(y)


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """How `fit_classifier` trains: AdamW, one cycle up to ``lr``, on ``batch`` images of each set a step.

    log r is normal with ``noise_mean`` and ``noise_std``, and in a fifth of the draws uniform over the process' range.
    """

    steps: int = 600
    batch: int = 64
    lr: float = 2e-3
    noise_mean: float = 0.5
    noise_std: float = 1.5

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or not (0 < self.lr < math.inf and self.noise_std > 0):
            raise UserError(f"a classifier needs steps and batch of 1 or more, positive lr and noise_std; got {self}")


def fit_classifier(start: Start, settings: ClassifierSettings) -> tuple[NoisyClassifier, list[dict[str, float]]]:
    """The classifier of the sets in ``start``, and its errors on images held out (`measured`).

    A tenth of each set, at most 500 images, is held out; nothing of a set of fewer than 20. All that is random comes
    from ``start.generator``.
    """
    model, generator = start.model, start.generator
    sets, held = zip(*(_hold_out(data, generator) for data in (start.retain, start.forget)), strict=True)
    prior = math.log(len(start.forget) / len(start.retain))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        classifier = NoisyClassifier(model.shape, sigma_data=model.sigma_data, prior=prior).to(start.retain.device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=settings.lr)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=max(2, settings.steps))
    low, high = model.sde.log_ratio(torch.tensor([model.sde.t_train, 1.0], dtype=torch.float64)).tolist()
    truth = torch.arange(2, device=start.retain.device).repeat_interleave(settings.batch)

    with bar("Classifier of the forget data", settings.steps, show=start.show) as tick:
        for _ in range(settings.steps):
            rows = [
                data[torch.randint(len(data), (settings.batch,), generator=generator).to(data.device)] for data in sets
            ]
            x0, n = torch.cat(rows), 2 * settings.batch
            normal = settings.noise_mean + settings.noise_std * torch.randn(n, generator=generator)
            flat = low + (high - low) * torch.rand(n, generator=generator)
            level = torch.where(torch.rand(n, generator=generator) < 0.2, flat, normal).clamp(low, high)
            ratio, eps = level.exp().to(x0), torch.randn(x0.shape, generator=generator).to(x0)
            # Both sets are equally frequent here; their share of the data comes in by the prior.
            odds = classifier(x0 + expand(ratio, x0) * eps, ratio) - prior
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(odds, truth.to(odds)).backward()
            optimizer.step()
            cycle.step()
            tick(1)
        classifier.eval().requires_grad_(False)
        errors = measured(classifier, held[0], held[1], generator) if all(map(len, held)) else []
        told = ", ".join(f"{line['error']:.0%} at r = {line['noise']:g}" for line in errors)
        tick(0, note=f"wrong of held-out images: {told}" if told else "no images to spare for a test")
    return classifier, errors


def _hold_out(data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows to train on, and rows to test on."""
    spare = min(len(data) // 10, 500) if len(data) >= 20 else 0
    order = torch.randperm(len(data), generator=generator).to(data.device)
    return data[order[spare:]], data[order[:spare]]


@torch.no_grad()
def measured(
    classifier: NoisyClassifier, retain: Tensor, forget: Tensor, generator: torch.Generator
) -> list[dict[str, float]]:
    """Errors at each of `LEVELS`, both sets counting as half: of images (N, *) and (M, *) that it was not trained on.

    ``error`` is the share that it takes for the other set, ``cross_entropy`` in nats (knowing nothing: 0.69), and
    ``calibration`` the mean distance between what it says and what is so, over ten bins of what it says.
    """
    found = []
    truth = torch.cat([torch.zeros(len(retain)), torch.ones(len(forget))])
    weight = torch.cat([torch.full((len(part),), 0.5 / len(part)) for part in (retain, forget)])
    for level in LEVELS:
        odds = []
        for part in (*retain.split(250), *forget.split(250)):
            eps = torch.randn(part.shape, generator=generator).to(part)
            odds.append(classifier(part + level * eps, torch.full((len(part),), level).to(part)) - classifier.prior)
        logits = torch.cat(odds).cpu().float()
        said = logits.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        gaps = (weight * (said - truth))[None] * functional.one_hot((said * 10).long().clamp(max=9), 10).T
        found.append(
            {
                "noise": level,
                "error": float((weight * ((said > 0.5) != (truth > 0.5))).sum()),
                "cross_entropy": float((weight * entropy).sum()),
                "calibration": float(gaps.sum(1).abs().sum()),
            }
        )
    return found
