"""What a table may cost: network, steps, seeds, evidence. A value for each budget; nothing else decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ...metrics.judge_training import JudgeSettings
from ...model.precondition import Prediction
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
class EditSettings:
    """Editing test images by each model, of Tables 3 and 4.

    Args:
        n: test images of each set, the first ones.
        inpaint_steps: of the predictor-corrector sampler that fills in; the paper's has 1,000.
        flow_steps: of Heun's method, each way, where images are rebuilt from their latents.
        seed: of all noise.
    """

    n: int = 100
    inpaint_steps: int = 100
    flow_steps: int = 20
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
        retrain: the methods that are trained from scratch as well, by the settings of the Standard model.
        seeds: fine-tuned runs of each method.
        judge: how the judge is trained.
        audit: the evidence about each model.
        edits: what images edited by each model say.
        precision: of the network in training and sampling; likelihoods are always measured in float32.
        compile: whether the network is compiled; only on a GPU.
    """

    image_size: int
    network: str
    kinds: Mapping[ProcessName, Kind]
    retrain: tuple[str, ...] = ()
    seeds: int = 1
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    edits: EditSettings = field(default_factory=EditSettings)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False


AGAIN = ("unseen", "orthogonal", "obtuse", "erasediff")
"""What the paper trains from scratch beside the Standard model."""


def _kinds(train: TrainSettings, tune: UnlearnSettings, *processes: ProcessName) -> dict[ProcessName, Kind]:
    """EDM's preconditioning where it is defined.

    DDPM predicts v: of so small a network that predicts the noise about two thirds of the samples were junk after as
    many steps, and so about a tenth.
    """
    return {p: Kind(prediction="v" if p == "ddpm" else "edm", train=train, tune=tune) for p in processes}


# Small: one core. All about MNIST in an hour and a half or so, the others within an hour each.
_DIGITS = TrainSettings(steps=2000, batch=48, save_every=100)
_DIGITS_TUNE = UnlearnSettings(batch=24)
_PHOTOS = TrainSettings(steps=3000, batch=48, flip=True, save_every=100)
_PHOTOS_TUNE = UnlearnSettings(batch=32, flip=True)
_SMALL_AUDIT = AuditSettings(draws=(Draw(sampler="dpm++", steps=10, n=10_000),), nll_images=40, nll_check=10)
_LARGE_IMAGES = replace(_SMALL_AUDIT, draws=(Draw(sampler="dpm++", steps=10, n=4000),))
_SMALL: dict[str, Budget] = {
    "mnist": Budget(
        image_size=28, network="small-28", kinds=_kinds(_DIGITS, _DIGITS_TUNE, "ve"), retrain=AGAIN, seeds=3,
        judge=JudgeSettings(epochs=2), audit=_SMALL_AUDIT,
    ),
    "cifar10": Budget(
        image_size=16, network="small-16", kinds=_kinds(_PHOTOS, _PHOTOS_TUNE, "vp", "ddpm"), retrain=AGAIN,
        judge=JudgeSettings(epochs=8, flip=True), audit=_SMALL_AUDIT,
    ),
    "celeba": Budget(
        image_size=32, network="small-32", kinds=_kinds(_PHOTOS, _PHOTOS_TUNE, "vp"), retrain=("unseen",),
        judge=JudgeSettings(flip=True), audit=_LARGE_IMAGES,
    ),
    "stl10": Budget(
        image_size=64, network="small-64", kinds=_kinds(_PHOTOS, _PHOTOS_TUNE, "vp"), retrain=("unseen",),
        judge=JudgeSettings(flip=True), audit=_LARGE_IMAGES,
    ),
}  # fmt: skip

# A GPU of the H100 class. About 8 and 4 M images in training, 0.26 M retained ones in fine-tuning.
_GPU_TRAIN = TrainSettings(steps=16_000, batch=512, warmup=500, ema=0.9995, flip=True, save_every=1000)
_GPU_TUNE = UnlearnSettings(steps=1000, batch=256, lr=3e-4, warmup=20, ema=0.99, flip=True, save_every=500)
_GPU_JUDGE = JudgeSettings(epochs=28, batch=512, lr=4e-3, junk_share=0.15, flip=True, width=64)
_SIZED: dict[ProcessName, Kind] = {
    "vp": Kind(prediction="edm", train=_GPU_TRAIN, tune=_GPU_TUNE, seconds=310, tune_seconds=24),
    "ddpm": Kind(
        prediction="noise", train=replace(_GPU_TRAIN, steps=8000), tune=_GPU_TUNE, seconds=190, tune_seconds=24
    ),
}
_GPU = Budget(
    image_size=32, network="gpu-32", kinds=_SIZED, retrain=("unseen",), judge=_GPU_JUDGE, precision="bf16",
    compile=True,
)  # fmt: skip
_VE = Kind(
    prediction="edm", train=replace(_GPU_TRAIN, flip=False), tune=replace(_GPU_TUNE, flip=False), seconds=120,
    tune_seconds=24,
)  # fmt: skip

# The paper's Sec. 4.4 and score_sde's settings: Adam 2e-4 at batch 400, its average 0.9999.
_PAPER_TRAIN = TrainSettings(
    steps=500_000, batch=400, lr=2e-4, warmup=5000, cooldown=0, ema=0.9999, flip=True, clock="uniform", save_every=5000
)
_PAPER_TUNE = UnlearnSettings(
    steps=80_000, batch=400, lr=2e-4, warmup=5000, cooldown=0, ema=0.9999, flip=True, clock="uniform", save_every=5000
)
_MANY = EditSettings(n=1000, inpaint_steps=1000, flow_steps=100)
_PAPER = Budget(
    image_size=32,
    network="paper-32",
    kinds={
        "vp": Kind(prediction="noise", train=_PAPER_TRAIN, tune=_PAPER_TUNE),
        "ddpm": Kind(prediction="noise", train=_PAPER_TRAIN, tune=replace(_PAPER_TUNE, steps=30_000)),
    },
    retrain=AGAIN, judge=_GPU_JUDGE, edits=_MANY, precision="bf16", compile=True,
)  # fmt: skip
_PAPER_VE = Kind(prediction="noise", train=replace(_PAPER_TRAIN, flip=False), tune=replace(_PAPER_TUNE, flip=False))
_STILL = replace(_GPU_JUDGE, flip=False)

BUDGETS: dict[str, dict[str, Budget]] = {
    "small": _SMALL
    | {"cifar10-airplane": replace(_SMALL["cifar10"], kinds=_kinds(_PHOTOS, _PHOTOS_TUNE, "vp"), retrain=("unseen",))},
    "gpu": {
        "mnist": replace(
            _GPU, image_size=28, network="gpu-28", kinds={"ve": _VE}, retrain=AGAIN, seeds=3, judge=_STILL
        ),
        **dict.fromkeys(("cifar10", "cifar10-airplane", "celeba"), _GPU),
        "stl10": replace(_GPU, image_size=64, network="gpu-64"),
    },
    "paper": {
        "mnist": replace(_PAPER, image_size=28, network="paper-28", kinds={"ve": _PAPER_VE}, seeds=3, judge=_STILL),
        **dict.fromkeys(("cifar10", "cifar10-airplane"), _PAPER),
        **dict.fromkeys(("celeba", "stl10"), replace(_PAPER, image_size=64, network="paper-64")),
    },
}
"""By the name of the budget and of the request's data."""
