"""The evidence about one model: what it generates by the judge, and what likelihood it gives to both sets."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import ForgetRequest, Images, Split, to_model, to_pixels
from ...errors import UserError
from ...likelihood import log_likelihood
from ...metrics.judge import Judge
from ...metrics.shares import frechet_distance, judged_shares
from ...model.score import ScoreModel
from ...progress import bar
from ...report.page import Measured, Row
from ...sampling import Grid, Sampler, SamplerName, build


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How much evidence to gather.

    Args:
        n: samples that the judge sees.
        sampler: as msgm sample takes it; an unlearned model may answer samplers of the ODE (heun, dpm++) and of the
            SDE (dpm++-sde, euler-maruyama) differently.
        sampling_steps: times the sampler visits; by default its own.
        sampling_grid: how they lie; by default the sampler's own.
        nll_images: test images of each set whose likelihood is measured; 0 for none.
        nll_steps: Runge-Kutta steps of the likelihood.
        nll_check: how many of them are measured again with twice the steps.
        seed: of samples and likelihoods; two models with the same seed start from the same noise.
    """

    n: int = 1000
    sampler: SamplerName = "dpm++"
    sampling_steps: int | None = None
    sampling_grid: Grid | None = None
    nll_images: int = 40
    nll_steps: int = 12
    nll_check: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2 or self.nll_images < 0:
            raise UserError(f"n must be 2 or more and nll_images 0 or more; got {self.n} and {self.nll_images}")
        if self.sampling_steps is not None and self.sampling_steps < 2:
            raise UserError(f"sampling_steps must be at least 2 steps; got {self.sampling_steps}")
        if self.nll_steps < 1:
            raise UserError(f"nll_steps must be 1 or more; got {self.nll_steps}")
        if self.nll_images and not self.nll_check >= 1:
            raise UserError(
                f"nll_check must be 1 or more: an unchecked likelihood is not reported; got {self.nll_check}"
            )

    def build(self, model: ScoreModel) -> Sampler:
        """The sampler of a model."""
        return build(self.sampler, model, steps=self.sampling_steps, grid=self.sampling_grid)


def forget_classes(request: ForgetRequest, judge: Judge) -> set[int]:
    """The judge's classes that the rule selects. Raises UserError when the rule is about something else."""
    classes = torch.tensor(judge.classes)
    probe = Images.of(
        torch.zeros(len(classes), *judge.shape, dtype=torch.uint8),
        columns={judge.column: classes},
        name="the judge's classes",
        label_names=tuple(judge.names or ()) if judge.column == "label" else (),
    )
    return {c for c, hit in zip(judge.classes, request.mask(probe).tolist(), strict=True) if hit}


def retain_confidence(judge: Judge, split: Split, *, progress: bool = True) -> Tensor:
    """The judge's P(no class to forget, no junk | x_0) of each retained image, (N,)."""
    forget = forget_classes(split.request, judge)
    kept = [k for k, value in enumerate(judge.classes) if value not in forget]
    with bar("The judge looks at the retained images", len(split.retain), show=progress) as tick:
        found = []
        for start in range(0, len(split.retain), 500):
            part = split.retain.rows(slice(start, start + 500))
            found.append(judge.probabilities(to_model(part))[:, kept].sum(1).clamp(max=1))
            tick(len(part))
    return torch.cat(found)


def check(model: ScoreModel, judge: Judge, request: ForgetRequest, test: Images) -> tuple[set[int], Tensor]:
    """The judge's classes to forget, and the mask (N,) of the test images that the rule selects.

    Raises UserError, before any work: shapes that disagree; a rule that selects no test image, or all of them,
    or none of the judge's classes, or all of them.
    """
    if model.shape != test.shape or judge.shape != test.shape:
        raise UserError(
            f"model {model.shape}, judge {judge.shape} and test images {test.shape} must agree in (channels, height, "
            f"width); use the judge and data of the model's size (--image-size)"
        )
    chosen = request.mask(test)
    if not chosen.any() or chosen.all():
        raise UserError(f"rule {request.rule!r} selects {'all' if chosen.all() else 'none'} of the test images")
    forget = forget_classes(request, judge)
    if not 0 < len(forget) < len(judge.classes):
        raise UserError(
            f"rule {request.rule!r} selects {'all' if forget else 'none'} of the judge's classes "
            f"{', '.join(map(str, judge.classes))}; use a judge that tells the forgotten from the rest"
        )
    return forget, chosen


def evaluate(
    model: ScoreModel,
    *,
    name: str,
    method: str,
    judge: Judge,
    request: ForgetRequest,
    test: Images,
    settings: EvaluateSettings | None = None,
    seconds: float | None = None,
    progress: bool = True,
) -> tuple[Row, Tensor]:
    """Sample, judge and measure a model: one row of results, and the samples as uint8 (n, C, H, W).

    Shares are of all samples. ``frechet_distance`` (extra) is that of the judge's features between the samples
    and the retained test images, ``judged`` how many samples the judge takes for each class. A likelihood whose
    step-doubling check fails is not reported: None, with the check itself in ``nll_doubling``. ``seconds`` is how
    long it took to make the model.
    """
    settings = settings or EvaluateSettings()
    forget, chosen = check(model, judge, request, test)

    began = time.monotonic()
    with bar(f"{name}: {settings.n} samples", settings.n, show=progress) as tick:
        pixels = to_pixels(settings.build(model).sample(settings.n, seed=settings.seed, tick=tick)).cpu()
    x = to_model(pixels)
    predicted = judge.predict(x)
    shares = judged_shares(predicted, forget, judge.classes)
    distance = frechet_distance(judge.features(x), judge.features(to_model(test.rows(~chosen))))
    nll: dict[str, Measured | None] = {"retain": None, "forget": None}
    doubling: dict[str, float] = {}
    if settings.nll_images:
        sets = {"retain": test.select(~chosen), "forget": test.select(chosen)}
        for key, part in sets.items():
            images = part.rows(slice(settings.nll_images)).to(model.device)
            with bar(f"{name}: likelihood of {key} images", len(images), show=progress) as tick:
                result = log_likelihood(
                    model,
                    images,
                    steps=settings.nll_steps,
                    check=settings.nll_check,
                    seed=settings.seed,
                    tick=tick,
                )
            doubling[key] = float(result.doubling.mean())
            nll[key] = result.mean() if result.reliable else None
    row = Row(
        model=name,
        method=method,
        unlearning_ratio=shares.unlearning_ratio,
        junk=shares.junk,
        retained=shares.retained,
        nll_retain=nll["retain"],
        nll_forget=nll["forget"],
        seconds=seconds,
        extra={
            "frechet_distance": distance,
            "judged": judge.counts(predicted),
            "nll_doubling": doubling,
            "sampler": settings.sampler,
            "evaluation_seconds": time.monotonic() - began,
        },
    )
    return row, pixels
