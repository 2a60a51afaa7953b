"""The evidence about one model: what it generates by the judge, and what likelihood it gives to both sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from ...choice import Choice
from ...data import Images, Request, Split
from ...errors import UserError, in_range
from ...installed import Known
from ...metrics import quantities
from ...metrics.judge import Judge
from ...metrics.likeness import Likeness
from ...metrics.measured import Measure, Measured
from ...metrics.measures import BentShares, Frechet, GivenBack, JudgedShares, Likelihoods, bent
from ...metrics.neighbours import Nearest
from ...metrics.shares import forget_classes
from ...metrics.subject import Drawn, Subject
from ...model.score import ScoreModel
from ...progress import bar
from ...report.results import Result
from ...report.samples import MOST
from ...sampling import SAMPLERS, Sampler
from ...storage import read_json, write_json

RANGES = {
    "n": (2, MOST),
    "nll_images": (0, 10**6),
    "nll_steps": (1, 10**5),
    "renoise_images": (0, 10**6),
    "seed": (0, 2**63 - 1),
}
"""From and to, both allowed."""


OTHERS: Known[Callable[[], Measure]] = Known("msgm.measures", {})
"""Measures of other packages, each made without arguments; they are given the same subject as ours."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How much evidence to gather.

    Args:
        n: samples that the judge sees.
        sampler: how they are drawn; an unlearned model may answer samplers of the ODE (heun, dpm++) and of the SDE
            (dpm++-sde, euler-maruyama) differently.
        nll_images: test images of each set whose likelihood is measured; 0 for none.
        nll_steps: Runge-Kutta steps of the likelihood.
        nll_check: how many of them are measured again with twice the steps.
        renoise_images: test images of each set that are noised and drawn back; 0 for none.
        features: network in which kept samples are compared with real images: imagenet, a judge's folder, or a CLIP
            model; by default they are not.
        seed: of samples and likelihoods; two models with the same seed start from the same noise.
    """

    n: int = 1000
    sampler: Annotated[Choice, SAMPLERS] = Choice("dpm++")
    nll_images: int = 40
    nll_steps: int = 12
    nll_check: int = 8
    renoise_images: int = 0
    features: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2 or self.nll_images < 0:
            raise UserError(f"n must be 2 or more and nll_images 0 or more; got {self.n} and {self.nll_images}")
        if self.renoise_images < 0:
            raise UserError(f"renoise_images must be 0 or more; got {self.renoise_images}")
        in_range(self, RANGES)
        self.sampler.maker("sampler", SAMPLERS)(None)  # refuses what it cannot be made of before any model is there
        if self.nll_steps < 1:
            raise UserError(f"nll_steps must be 1 or more; got {self.nll_steps}")
        if self.nll_images and not self.nll_check >= 1:
            raise UserError(
                f"nll_check must be 1 or more: an unchecked likelihood is not reported; got {self.nll_check}"
            )

    @cached_property
    def likeness(self) -> Likeness:
        """One for all models: its network, and the features of the real images, are the same."""
        return Likeness(str(self.features))

    def measures(self, judged: bool) -> list[Measure]:
        """All that is measured, in the order of tables; without a judge the nearest images stand in for classes."""
        likelihoods = Likelihoods(images=self.nll_images, steps=self.nll_steps, check=self.nll_check, seed=self.seed)
        others = [make() for make in OTHERS.values()]
        if not judged:
            return [Nearest(), likelihoods, *others]
        return [
            JudgedShares(),
            BentShares(),
            Frechet(),
            *([self.likeness] if self.features is not None else []),
            likelihoods,
            GivenBack(images=self.renoise_images, seed=self.seed),
            *others,
        ]

    def build(self, model: ScoreModel) -> Sampler:
        """The sampler of a model."""
        return self.sampler.maker("sampler", SAMPLERS)(model)


def retain_confidence(judge: Judge, split: Split, *, progress: bool = True) -> Tensor:
    """The judge's P(no class to forget, no junk | x_0) of each retained image, (N,)."""
    forget = forget_classes(split.request, judge)
    kept = [k for k, value in enumerate(judge.classes) if value not in forget]
    with bar("The judge looks at the retained images", len(split.retain), show=progress) as tick:
        found = []
        for start in range(0, len(split.retain), 500):
            part = split.retain.rows(slice(start, start + 500))
            found.append(judge.probabilities(part)[:, kept].sum(1).clamp(max=1))
            tick(len(part))
    return torch.cat(found)


def check(model: ScoreModel, judge: Judge | None, request: Request, test: Images) -> tuple[set[int], Tensor]:
    """The judge's classes to forget, and the mask (N,) of the images that the request selects.

    Without a judge there are no classes. Raises UserError, before any work: shapes that disagree; a request that
    selects no test image, or all of them, or none of the judge's classes, or all of them.
    """
    if judge is None:
        test.check_shape(model.shape)
        request.split(test)
        return set(), request.mask(test)
    if model.shape != test.shape or judge.shape != test.shape:
        raise UserError(
            f"model {model.shape}, judge {judge.shape} and test images {test.shape} must agree in (channels, height, "
            f"width); use the judge and data of the model's size",
            option="data.size",
        )
    chosen = request.mask(test)
    if not chosen.any() or chosen.all():
        raise UserError(f"{request} selects {'all' if chosen.all() else 'none'} of the test images")
    forget = forget_classes(request, judge)
    if not 0 < len(forget) < len(judge.classes):
        raise UserError(
            f"{request} selects {'all' if forget else 'none'} of the judge's classes "
            f"{', '.join(map(str, judge.classes))}; use a judge that tells the forgotten from the rest"
        )
    return forget, chosen


def evaluate(
    model: ScoreModel,
    *,
    name: str,
    method: str,
    judge: Judge | None,
    request: Request,
    test: Images,
    settings: EvaluateSettings | None = None,
    seconds: float | None = None,
    stored: Path | None = None,
    progress: bool = True,
) -> tuple[Result, Drawn]:
    """Sample, judge and measure a model: its result, and the subject, which holds the samples.

    Args:
        model: to be measured.
        name: of the model, in tables.
        method: that made it.
        judge: of the samples; None for a request without a rule, whose images samples are compared with.
        request: what was to be forgotten.
        test: images of both sets.
        settings: how much evidence to gather.
        seconds: how long it took to make the model.
        stored: a file for what is measured, written as each measure ends; what it holds is not measured again. It
            must be of the same model, settings, judge and images: the caller sees to that.
        progress: show bars.

    Raises UserError, before any work, as `check` does.
    """
    settings = settings or EvaluateSettings()
    forget, chosen = check(model, judge, request, test)
    drawn: dict[str, Any] = {
        "name": name, "sampler": settings.build(model), "n": settings.n, "seed": settings.seed,
        "retained": test.select(~chosen), "forgotten": test.select(chosen), "progress": progress,
    }  # fmt: skip
    subject = Drawn(**drawn) if judge is None else Subject(**drawn, judge=judge, forget=forget, request=request)
    began, whole = time.monotonic(), stored is None or not stored.exists()
    found, judged = ({}, {}) if stored is None or whole else _read(stored)
    for measure in settings.measures(judge is not None):
        if not set(measure.names) <= set(found):
            found |= measure.measure(subject)
            if isinstance(subject, Subject):
                judged = judged or subject.judge.counts(subject.verdicts)
            if stored is not None:
                write_json(stored, {"judged": judged, "measured": {key: each.to_dict() for key, each in found.items()}})
    clocks = {quantities.SECONDS: seconds, quantities.AUDIT_SECONDS: time.monotonic() - began if whole else None}
    found |= {quantity.name: quantity.of(value) for quantity, value in clocks.items() if value is not None}
    return Result(model=name, method=method, measured=found, judged=judged, sampler=settings.sampler.name), subject


def beside(parent: Result, results: Sequence[Result], judge: Judge | None, forget: Set[int]) -> list[Result]:
    """The results, each with how far its kept classes' shares are from those among the parent's samples."""

    def kept(result: Result) -> list[int]:
        assert judge is not None
        counts = zip(judge.classes, result.judged.values(), strict=False)  # junk, the last, is no class
        return [count for label, count in counts if label not in forget]

    def measured(result: Result) -> Result:
        if judge is None or not result.judged or not parent.judged:
            return result
        found = bent(quantities.BENT_FROM_PARENT, kept(result), kept(parent))
        return replace(result, measured={**result.measured, found.name: found})

    return [measured(result) for result in results]


def _read(stored: Path) -> tuple[dict[str, Measured], dict[str, int]]:
    found = read_json(stored)
    return {name: Measured.from_dict(each) for name, each in found["measured"].items()}, found["judged"]
