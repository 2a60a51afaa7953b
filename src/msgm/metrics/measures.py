"""The measures of an audit: each takes a `Subject` and gives named numbers with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..likelihood import log_likelihood
from ..progress import bar
from . import quantities
from .bent import bent_shares
from .distances import frechet_distance
from .measured import Measured, Quantity
from .renoise import given_back
from .shares import judged_shares
from .subject import Drawn, Subject


@dataclass(frozen=True, kw_only=True)
class JudgedShares:
    """Shares of all samples: in the forget classes, junk, and the rest; UR without the judge's errors as well."""

    names = tuple(each.name for each in (quantities.UR, quantities.JUNK, quantities.RETAINED, quantities.CORRECTED))

    def measure(self, subject: Subject) -> dict[str, Measured]:
        """Wilson's intervals; the corrected UR's is that of `Worth.corrected`."""
        shares = judged_shares(subject.verdicts, subject.forget, subject.judge.classes)
        n = shares.junk.n
        hits, junk, kept = (round(r.value * n) for r in (shares.unlearning_ratio, shares.junk, shares.retained))
        if subject.worth.recall.value > subject.worth.false_positives.value:
            value, low, high = subject.worth.corrected(hits, n)
            corrected = quantities.CORRECTED.of(value, low=low, high=high, n=n)
        else:
            corrected = quantities.CORRECTED.missing("the judge cannot tell the forgotten from the rest")
        return _by_name(
            quantities.UR.share(hits, n), quantities.JUNK.share(junk, n), quantities.RETAINED.share(kept, n), corrected
        )


@dataclass(frozen=True, kw_only=True)
class BentShares:
    """Total variation distance of the kept classes' shares among the samples from those among real retained images.

    The judge is asked about both, so that its confusions are in both.
    """

    names = (quantities.BENT.name,)

    def measure(self, subject: Subject) -> dict[str, Measured]:
        """As `bent` measures it."""
        real = subject.kept_counts(subject.verdicts_on_real[0])
        return _by_name(bent(quantities.BENT, subject.kept_counts(subject.verdicts), real))


def bent(quantity: Quantity, counts: Sequence[int], reference: Sequence[int]) -> Measured:
    """Distance and interval of `bent_shares`. Where no sample is of a kept class the distance is 1."""
    if not sum(reference):
        return quantity.missing("the judge takes no image for one of a kept class")
    if not sum(counts):
        return quantity.of(1.0, n=0)
    value, low, high = bent_shares(counts, reference)
    return quantity.of(value, low=low, high=high, n=sum(counts))


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """Fréchet distance of the judge's features between all samples and the real retained images."""

    names = (quantities.FRECHET.name,)

    def measure(self, subject: Subject) -> dict[str, Measured]:
        """`frechet_distance`."""
        samples = subject.judge.features(subject.pixels)
        real = torch.cat([subject.judge.features(part) for part in subject.retained.chunks()])
        return _by_name(quantities.FRECHET.of(frechet_distance(samples, real), n=len(samples)))


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """Negative log-likelihoods of test images of both sets, in bits/dim.

    One whose step-doubling check fails has no value; the check itself is measured, too.

    Args:
        images: of each set, the first ones; 0 for none.
        steps: Runge-Kutta steps.
        check: how many images are measured again with twice the steps.
        seed: of probes and dequantisation.
    """

    images: int
    steps: int
    check: int
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """None without images."""
        wanted = [*quantities.NLL.values(), *quantities.DOUBLING.values()] if self.images else []
        return tuple(each.name for each in wanted)

    def measure(self, subject: Drawn) -> dict[str, Measured]:
        """Means with their standard errors over the images."""
        found: list[Measured] = []
        model = subject.sampler.model
        for key, part in (("retain", subject.retained), ("forget", subject.forgotten)) if self.images else ():
            images = part.rows(slice(self.images)).to(model.device)
            with bar(f"{subject.name}: likelihood of {key} images", len(images), show=subject.progress) as tick:
                result = log_likelihood(model, images, steps=self.steps, check=self.check, seed=self.seed, tick=tick)
            if result.reliable:
                mean, error = result.mean()
                found.append(quantities.NLL[key].of(mean, stderr=error, n=len(images)))
            else:
                found.append(quantities.NLL[key].missing(f"likelihood of {key} images fails its check"))
            found.append(_finite(quantities.DOUBLING[key], float(result.doubling.mean())))
        named = _by_name(*found)
        return {name: named[name] for name in self.names}


@dataclass(frozen=True, kw_only=True)
class GivenBack:
    """Shares of test images of both sets that come back as their class from noise (`renoise.given_back`).

    Args:
        images: of each set, the first ones; 0 for none.
        seed: of the noise.
    """

    images: int
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Those of each level, forgotten images first; none without images."""
        return tuple(each.name for each in quantities.BACK.values()) if self.images else ()

    def measure(self, subject: Subject) -> dict[str, Measured]:
        """Wilson's intervals; what the judge calls junk does not come back."""
        found: list[Measured] = []
        for key, part in (("forget", subject.forgotten), ("retain", subject.retained)) if self.images else ():
            rows = part.select(slice(self.images))
            images, labels = subject.sampler.model.space.to_model(rows.rows()), subject.judge.labels(rows)
            total = len(images) * len(quantities.LEVELS)
            with bar(f"{subject.name}: {key} images from noise", total, show=subject.progress) as tick:
                back = given_back(subject.sampler.model, images, labels, subject.judge, seed=self.seed, tick=tick)
            for level, rate in back.items():
                found.append(quantities.BACK[key, level].share(round(rate.value * rate.n), rate.n))
        return _by_name(*found)


def _finite(quantity: Quantity, value: float) -> Measured:
    return quantity.of(value) if math.isfinite(value) else quantity.missing("it is no number")


def _by_name(*found: Measured) -> dict[str, Measured]:
    return {each.name: each for each in found}
