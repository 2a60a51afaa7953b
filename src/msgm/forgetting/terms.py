"""Loss terms: what the retain data and the forget data ask of the network.

A term sees a batch noised at times t, ``x = alpha x_0 + sigma eps``, of which the network says ``predicted``, and gives
a number for each image; the loss is their mean over pixels and batch. Adding one: a frozen dataclass with
``each(batch) -> (B,)``, and a recipe in `methods` (docs/add-a-method.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..model.precondition import EDM
from ..process.posterior import exact_denoiser
from ..process.sde import expand
from .batch import Noised, Start


def per_image(values: Tensor) -> Tensor:
    """Mean over all but the first dimension."""
    return values.flatten(1).mean(1)


Weighting = Literal["image", "noise"]
HELD = 2**24
"""Numbers of a subset of the retained images that are in memory at a time."""


def aimed(batch: Noised, target: Tensor, weighting: Weighting) -> Tensor:
    """The mean squared error of the noise against a target, (B,).

    ``image`` counts it as one of the clean image, in units of the data: times (r / sigma_data)^2, r = sigma/alpha.
    Bounded at every noise level, it is not faint at those where the content of an image is decided.
    """
    error = per_image((batch.predicted - target).square())
    return error if weighting == "noise" else (batch.ratio / batch.model.sigma_data).square() * error


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Denoising score matching: mean w(t) (predicted - eps)^2 (paper Eq. 5; Vincent 2011).

    ``weighting="noise"``: w = 1, the paper's lambda = sigma^2. ``"edm"``: w = (r^2 + sigma_data^2) / sigma_data^2 with
    r = sigma/alpha, a unit-variance error of the raw network (Karras et al. 2022). ``"auto"`` follows the model.

    Args:
        weighting: what an error counts at each noise level.
    """

    weighting: Literal["auto", "edm", "noise"] = "auto"

    def __call__(self, batch: Noised) -> Tensor:
        error = self.level(batch) * self.each(batch)
        return (error if batch.weight is None else batch.weight * error).mean()

    def each(self, batch: Noised) -> Tensor:
        """(B,), the mean squared error of the noise."""
        return per_image((batch.predicted - batch.eps).square())

    def level(self, batch: Noised) -> Tensor:
        """w(t), (B,)."""
        model = batch.model
        if self.weighting == "edm" or (self.weighting == "auto" and isinstance(model.precondition, EDM)):
            return batch.ratio.square() / model.sigma_data**2 + 1
        return torch.ones_like(batch.ratio)


@dataclass(frozen=True, kw_only=True)
class ForgetTerm(ABC):
    """A loss of a forget batch: the mean of ``weight(r) each(batch)`` over its images, r = sigma/alpha.

    Every term has the same three windows over noise levels: ``low`` and ``high`` drop what is outside them,
    ``window`` fades smoothly as 1 / (1 + (r / window)^4).

    Args:
        low: lowest noise level sigma/alpha that counts.
        high: highest noise level that counts.
        window: noise level beyond which the loss fades; by default it does not.
    """

    low: float = 0.0
    high: float = 1e6
    window: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise UserError(f"low and high bound the noise levels, 0 <= low < high; got {self.low} and {self.high}")
        if self.window is not None and not self.window > 0:
            raise UserError(f"window is a noise level, above 0; got {self.window}")

    @property
    def pairs(self) -> bool:
        """Whether retained and forget images must share their eps (`Noised.pair`)."""
        return False

    @property
    def recalls(self) -> bool:
        """Whether it must have the retained images before it, at every step (`Noised.retained`)."""
        return False

    @property
    def needs(self) -> str:
        """What `prepare` makes of the trained model."""
        return ""

    @property
    def bounded(self) -> bool:
        """Whether the loss is bounded below."""
        return True

    @property
    def found(self) -> dict[str, Any]:
        """What `prepare` measured on the way, for the record."""
        return {}

    def prepare(self, start: Start) -> ForgetTerm:
        """The term with what it works out before the first step."""
        return self

    def certain(self, batch: Noised) -> Tensor | None:
        """How sure it is that a point is one of the forget data, P(forget | x_t), (B,); None where it cannot tell."""
        return None

    @abstractmethod
    def each(self, batch: Noised) -> Tensor:
        """The loss of each image, (B,)."""

    def weight(self, ratio: Tensor) -> Tensor:
        """What a noise level r counts, in [0, 1]."""
        inside = ((ratio >= self.low) & (ratio <= self.high)).to(ratio)
        return inside if self.window is None else inside / (1 + (ratio / self.window) ** 4)

    def __call__(self, batch: Noised) -> Tensor:
        return (self.weight(batch.ratio) * self.each(batch)).mean()


@dataclass(frozen=True, kw_only=True)
class Orthogonal(ForgetTerm):
    """The paper's Eq. 7: on the forget data the score carries nothing of the target score.

    ``elementwise``: mean (predicted * eps)^2, what the authors' code trains; ``inner``:
    (predicted . eps)^2 / |eps|^2 / d, the inner product of the text; ``literal``: (predicted . eps)^2 / (sigma^2 d),
    Eq. 7 as printed, unbounded as sigma -> 0. The minimiser shrinks the predicted noise towards 0 on the forget region.

    Args:
        form: which reading of Eq. 7.
    """

    form: Literal["elementwise", "inner", "literal"] = "elementwise"

    def each(self, batch: Noised) -> Tensor:
        product = (batch.predicted * batch.eps).flatten(1)
        if self.form == "elementwise":
            return product.square().mean(1)
        inner = product.sum(1).square() / product.shape[1]
        if self.form == "inner":
            return inner / batch.eps.flatten(1).square().sum(1)
        return inner / batch.sigma.square()


@dataclass(frozen=True, kw_only=True)
class Obtuse(ForgetTerm):
    """The paper's Eq. 8: on the forget data the score turns from the target score, mean predicted * eps < 0.

    Eq. 8 is unbounded below. ``windowed`` (default): max(mean predicted * eps, -clamp) per image, in the smooth
    window. ``literal``: Eq. 8 as printed, without it; keep the divergence guard on. ``released_sign``: minus Eq. 8,
    which is what the authors' code minimises.

    Args:
        form: which reading of Eq. 8.
        clamp: how far an image may turn away.
    """

    form: Literal["windowed", "literal", "released_sign"] = "windowed"
    window: float | None = 1.0
    clamp: float = 1.0

    @property
    def bounded(self) -> bool:
        return self.form == "windowed"

    def each(self, batch: Noised) -> Tensor:
        cosine = per_image(batch.predicted * batch.eps)
        if self.form == "windowed":
            return cosine.clamp(min=-self.clamp)
        return cosine if self.form == "literal" else -cosine

    def weight(self, ratio: Tensor) -> Tensor:
        return super().weight(ratio) if self.form == "windowed" else torch.ones_like(ratio)


@dataclass(frozen=True, kw_only=True)
class Ascent(ForgetTerm):
    """Gradient ascent on denoising: minus l = mean (predicted - eps)^2 on forget data (NegGrad; Golatkar et al. 2020).

    ``literal`` is unbounded below; ``bounded`` stops where the error of an image reaches ``clamp`` (predicting nothing
    has an error of 1). ``adaptive`` > 0 weighs each image by l^-adaptive, held fixed, so that what is already wrong
    pulls less; ``fade`` lets the strength fall from 1 to 0 along a half cosine over the run (both: SFR-on, Huang et al.
    2024).

    Args:
        form: without a bound, or with one.
        clamp: error of an image at which the bounded form stops.
        strength: factor of the loss.
        adaptive: power of the error by which an image counts less; 0 for none.
        fade: let the strength fall to 0 over the run.
    """

    form: Literal["literal", "bounded"] = "literal"
    clamp: float = 1.0
    strength: float = 1.0
    adaptive: float = 0.0
    fade: bool = False

    @property
    def bounded(self) -> bool:
        return self.form == "bounded"

    def each(self, batch: Noised) -> Tensor:
        error = per_image((batch.predicted - batch.eps).square())
        scale = error.detach().clamp(min=1e-8) ** -self.adaptive * self.strength
        if self.fade:
            scale = scale * (0.5 + 0.5 * math.cos(math.pi * batch.progress))
        return -scale * (error.clamp(max=self.clamp) if self.form == "bounded" else error)


@dataclass(frozen=True, kw_only=True)
class UniformTarget(ForgetTerm):
    """EraseDiff's forget loss: mean (predicted - u)^2, u ~ U[0, 1]^d (Wu et al. 2024).

    The forget data are to be denoised with uniform in place of Gaussian noise. Bounded; on the forget region alone the
    minimiser is 1/2 everywhere.
    """

    def each(self, batch: Noised) -> Tensor:
        return per_image((batch.predicted - batch.uniform()).square())


@dataclass(frozen=True, kw_only=True)
class Negated(ForgetTerm):
    """A bounded cousin of Obtuse: mean (predicted + eps)^2, the target score's sign turned, in the smooth window.

    With k = w (1 - alpha) p_f / (alpha p_g) the minimiser is (m_g - k m_f) / (1 + k).
    """

    window: float | None = 1.0

    def each(self, batch: Noised) -> Tensor:
        return per_image((batch.predicted + batch.eps).square())


@dataclass(frozen=True, kw_only=True)
class Redirect(ForgetTerm):
    """On the forget data, the denoised image of the retained data: mean (D(x) - D*(x))^2 / sigma_data^2.

    D* is the exact denoiser of the retained images (`posterior.exact_denoiser`): what an ideal model of the retained
    data alone would say at this point, where re-training alone never looks. In noise form, with r = sigma/alpha and
    ``eps* = (x - alpha D*(x)) / sigma``, it is ``mean (r / sigma_data)^2 (predicted - eps*)^2``: bounded at every noise
    level, and not faint at those where the content of an image is decided. ``weighting="noise"`` leaves the factor
    out.

    ``subset`` > 0 takes that many retained images, drawn anew for every step, in place of all; ``neighbours`` > 0 only
    that many neighbours: those with the largest weights in D*, the nearest to the point y = x / alpha, or with
    ``near="image"`` the nearest to the forget image before it was noised (ReTrack, Shi et al. 2025). ``denoiser(y, r)``
    replaces D* by one that is known.

    ``contrast`` c > 0 aims beyond eps*, away from the forget data: at ``eps* + c (eps* - eps)``, whose mean is
    ``eps* + c (eps* - E_f[eps | x])``. The loss stays bounded.

    Args:
        weighting: an error of the clean image, or of the noise.
        contrast: how far beyond eps* to aim, away from the forget data.
        subset: retained images drawn for a step; 0 for all.
        neighbours: nearest retained images that count; 0 for all.
        near: nearest to the noised point, or to the forget image before it was noised.
    """

    low: float = 0.3
    weighting: Weighting = "image"
    contrast: float = 0.7
    subset: int = 0
    neighbours: int = 0
    near: Literal["point", "image"] = "point"
    denoiser: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def recalls(self) -> bool:
        return self.denoiser is None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subset < 0 or self.neighbours < 0:
            raise UserError(f"subset and neighbours count images, 0 for all; got {self.subset} and {self.neighbours}")
        if not 0 <= self.contrast < math.inf:
            raise UserError(f"contrast must be 0 or more, and finite; got {self.contrast}")

    def each(self, batch: Noised) -> Tensor:
        ratio = batch.ratio
        with torch.no_grad():
            y = batch.x / expand(batch.model.sde.alpha(batch.t), batch.x)
            target = (y - self.denoised(batch, y)) / expand(ratio, y)
            target = target + self.contrast * (target - batch.eps)
        return aimed(batch, target, self.weighting)

    def denoised(self, batch: Noised, y: Tensor) -> Tensor:
        """D*(y), (B, *)."""
        ratio = batch.ratio
        if self.denoiser is not None:
            return self.denoiser(y, ratio)
        retained = batch.retained
        if retained is None:
            raise UserError("redirect recalls the retained images, and they are not given; use unlearn or train")
        if 0 < self.subset < (count := len(retained.rows)):
            chosen = torch.randperm(count, generator=batch.generator, device=batch.drawn_on)[: self.subset]
            parts = chosen.to(retained.rows.device).split(max(1, HELD // y[0].numel()))
            images: Tensor | Iterator[Tensor] = (retained.rows[part] for part in parts)
        else:
            images = retained.all
        centre = y - expand(ratio, y) * batch.eps if self.near == "image" else None
        return exact_denoiser(y, ratio, images, neighbours=self.neighbours, centre=centre)
