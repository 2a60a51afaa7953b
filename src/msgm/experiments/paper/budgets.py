"""What a table may cost: network, steps, seeds, evidence. A value for each budget; nothing else decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ...metrics.judge import JudgeSettings
from ...model.score import Prediction
from ...sampling import SamplerName
from ...training.settings import TrainSettings, UnlearnSettings
from .tables import ProcessName


@dataclass(frozen=True, kw_only=True)
class Draw:
    """``n`` samples by one sampler; ``batch`` at a time."""

    sampler: SamplerName
    steps: int
    n: int
    batch: int = 250

    @property
    def name(self) -> str:
        """As it stands in results: ``heun-18``."""
        return f"{self.sampler}-{self.steps}"


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """The evidence about each model.

    Args:
        draws: samples for the judge; the first draw's stand in the tables.
        nll_images: test images of each set whose likelihood is measured.
        nll_steps: Runge-Kutta steps of the likelihood.
        nll_check: how many of them are measured again with twice the steps.
        seed: of samples and likelihoods: all models start from the same noise.
    """

    draws: tuple[Draw, ...] = (
        Draw(sampler="heun", steps=18, n=10_000, batch=1000),
        Draw(sampler="dpm++-sde", steps=30, n=2000, batch=1000),
    )
    nll_images: int = 250
    nll_steps: int = 6
    nll_check: int = 48
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How the models of one process are made: what the network predicts, its training and its fine-tuning.

    ``seconds``: where it is not None the steps of a training are set by the machine's measured speed to take about
    this long, and ``train.steps`` is the most; ``tune_seconds`` likewise of a fine-tuning, as a mean over the methods.
    """

    prediction: Prediction
    train: TrainSettings
    tune: UnlearnSettings
    seconds: float | None = None
    tune_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All that a grid of runs costs.

    Args:
        image_size: images are reduced to it.
        network: preset of the network.
        kinds: for each process how its models are made. Fine-tuning takes the same steps and the same retained images
            a step for every method; on a step with a forget loss as many forget images come on top.
        methods: fine-tuned from each Standard model; the parent stands for ``standard``.
        retrain: those that are trained from scratch as well, by the settings of the Standard model.
        seeds: fine-tuned runs of each method.
        judge: how the judge is trained.
        audit: the evidence about each model.
        precision: of the network in training and sampling; likelihoods are always measured in float32.
        compile: whether the network is compiled; only on a GPU.
    """

    image_size: int
    network: str
    kinds: Mapping[ProcessName, Kind]
    methods: tuple[str, ...] = ("unseen", "orthogonal", "obtuse", "erasediff", "deflect", "steer")
    retrain: tuple[str, ...] = ()
    seeds: int = 1
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False


_SMALL = TrainSettings(steps=6000, batch=64, flip=True)
_SMALL_TUNE = UnlearnSettings(flip=True)
# About 8 and 4 M images in training, 0.26 M retained ones in fine-tuning.
_GPU = TrainSettings(steps=16_000, batch=512, warmup=500, ema=0.9995, flip=True, save_every=1000)
_GPU_TUNE = UnlearnSettings(steps=1000, batch=256, lr=3e-4, warmup=20, ema=0.99, flip=True, save_every=500)
# The paper's Sec. 4.4 and score_sde's settings: Adam 2e-4 at batch 400, its average 0.9999.
_PAPER = TrainSettings(
    steps=500_000, batch=400, lr=2e-4, warmup=5000, cooldown=0, ema=0.9999, flip=True, clock="uniform", save_every=5000
)
_PAPER_TUNE = UnlearnSettings(
    steps=80_000, batch=400, lr=2e-4, warmup=5000, cooldown=0, ema=0.9999, flip=True, clock="uniform", save_every=5000
)
_JUDGE = JudgeSettings(epochs=28, batch=512, lr=4e-3, junk_share=0.15, flip=True, width=64)

BUDGETS: dict[str, Budget] = {
    "small": Budget(
        image_size=16,
        network="small-16",
        kinds={
            "vp": Kind(prediction="edm", train=_SMALL, tune=_SMALL_TUNE),
            "ddpm": Kind(prediction="noise", train=_SMALL, tune=_SMALL_TUNE),
        },
        judge=JudgeSettings(flip=True),
        audit=AuditSettings(
            draws=(Draw(sampler="dpm++", steps=16, n=10_000), Draw(sampler="dpm++-sde", steps=30, n=2000)),
            nll_images=100,
            nll_check=20,
        ),
    ),
    "gpu": Budget(
        image_size=32,
        network="gpu-32",
        kinds={
            "vp": Kind(prediction="edm", train=_GPU, tune=_GPU_TUNE, seconds=310, tune_seconds=24),
            "ddpm": Kind(
                prediction="noise", train=replace(_GPU, steps=8000), tune=_GPU_TUNE, seconds=190, tune_seconds=24
            ),
        },
        retrain=("unseen",),
        judge=_JUDGE,
        precision="bf16",
        compile=True,
    ),
    "paper": Budget(
        image_size=32,
        network="paper-32",
        kinds={
            "vp": Kind(prediction="noise", train=_PAPER, tune=_PAPER_TUNE),
            "ddpm": Kind(prediction="noise", train=_PAPER, tune=replace(_PAPER_TUNE, steps=30_000)),
        },
        retrain=("unseen", "orthogonal", "obtuse", "erasediff"),
        judge=_JUDGE,
        precision="bf16",
        compile=True,
    ),
}
