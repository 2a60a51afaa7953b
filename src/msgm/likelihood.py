"""Log-likelihood by the probability-flow ODE, with its error: probe noise and step doubling.

In y = x / alpha, r = sigma / alpha and u = log r the flow and the log-density along it are

    dy/du = r eps(alpha y, t),        d log p(y)/du = -r tr(d eps(alpha y, t) / dy)

(Song et al. 2021, Eq. 39, for every process at once). Both are integrated from t_min to t = 1 by the
classical Runge-Kutta method on a fixed grid uniform in u, so an image's value cannot depend on the images
beside it. The trace is estimated with a fresh Rademacher probe at every evaluation: unbiased, and far less
noisy than one probe kept for the whole path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .errors import UserError
from .sampling import Streams, Tick, blank, evaluating
from .score import ScoreModel

Probes = Literal["rademacher", "exact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Likelihood:
    """Log-likelihoods of B images, and how far to trust them. All tensors are float64 on the CPU."""

    nats: Tensor
    """log p of each image in model space, (B,)."""
    bits_per_dim: Tensor | None
    """-nats / (d ln 2) + 7 of each uint8 image, (B,); None for float input, which is not dequantised."""
    stderr: Tensor
    """Standard error of each headline value over the repeats, (B,); nan when repeats = 1."""
    doubling: Tensor
    """Headline value with twice the steps minus that with ``steps``, for each checked image (the first)."""
    nfe: int
    """Network evaluations for one draw of a reported value."""
    dims: int
    """Numbers in one image, d."""

    @property
    def values(self) -> Tensor:
        """The headline values, (B,): bits/dim of uint8 images, nats otherwise."""
        return self.nats if self.bits_per_dim is None else self.bits_per_dim

    def mean(self) -> tuple[float, float]:
        """Mean of the headline values and its standard error over images (nan for one image)."""
        return _mean(self.values)

    @property
    def reliable(self) -> bool:
        """Whether step doubling vouches for the mean.

        True when values are finite, something was checked, and the mean change on doubling the steps plus
        two of its standard errors is within 0.05 bits/dim (for nats, that times d ln 2) or 1 % of the mean,
        whichever is larger. A diverged network or too coarse a grid fails; so does a check too noisy to
        tell: check more images.
        """
        if len(self.doubling) == 0 or not bool(self.values.isfinite().all() & self.doubling.isfinite().all()):
            return False
        unit = self.dims * math.log(2) if self.bits_per_dim is None else 1.0
        change, error = _mean(self.doubling)
        error = 0.0 if math.isnan(error) else error
        return abs(change) + 2 * error <= max(0.05 * unit, 0.01 * abs(self.mean()[0]))


def log_likelihood(
    model: ScoreModel,
    images: Tensor,
    *,
    steps: int = 12,
    repeats: int = 1,
    seed: int = 0,
    probes: Probes = "rademacher",
    check: bool | int = True,
    batch: int = 100,
    tick: Tick | None = None,
) -> Likelihood:
    """The log-density of images under the probability-flow ODE of a model.

    ``images``: uint8 (B, *shape), uniformly dequantised to ``x = (pixels + u) / 128 - 1``, reported in
    bits/dim as ``-log p(x) / (d ln 2) + 7``; or floats (B, *shape) in model space, reported in nats. They
    are read at time t_min, without added noise; x_1 is taken to follow N(0, prior_std^2).

    ``steps`` of Runge-Kutta cost 4 evaluations each. ``check=True`` runs every image with ``2 * steps`` as
    well, from the same dequantised points; ``check=k`` only the first k images; False none. Reported values
    come from the finest grid that all images were run on: ``2 * steps`` under a full check, else ``steps``.
    ``repeats`` averages independent draws of dequantisation and probes. ``probes="exact"`` takes d backward
    passes instead of one, for small d. Image i's randomness is fixed by (seed, i), whatever the ``batch``.
    ``tick`` drives a progress bar of B images.

    Raises `UserError`, before any work, for images that are not of the model's shape and for bad settings.
    """
    if probes not in get_args(Probes):
        raise UserError(f"probes {probes!r} are unknown; choose one of {', '.join(get_args(Probes))}")
    _validate(model, images, steps, repeats, batch)
    checked = len(images) if check is True else max(0, min(check, len(images)))
    dims, quantised = math.prod(model.shape), not images.is_floating_point()
    coarse = torch.empty(repeats, len(images), dtype=torch.float64)
    fine = torch.empty(repeats, checked, dtype=torch.float64)
    with evaluating(model):
        for first in range(0, len(images), batch):
            part = images[first : first + batch]
            index = range(first, first + len(part))
            both = max(0, min(checked - first, len(part)))
            share = 1 / (repeats * (len(part) + 2 * both) * steps)
            for repeat in range(repeats):
                x = part.to(blank(model, 1))
                if quantised:
                    x = (x + Streams((seed, repeat, "dequantise"), index).uniform(x)) / 128 - 1
                for grid, count, out in ((steps, len(part), coarse), (2 * steps, both, fine)):
                    if count == 0:
                        continue
                    streams = Streams((seed, repeat, grid), index[:count]) if probes == "rademacher" else None
                    work = len(part) * share * count
                    done = _integrate(model, x[:count], grid, streams, None if tick is None else _amount(tick, work))
                    out[repeat, first : first + count] = done

    def headline(nats: Tensor) -> Tensor:
        return 7 - nats / (dims * math.log(2)) if quantised else nats

    reported, grid = (fine, 2 * steps) if checked == len(images) else (coarse, steps)
    nats, values = reported.mean(0), headline(reported)
    return Likelihood(
        nats=nats,
        bits_per_dim=values.mean(0) if quantised else None,
        stderr=values.std(0) / math.sqrt(repeats) if repeats > 1 else torch.full_like(nats, torch.nan),
        doubling=(headline(fine) - headline(coarse[:, :checked])).mean(0),
        nfe=4 * grid,
        dims=dims,
    )


def _integrate(
    model: ScoreModel, x: Tensor, steps: int, streams: Streams | None, tick: Callable[[], None] | None
) -> Tensor:
    """log p(x) at t_min in nats, float64 (B,) on the CPU; exact divergence when ``streams`` is None."""
    sde, dims = model.sde, x[0].numel()
    low, high = sde.log_ratio(torch.tensor([sde.t_min, 1.0], dtype=torch.float64))
    width = float(high - low) / steps
    first, last = sde.log_alpha(torch.tensor([sde.t_min, 1.0], dtype=torch.float64)).tolist()

    def flow(u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        t = sde.time(u).clamp(sde.t_min, 1)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = u.exp() * model.noise(sde.alpha(t) * y, t)
            return slope.detach(), _divergence(slope, y, streams)

    y = x / math.exp(first)
    change = torch.zeros(len(x), dtype=torch.float64)
    for i in range(steps):
        u = low + i * width
        k1, d1 = flow(u, y)
        k2, d2 = flow(u + width / 2, y + width / 2 * k1)
        k3, d3 = flow(u + width / 2, y + width / 2 * k2)
        k4, d4 = flow(u + width, y + width * k3)
        y = y + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        change += width / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        if tick is not None:
            tick()
    end = math.exp(last) * y.cpu().double().flatten(1)
    prior = -0.5 * (end / sde.prior_std).square().sum(1) - dims * math.log(math.sqrt(2 * math.pi) * sde.prior_std)
    nats: Tensor = prior + dims * (last - first) + change
    return nats


def _divergence(value: Tensor, y: Tensor, streams: Streams | None) -> Tensor:
    """tr(d value / d y) of each image, float64 (B,): by one random probe, or exactly in d backward passes."""
    if streams is not None:
        probe = streams.rademacher(y)
        (grad,) = torch.autograd.grad(value, y, probe)
        estimate: Tensor = (grad * probe).flatten(1).cpu().double().sum(1)
        return estimate
    flat = value.flatten(1)
    total = torch.zeros(len(y), dtype=torch.float64)
    for j in range(flat.shape[1]):
        (grad,) = torch.autograd.grad(flat[:, j].sum(), y, retain_graph=True)
        total += grad.flatten(1)[:, j].cpu()
    return total


def _validate(model: ScoreModel, images: Tensor, steps: int, repeats: int, batch: int) -> None:
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"images must be uint8 pixels or floats in model space, got {images.dtype}; convert them")
    if tuple(images.shape[1:]) != model.shape or len(images) == 0:
        wanted, given = "x".join(map(str, model.shape)), "x".join(map(str, images.shape[1:])) or "none"
        raise UserError(
            f"the model takes images of {wanted} (channels first), got {len(images)} of {given}; "
            "resize them or change their channels to match"
        )
    if min(steps, repeats, batch) < 1:
        raise UserError(f"steps, repeats and batch must be at least 1, got {steps}, {repeats} and {batch}")


def _mean(values: Tensor) -> tuple[float, float]:
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean().item(), error


def _amount(tick: Tick, amount: float) -> Callable[[], None]:
    return lambda: tick(amount)
