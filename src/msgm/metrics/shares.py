"""Numbers that come with their error: rates with Wilson intervals, judged shares, the Fréchet distance."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..model.score import ScoreModel
from ..sampling import Heun, Sampler
from .judge import JUNK, Judge


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of ``n`` draws, in [0, 1], with its confidence interval ``low``..``high``."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(k: int, n: int, confidence: float = 0.95) -> Rate:
    """The rate k / n with Wilson's score interval (Wilson 1927), which holds at k = 0 and k = n too.

    ``(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`` with p = k/n and z the normal quantile.
    """
    if n < 1 or not 0 <= k <= n:
        raise UserError(f"a rate needs 0 <= k <= n and n >= 1, got k = {k} of n = {n}")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must be between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, scale = k / n, 1 + z * z / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the exact limits are 0 and 1; rounding must not leave the interval beside its value.
    low = 0.0 if k == 0 else (middle - half) / scale
    high = 1.0 if k == n else (middle + half) / scale
    return Rate(value=p, low=low, high=high, n=n)


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


def unlearning_ratio(
    model: ScoreModel | Sampler, judge: Judge, forget: Collection[int], n: int = 10_000, seed: int = 0
) -> Shares:
    """Draw n samples and judge them: ``.value``, ``.interval`` of the unlearning ratio, and ``.junk``.

    ``model`` is a `ScoreModel`, sampled with `Heun`, or a sampler of it.
    """
    sampler = model if isinstance(model, Sampler) else Heun(model)
    return judged_shares(judge.predict(sampler.sample(n, seed=seed)), forget, judge.classes)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to features a (N, F) and b (M, F), in float64.

    ``|μa - μb|² + tr(Sa + Sb - 2 (Sa Sb)^½)`` (Dowson and Landau 1982), with unbiased covariances. The last
    trace is the sum of the singular values of ``Sa^½ Sb^½``, the roots taken by eigen-decomposition: real,
    and as exact for singular covariances (fewer samples than features) as for any.
    """
    for name, features in (("a", a), ("b", b)):
        if features.ndim != 2 or len(features) < 2 or not bool(features.isfinite().all()):
            raise UserError(f"features {name} must be finite, of shape (N, F) with N >= 2; got {tuple(features.shape)}")
    if a.shape[1] != b.shape[1]:
        raise UserError(f"features must come from the same network: a has {a.shape[1]} columns, b {b.shape[1]}")
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    cross = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    total = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(total))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    x = features.detach().cpu().double()
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix; eigenvalues below zero are rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
