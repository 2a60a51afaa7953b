"""The variational bound of discrete DDPM: what Ho et al. 2020 and Nichol and Dhariwal 2021 report as a likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError
from ..model.modes import blank, evaluating
from ..model.score import ScoreModel
from ..process.sde import DDPM, expand
from ..processes import here
from ..sampling import Streams, Tick
from .ode import validate
from .result import mean_and_error

Variance = Literal["small", "large"]
"""Of the reverse steps: that of q(x_{k-1} | x_k, x), or beta_k (Ho et al. 2020, Section 3.2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """Upper bounds on -log2 P(image) / d of B uint8 images, in bits/dim; float64 (B,) on the CPU."""

    prior: Tensor
    """KL(q(x_T | x) || N(0, I)); exact."""
    diffusion: Tensor
    """Sum over the steps k = 1 ... T - 1 of KL(q(x_{k-1} | x_k, x) || p(x_{k-1} | x_k)), estimated."""
    decoder: Tensor
    """-log P(image | x_0) of the last step, estimated."""
    stderr: Tensor
    """Standard error of the whole over the repeats; nan when repeats = 1."""
    nfe: int
    """Network evaluations for one draw."""

    @property
    def bits_per_dim(self) -> Tensor:
        """The bound."""
        return self.prior + self.diffusion + self.decoder

    def mean(self) -> tuple[float, float]:
        """Mean of the bound and its standard error over images (nan for one image)."""
        return mean_and_error(self.bits_per_dim)


def variational_bound(
    model: ScoreModel,
    images: Tensor,
    *,
    variance: Variance = "small",
    clip: bool = True,
    steps: int | None = None,
    repeats: int = 2,
    seed: int = 0,
    batch: int = 100,
    tick: Tick | None = None,
) -> Bound:
    """The variational bound of a DDPM model on uint8 images (B, *shape), in bits/dim (Ho et al. 2020, Eq. 5).

    With x the middle of a pixel's bin, ``(pixel + 1/2) scale + shift``, D = E[x | x_k] as the model predicts it,
    held to the pixels' range if ``clip``, and v_k the variance of q(x_{k-1} | x_k, x),

        KL_k = d/2 (v_k / w_k - 1 - log(v_k / w_k)) + c_k^2 |x - D|^2 / (2 w_k),   c_k = alpha_{k-1} beta_k / sigma_k^2

    (their Eq. 7 and 8), where ``variance`` says whether w_k = v_k ("small") or beta_k ("large"). The decoder is
    N(D, v_1) at k = 0, integrated over the bin; the outer bins reach to infinity (their Eq. 13). Both variances of the
    decoder are v_1, as in their code.

    ``steps`` = None takes every k; a number takes that many, one at random in each of as many equal stretches, which
    is unbiased. ``repeats`` averages independent draws of them and of the noise. Image i's randomness is fixed by
    (seed, i), whatever the ``batch``; several processes share these. ``tick`` drives a progress bar of B images. This
    bounds the likelihood of the ancestral sampler; that of the flow is `log_likelihood`.

    Raises `UserError`, before any work, for a model that is not DDPM, images that are not uint8 pixels of its shape,
    and bad settings.
    """
    sde = check_bound(model, images, variance=variance, steps=steps, repeats=repeats, batch=batch)
    count = sde.steps - 1 if steps is None else steps
    table = sde.log_alpha(torch.arange(sde.steps, dtype=torch.float64) / (sde.steps - 1))
    terms = _Terms(model, table, variance, clip)
    unit = math.prod(model.shape) * math.log(2)
    size, share = len(images), 1 / (repeats * (count + 1))
    prior = torch.zeros(size, dtype=torch.float64)
    diffusion, decoder = (torch.zeros(repeats, size, dtype=torch.float64) for _ in range(2))
    with evaluating(model):
        for index in here().batches(range(size), batch):
            rows = slice(index.start, index.stop)
            part = images[rows]
            x = model.space.place(part.to(blank(model, 1)), 0.5)
            prior[rows] = terms.prior(x)
            for repeat in range(repeats):
                streams = Streams((seed, repeat, "bound"), index)
                decoder[repeat, rows] = terms.decoder(x, streams)
                _report(tick, len(part) * share)
                for j in range(count):
                    place = torch.full((len(part),), float(j))
                    if steps is not None:
                        place += streams.uniform(place[:, None]).flatten()
                    k = 1 + (place.double() * (sde.steps - 1) / count).long()
                    diffusion[repeat, rows] += terms.step(x, k, streams) * (sde.steps - 1) / count
                    _report(tick, len(part) * share)
    for found in (prior, diffusion, decoder):
        here().summed(found)
    whole = (diffusion + decoder) / unit
    return Bound(
        prior=prior / unit,
        diffusion=diffusion.mean(0) / unit,
        decoder=decoder.mean(0) / unit,
        stderr=whole.std(0) / math.sqrt(repeats) if repeats > 1 else torch.full_like(prior, torch.nan),
        nfe=count + 1,
    )


def check_bound(
    model: ScoreModel,
    images: Tensor,
    *,
    variance: Variance = "small",
    steps: int | None = None,
    repeats: int = 2,
    batch: int = 100,
) -> DDPM:
    """What `variational_bound` would refuse is refused here; else the model's process."""
    sde = model.sde
    if not isinstance(sde, DDPM):
        raise UserError(f"the variational bound is that of discrete DDPM, this model's process is {type(sde).__name__}")
    validate(model, images)
    if images.is_floating_point():
        raise UserError("the variational bound is that of uint8 pixels, got floats; dequantised points have a density")
    if variance not in get_args(Variance):
        raise UserError(f"variance {variance!r} is unknown; choose one of {', '.join(get_args(Variance))}")
    if (steps is not None and not 1 <= steps < sde.steps) or min(repeats, batch) < 1:
        raise UserError(
            f"steps must be 1 to {sde.steps - 1}, repeats and batch at least 1; got {steps}, {repeats} and {batch}"
        )
    return sde


class _Terms:
    """The terms of the bound in nats, float64 (B,) on the CPU, for images x (B, *) in model space."""

    def __init__(self, model: ScoreModel, log_alphas: Tensor, variance: Variance, clip: bool) -> None:
        self.model, self.clip, self.last = model, clip, len(log_alphas) - 1
        self.alpha, self.sigma2 = log_alphas.exp(), -torch.expm1(2 * log_alphas)
        before = torch.cat([log_alphas.new_zeros(1), log_alphas[:-1]])
        self.beta = -torch.expm1(2 * (log_alphas - before))
        self.before = before.exp()
        # Variance of q(x_{k-1} | x_k, x); at k = 0 it is zero, and the decoder takes that of k = 1.
        self.posterior = self.beta * -torch.expm1(2 * before) / self.sigma2
        self.reverse = self.posterior if variance == "small" else self.beta

    def prior(self, x: Tensor) -> Tensor:
        square, variance = x.double().square().flatten(1).sum(1).cpu(), self.sigma2[-1]
        mean = self.alpha[-1].square() * square
        result: Tensor = 0.5 * (mean + x[0].numel() * (variance - 1 - variance.log()))
        return result

    def step(self, x: Tensor, k: Tensor, streams: Streams) -> Tensor:
        ratio = self.posterior[k] / self.reverse[k]
        gap = (x - self._denoise(x, k, streams)).double().square().flatten(1).sum(1).cpu()
        weight = (self.before[k] * self.beta[k] / self.sigma2[k]).square() / self.reverse[k]
        result: Tensor = 0.5 * (x[0].numel() * (ratio - 1 - ratio.log()) + weight * gap)
        return result

    def decoder(self, x: Tensor, streams: Streams) -> Tensor:
        std, half = self.posterior[1].sqrt(), self.model.space.scale / 2
        bottom, top = self.model.space.range
        away = (x - self._denoise(x, torch.zeros(len(x), dtype=torch.int64), streams)).double().cpu()
        x = x.double().cpu()
        low = torch.where(x < bottom + 2 * half, -torch.inf, (away - half) / std)
        high = torch.where(x > top - 2 * half, torch.inf, (away + half) / std)
        # log(Phi(high) - Phi(low)), on the side of zero where the tails do not cancel.
        low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)
        above, below = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
        result: Tensor = -(above + torch.log(-torch.expm1(below - above))).flatten(1).sum(1)
        return result

    def _denoise(self, x: Tensor, k: Tensor, streams: Streams) -> Tensor:
        """D at x_k = alpha_k x + sigma_k eps."""
        noised = expand(self.alpha[k].to(x), x) * x + expand(self.sigma2[k].sqrt().to(x), x) * streams.normal(x)
        clean = self.model.denoise(noised, (k / self.last).to(x))
        return clean.clamp(*self.model.space.range) if self.clip else clean


def _report(tick: Tick | None, amount: float) -> None:
    if tick is not None:
        tick(amount)
