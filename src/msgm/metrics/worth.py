"""What a judge is worth for one request, from real test images: how often it errs, and UR without its errors."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from ..data import Images, Request
from ..errors import UserError
from ..formats.tensors import weights_sha256
from .judge import JUNK, Judge
from .rates import Rate, wilson
from .shares import Role, forget_classes, rules_of

LEAST_RECALL = 0.5
"""A judge that finds fewer of the real images to be forgotten cannot say that there are few among samples."""
MOST_FALSE = 0.5
"""Share of its recall that its false positives may be at most."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Errors of a judge on the test images of a request; rates are in [0, 1] with Wilson's interval.

    Args:
        sha256: of its weights.
        trained_on: name of the data it was trained on, where its record has it.
        accuracy: share of its own test images that it gives their label; None where it was never measured.
        recall: share of real images to be forgotten, by rules, that it puts into a forget class.
        false_positives: share of real images to be retained that it puts into a forget class: a floor under UR.
        called_junk: share of real images to be retained that it calls junk: a floor under junk.
        junk_recall: share of each kind of junk, made from its test images, that it calls junk.
    """

    sha256: str
    trained_on: str | None
    accuracy: float | None
    recall: Rate
    false_positives: Rate
    called_junk: Rate
    junk_recall: dict[str, float]

    @property
    def tells(self) -> bool:
        """Whether the judge can tell the forgotten from the rest."""
        enough = self.recall.value >= LEAST_RECALL
        return enough and self.false_positives.value <= MOST_FALSE * self.recall.value

    def check(self, role: Role = "judge") -> None:
        """Raise UserError if the judge cannot tell the forgotten from the rest."""
        if self.tells:
            return
        origin = f" (trained on {self.trained_on})" if self.trained_on else ""
        raise UserError(
            f"the {role}{origin} cannot tell what is to be forgotten in these data: it finds {self.recall.value:.0%} "
            f"of {self.recall.n} real images of it, and takes {self.false_positives.value:.0%} of the others for it; "
            f"name a {role} that was trained on such data",
            option=role,
        )

    def corrected(self, hits: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """UR of ``hits`` of n samples without the judge's errors: value, and the interval's ends.

        ``(UR - f) / (r - f)`` with recall r and false positives f (Rogan and Gladen 1978), cut to [0, 1]. Interval:
        Lang and Reiczigel (2014), which counts the errors of all three rates and holds at rates of 0 and 1.
        """
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        r, f = self.recall, self.false_positives
        value = (hits / n - f.value) / (r.value - f.value)
        # Each rate is moved a little towards the middle, as by pseudo-observations.
        ur = (hits + z * z / 2) / (n + z * z)
        found, kept = ((rate.value * rate.n + 1) / (rate.n + 2) for rate in (r, _not(f)))
        centre = min(1.0, max(0.0, (ur + kept - 1) / (found + kept - 1)))
        spread_found, spread_kept = found * (1 - found) / (r.n + 2), kept * (1 - kept) / (f.n + 2)
        shift = 2 * z * z * (centre * spread_found - (1 - centre) * spread_kept)
        variance = ur * (1 - ur) / (n + z * z) + centre**2 * spread_found + (1 - centre) ** 2 * spread_kept
        half = z * math.sqrt(variance) / (found + kept - 1)
        ends = (value, centre + shift - half, centre + shift + half)
        value, low, high = (min(1.0, max(0.0, end)) for end in ends)
        return value, min(low, value), max(high, value)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rates = {key: getattr(self, key).to_dict() for key in ("recall", "false_positives", "called_junk")}
        plain = {key: getattr(self, key) for key in ("sha256", "trained_on", "accuracy", "junk_recall")}
        return {**plain, **rates}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Worth:
        """The inverse of `to_dict`."""
        rates = {key: Rate(**found[key]) for key in ("recall", "false_positives", "called_junk")}
        return cls(**{**found, **rates})

    def text(self, role: Role = "judge") -> str:
        """In words."""
        right = "never measured" if self.accuracy is None else f"{self.accuracy:.1%} of its test images right"
        return (
            f"{role.capitalize()} {self.sha256[:12]}: {right}; finds {self.recall} of real images to be forgotten, "
            f"takes {self.false_positives} of real retained ones for them and {self.called_junk} for junk"
        )

    def __str__(self) -> str:
        return self.text()


def worth(judge: Judge, forget: Set[int], retained: Tensor, forgotten: Tensor) -> Worth:
    """From the judge's label values of real test images ``retained`` (N,) and ``forgotten`` (M,)."""

    def share(verdicts: Tensor, labels: Set[int]) -> Rate:
        return wilson(sum(int((verdicts == label).sum()) for label in labels), len(verdicts))

    return Worth(
        sha256=weights_sha256(judge),
        trained_on=judge.trained_on,
        accuracy=judge.accuracy if "confusion" in judge.record else None,
        recall=share(forgotten, forget),
        false_positives=share(retained, forget),
        called_junk=share(retained, {JUNK}),
        junk_recall=dict(judge.junk_recall),
    )


def verdicts_on(judge: Judge, images: Images) -> Tensor:
    """The judge's label value of each image, (N,)."""
    return torch.cat([judge.predict(part) for part in images.chunks()])


def worth_for(judge: Judge, request: Request, test: Images) -> Worth:
    """From the test images themselves: the request says which of them, and of the judge's classes, are forgotten.

    Images that it names one by one are in neither set, as no class is theirs. Raises UserError where its rules select
    none.
    """
    chosen = by_rules(request, test)
    if not chosen.any():
        raise UserError(
            f"the rules of {request} select none of {test.name}, so no judge can be measured; use other data"
        )
    verdicts = verdicts_on(judge, test)
    return worth(judge, forget_classes(request, judge), verdicts[~request.mask(test)], verdicts[chosen])


def by_rules(request: Request, images: Images) -> Tensor:
    """Which images the rules of a request select: bool (N,)."""
    rules = rules_of(request)
    return rules.mask(images) if rules is not None else torch.zeros(len(images), dtype=torch.bool)


def _not(rate: Rate) -> Rate:
    return wilson(rate.n - round(rate.value * rate.n), rate.n)
