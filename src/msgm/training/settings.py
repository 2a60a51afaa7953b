"""How long, how fast and at which noise levels a run trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError, in_range

RANGES = {
    "steps": (1, 10**9),
    "batch": (1, 2**20),
    "save_every": (1, 10**9),
    "warmup": (0, 10**9),
    "cooldown": (0.0, 1.0),
    "weight_decay": (0.0, 1e3),
    "noise_mean": (-20.0, 20.0),
    "seed": (0, 2**63 - 1),
}
"""From and to, both allowed."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a run from scratch; docs/method.md has the paper's.

    Args:
        steps: optimiser steps.
        batch: images a step; a forget loss takes as many more.
        lr: AdamW's learning rate at its highest.
        warmup: steps over which it rises linearly.
        cooldown: last share of the steps, in which it falls to 5 %.
        weight_decay: AdamW's.
        clip: largest gradient norm.
        ema: decay of the shipped average; it warms up.
        clock: training times: log-normal noise levels, or uniform t as in the paper.
        noise_mean: of the log-normal clock's log(sigma/alpha).
        draw: stratified or independent times.
        flip: mirror images at random.
        save_every: steps between saved states.
        guard: stop at so many times the lowest retain loss.
        seed: of everything random.
    """

    steps: int = 6000
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 200
    cooldown: float = 0.4
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    clock: Literal["lognormal", "uniform"] = "lognormal"
    noise_mean: float = -0.9
    draw: Literal["stratified", "uniform"] = "stratified"
    flip: bool = False
    save_every: int = 200
    guard: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        in_range(self, RANGES)
        for name in ("clip", "guard"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive and finite; got {getattr(self, name)}")
        if not 0 < self.lr <= 100:
            raise UserError(f"lr must be above 0 and at most 100; got {self.lr}")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema is a decay in [0, 1); got {self.ema}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, the first being step 0: up over ``warmup``, down over ``cooldown``."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup), max(0.05, left) if self.cooldown else 1.0)


@dataclass(frozen=True, kw_only=True)
class UnlearnSettings(TrainSettings):
    """Settings of a fine-tuning run; see `TrainSettings`."""

    steps: int = 300
    lr: float = 8e-4
    warmup: int = 10
    cooldown: float = 0.5
    ema: float = 0.98
    noise_mean: float = 0.1
    save_every: int = 100
