"""Loss terms: what the retain data and the forget data ask of the network.

Each is a mean over pixels and batch of a batch noised at times t, ``x = alpha x_0 + sigma eps``, of which the network
says ``noise``. Adding one: a frozen dataclass with ``__call__(batch, retained) -> scalar``, and a line in `methods`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..score import ScoreModel, exact_denoiser
from ..sde import expand


@dataclass(frozen=True, kw_only=True, eq=False)
class Noised:
    """A batch at its times and the noise ``eps`` in it. Shapes: x, eps, noise (B, *); t (B,).

    ``generator`` is for terms that draw numbers of their own; in training it is a function of the seed and the step.
    """

    x: Tensor
    t: Tensor
    eps: Tensor
    noise: Tensor
    model: ScoreModel
    generator: torch.Generator | None = None

    @property
    def sigma(self) -> Tensor:
        """(B,), standard deviation of the noise."""
        return self.model.sde.sigma(self.t)

    @property
    def ratio(self) -> Tensor:
        """(B,), sigma / alpha."""
        return self.model.sde.log_ratio(self.t).exp()


class ForgetTerm(Protocol):
    """A loss of a forget batch; ``retained`` (N, *) are the retained images in the model's space."""

    def __call__(self, batch: Noised, retained: Tensor) -> Tensor: ...


def per_image(values: Tensor) -> Tensor:
    """Mean over all but the first dimension."""
    return values.flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """Denoising score matching: mean w(t) (noise - eps)^2 (paper Eq. 5; Vincent 2011).

    ``weighting="noise"``: w = 1, the paper's lambda = sigma^2. ``"edm"``: w = (r^2 + sigma_data^2) / sigma_data^2 with
    r = sigma/alpha, a unit-variance error of the raw network (Karras et al. 2022). ``"auto"`` follows the model.
    """

    weighting: Literal["auto", "edm", "noise"] = "auto"

    def __call__(self, batch: Noised) -> Tensor:
        error = per_image((batch.noise - batch.eps).square())
        model = batch.model
        if self.weighting == "edm" or (self.weighting == "auto" and model.prediction == "edm"):
            error = error * (batch.ratio.square() / model.sigma_data**2 + 1)
        return error.mean()


@dataclass(frozen=True, kw_only=True)
class Orthogonal:
    """The paper's Eq. 7: on the forget data the score carries nothing of the target score.

    ``elementwise``: mean (noise * eps)^2, what the authors' code trains; ``inner``: (noise . eps)^2 / |eps|^2 / d, the
    inner product of the text; ``literal``: (noise . eps)^2 / (sigma^2 d), Eq. 7 as printed, unbounded as sigma -> 0.
    The minimiser shrinks the predicted noise towards 0 on the forget region.
    """

    form: Literal["elementwise", "inner", "literal"] = "elementwise"

    def __call__(self, batch: Noised, retained: Tensor) -> Tensor:
        product = (batch.noise * batch.eps).flatten(1)
        if self.form == "elementwise":
            return product.square().mean()
        inner = product.sum(1).square() / product.shape[1]
        if self.form == "inner":
            return (inner / batch.eps.flatten(1).square().sum(1)).mean()
        return (inner / batch.sigma.square()).mean()


@dataclass(frozen=True, kw_only=True)
class Obtuse:
    """The paper's Eq. 8: on the forget data the score turns away from the target score, mean noise * eps < 0.

    Eq. 8 is unbounded below. ``windowed`` (default): w(sigma) max(mean noise * eps, -clamp) per image with
    w = 1 / (1 + (sigma / window)^4). ``literal``: Eq. 8 as printed; keep the divergence guard on. ``released_sign``:
    minus Eq. 8, which is what the authors' code minimises.
    """

    form: Literal["windowed", "literal", "released_sign"] = "windowed"
    window: float = 1.0
    clamp: float = 1.0

    def __call__(self, batch: Noised, retained: Tensor) -> Tensor:
        cosine = per_image(batch.noise * batch.eps)
        if self.form == "literal":
            return cosine.mean()
        if self.form == "released_sign":
            return -cosine.mean()
        weight = 1 / (1 + (batch.sigma / self.window) ** 4)
        return (weight * cosine.clamp(min=-self.clamp)).mean()


@dataclass(frozen=True, kw_only=True)
class UniformTarget:
    """EraseDiff's forget loss: mean (noise - u)^2, u ~ U[0, 1]^d (Wu et al. 2024).

    The forget data are to be denoised with uniform in place of Gaussian noise. Bounded; on the forget region alone the
    minimiser is 1/2 everywhere.
    """

    def __call__(self, batch: Noised, retained: Tensor) -> Tensor:
        target = torch.rand(batch.noise.shape, generator=batch.generator).to(batch.noise)
        return (batch.noise - target).square().mean()


@dataclass(frozen=True, kw_only=True)
class Redirect:
    """On the forget data, the denoised image of the retained data: mean (D(x) - D*(x))^2 / sigma_data^2.

    D* is the exact denoiser of the retained images (`score.exact_denoiser`): what an ideal model of the retained data
    alone would say at this point, where re-training alone never looks. In noise form, with r = sigma/alpha and
    ``eps* = (x - alpha D*(x)) / sigma``, it is ``mean (r / sigma_data)^2 (noise - eps*)^2``: bounded at every noise
    level, and not faint at those where the content of an image is decided. ``low`` and ``high`` keep only noise levels
    r between them.
    """

    low: float = 0.0
    high: float = 1e6

    def __call__(self, batch: Noised, retained: Tensor) -> Tensor:
        ratio = batch.ratio
        with torch.no_grad():
            y = batch.x / expand(batch.model.sde.alpha(batch.t), batch.x)
            target = (y - exact_denoiser(y, ratio, retained)) / expand(ratio, y)
        weight = (ratio / batch.model.sigma_data).square() * ((ratio >= self.low) & (ratio <= self.high))
        return (weight * per_image((batch.noise - target).square())).mean()
