"""What a judge makes of samples: shares in the forget classes, of junk, and of what is kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data import ForgetRequest, Images, Request, parts, together
from ..errors import UserError
from ..model.score import ScoreModel
from ..sampling import Heun, Sampler
from .judge import JUNK, Judge
from .rates import Rate, wilson

Role = Literal["judge", "guide"]
"""What a judge is used as: it judges samples, or it guides them."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What a judge made of n samples: three shares of *all* of them, which add to one.

    Junk is neither retained nor forgotten: a model that answers with noise has not moderated anything.
    """

    unlearning_ratio: Rate
    """Share in the forget classes (the paper's UR; lower is better)."""
    junk: Rate
    retained: Rate

    @property
    def value(self) -> float:
        """The unlearning ratio."""
        return self.unlearning_ratio.value

    @property
    def interval(self) -> tuple[float, float]:
        """The unlearning ratio's confidence interval."""
        return self.unlearning_ratio.interval


def judged_shares(predicted: Tensor, forget: Collection[int], classes: Sequence[int], junk: int = JUNK) -> Shares:
    """Shares of the label values ``predicted`` (N,) by `Judge.predict`: forget classes, junk, the others.

    ``classes`` are the labels that the judge knows; a forget class that it does not know would never be seen
    and is refused. Raises UserError for that, for no sample, and for a prediction that is neither a class nor
    junk.
    """
    wanted, known = set(forget), set(classes)
    if not wanted or not wanted < known:
        raise UserError(
            f"forget classes {sorted(wanted)} must be some, not all, of the judge's classes {sorted(known)}; "
            "train a judge on the column that the request is about"
        )
    if len(predicted) == 0:
        raise UserError("no samples to take shares of")
    counts = {int(label): int(k) for label, k in zip(*predicted.unique(return_counts=True), strict=True)}
    if strange := set(counts) - known - {junk}:
        raise UserError(f"predicted labels {sorted(strange)} are neither the judge's classes nor junk ({junk})")
    n, bad = len(predicted), counts.pop(junk, 0)
    hits = sum(k for label, k in counts.items() if label in wanted)
    return Shares(unlearning_ratio=wilson(hits, n), junk=wilson(bad, n), retained=wilson(n - hits - bad, n))


def rules_of(request: Request) -> Request | None:
    """Of a request the rules, whose classes a judge may tell in samples; None where it has none."""
    rules = [each for each in parts(request) if isinstance(each, ForgetRequest)]
    return together(*rules) if rules else None


def forget_classes(request: Request, judge: Judge | None, role: Role = "judge") -> set[int]:
    """The judge's classes that the rules of a request select; lists of images select none, nor does no judge.

    Raises UserError when a rule is about something that the judge does not know.
    """
    rules = rules_of(request)
    if judge is None or rules is None:
        return set()
    classes = torch.tensor(judge.classes)
    probe = Images.of(
        torch.zeros(len(classes), *judge.shape, dtype=torch.uint8),
        columns={judge.column: classes},
        name="the judge's classes",
        label_names=dict(zip(judge.classes, judge.names, strict=True)) if judge.column == "label" else {},
    )
    try:
        hits = rules.mask(probe).tolist()
    except UserError as error:
        origin = f" (trained on {judge.trained_on})" if judge.trained_on else ""
        raise UserError(
            f"the {role}{origin} does not know what is to be forgotten: {error}; name a {role} of these classes",
            option=role,
        ) from None
    return {c for c, hit in zip(judge.classes, hits, strict=True) if hit}


def unlearning_ratio(
    model: ScoreModel | Sampler, judge: Judge, forget: Collection[int], n: int = 10_000, seed: int = 0
) -> Shares:
    """Draw n samples and judge them: ``.value``, ``.interval`` of the unlearning ratio, and ``.junk``.

    ``model`` is a `ScoreModel`, sampled with `Heun`, or a sampler of it.
    """
    sampler = model if isinstance(model, Sampler) else Heun(model)
    x = sampler.model.space.moved(sampler.sample(n, seed=seed), judge.space)
    return judged_shares(judge.predict(x), forget, judge.classes)
