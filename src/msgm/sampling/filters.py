"""Filters: a model made to avoid something while it is sampled; nothing is trained.

A filter is a score model around another: it moves the denoised image, ``D'(x_t) = D(x_t) + what it adds``, and is
read the same three ways, so that samplers, inpainting and the likelihood take it as they take any model. It
moves the score by ``alpha / sigma^2`` times as much, by Tweedie's formula. Adding one: a subclass of `Filter` that
gives `denoise`, and a line in `FILTERS`. A filter may be put around a filter; its weights are the model's, unchanged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import UserError
from ..model.modes import blank
from ..model.score import ScoreModel
from ..process.posterior import exact_posterior
from ..process.sde import expand


class Filter(ScoreModel, ABC):
    """A score model whose `denoise` a subclass gives, in terms of that of ``network``, the model it is put around.

    Noise and score follow from the denoised image: ``eps = (x - alpha D') / sigma``. It has no weights of its own to be
    saved: save the model.

    Args:
        strength: how much of it, above 0.
    """

    network: ScoreModel

    needs: ClassVar[tuple[str, ...]]
    """What it is made from beside the model: what a rule selects (forget), a judge (guide), a model (against)."""

    def __init__(self, model: ScoreModel, strength: float) -> None:
        super().__init__(model, model.sde, shape=model.shape, precondition=model.precondition, space=model.space)
        if not strength > 0:
            raise UserError(f"a filter's strength must be positive, got {strength}")
        self.strength = strength
        self.record, self.origin = model.record, model.origin

    @abstractmethod
    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoised image D'(x_t), shape (B, *); t of shape () or (B,)."""

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.to(x)
        return (x - expand(self.sde.alpha(t), x) * self.denoise(x, t)) / expand(self.sde.sigma(t), x)


class Repel(Filter):
    """Keeps the denoised image at a distance from each forget image (repellency, SPELL; Kirchhof et al. 2024).

    ``D' = D + strength sum_k relu(radius / |D - z_k| - 1) (D - z_k)``, z_k the forget images.

    An image inside of one ball is put on its surface by ``strength = 1``, and ``strength - 1`` times as far beyond it
    by more; outside of all of them nothing is changed. ``images`` (N, *shape) in model space. Too large a radius takes
    in the undecided mean of all images, where every path begins: the pushes of all forget images then add up to junk.

    Args:
        radius: a distance in model space; by default that within which three in four forget images have another.
    """

    needs = ("forget",)
    images: Tensor

    def __init__(
        self, model: ScoreModel, images: Tensor, *, radius: float | None = None, strength: float = 1.6
    ) -> None:
        super().__init__(model, strength)
        self.register_buffer("images", _checked(model, images))
        self.radius = neighbour_distance(self.images) if radius is None else radius
        if not self.radius > 0:
            raise UserError(f"repel: radius must be positive, got {self.radius}")

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        clean = self.network.denoise(x, t)
        flat, push = clean.flatten(1), torch.zeros_like(clean).flatten(1)
        for part in self.images.flatten(1).split(CHUNK):
            # The distance 0 has no direction: the push goes to 0 there, and must not be 0 * inf.
            away = (self.radius / torch.cdist(flat, part).clamp(min=1e-3) - 1).relu()
            push = push + away.sum(1, keepdim=True) * flat - away @ part
        return clean + self.strength * push.view_as(clean)


class SafeDenoiser(Filter):
    """Takes the forget images' part out of the expected image (safe denoiser; Kim et al. 2025).

    ``D' = D + strength min(w / (1 - w), cap) (D - E_f)``,

    E_f = E[x_0 | x_t] if x_0 is one of the forget images (`posterior.exact_denoiser`) and ``w = P(x_0 is to be
    forgotten | x_t)`` under the data at hand, ``w / (1 - w) = sum_forget k(x_i) / sum_retain k(x_i)`` with the kernel
    ``k(x_i) = exp(-|x_t / alpha - x_i|^2 / (2 r^2))``, r = sigma / alpha. For ``strength = 1``, without a cap, and D
    the exact denoiser of all these images it is exactly that of the retained ones (law of total expectation). Only at
    noise levels r of at least ``low``: below, the kernels see nothing but the nearest image.
    ``forget`` (N, *shape) and ``retained`` (M, *shape) in model space.

    Args:
        cap: largest w / (1 - w).
        low: lowest noise level sigma/alpha at which it acts.
    """

    needs = ("forget",)
    forget: Tensor
    retained: Tensor

    def __init__(
        self,
        model: ScoreModel,
        forget: Tensor,
        retained: Tensor,
        *,
        strength: float = 3.0,
        cap: float = 1.0,
        low: float = 1.0,
    ) -> None:
        super().__init__(model, strength)
        self.register_buffer("forget", _checked(model, forget))
        self.register_buffer("retained", _checked(model, retained))
        if not (cap > 0 and low >= 0):
            raise UserError(f"safe: cap must be positive and low not negative, got {cap} and {low}")
        self.cap, self.low = cap, low

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        clean = self.network.denoise(x, t)
        t = t.to(x).expand(len(x))
        ratio = self.sde.log_ratio(t).exp()
        y = x / expand(self.sde.alpha(t), x)
        forgotten, mass = exact_posterior(y, ratio, self.forget)
        # Capped before exp, which may overflow.
        log_odds = (mass - exact_posterior(y, ratio, self.retained)[1]).clamp(max=math.log(self.cap))
        weight = torch.where(ratio >= self.low, self.strength * log_odds.exp(), 0)
        return clean + expand(weight, x) * (clean - forgotten)


class Guided(Filter):
    """Follows a judge's gradient towards what is retained (classifier guidance; Dhariwal and Nichol 2021).

    ``score' = score + strength grad_x log P(retain | x_t)``, hence
    ``D' = D + strength (sigma^2 / alpha) grad_x log P(retain | x_0 = D(x_t))``: ``log_retain`` takes clean images
    (B, *), returns (B,), and is asked about the denoised image (Chung et al. 2023). The gradient is taken through the
    network, which keeps it among images that the model knows: a step costs a forward and a backward pass.
    `Judge.log_retain` makes such a function; a judge that guides should not be the one that judges.
    """

    needs = ("forget", "guide")

    def __init__(self, model: ScoreModel, log_retain: Callable[[Tensor], Tensor], *, strength: float = 4.0) -> None:
        super().__init__(model, strength)
        self.log_retain = log_retain

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        t, outside = t.to(x), torch.is_grad_enabled()
        # Attention's fast kernels have no second derivative, which a gradient of this gradient needs.
        kernels = sdpa_kernel(SDPBackend.MATH) if outside else nullcontext()
        with torch.enable_grad(), kernels:
            x = x if x.requires_grad else x.detach().requires_grad_()
            clean = self.network.denoise(x, t)
            (gradient,) = torch.autograd.grad(self.log_retain(clean).sum(), x, create_graph=outside)
        clean = clean if outside else clean.detach()
        return clean + self.strength * expand(self.sde.sigma(t).square() / self.sde.alpha(t), x.detach()) * gradient


class Contrast(Filter):
    """Moves away from a model of all the data: ``s' = s + strength (s - s_data)``.

    s is the score of ``model``, s_data that of ``data``. With exact scores of p_g and p_data it is the score of
    ``p_g^(1 + strength) / p_data^strength`` at each t: what sets the model apart from the data is exaggerated. The same
    in denoised images: ``D' = D + strength (D - D_data)``.
    """

    needs = ("against",)

    def __init__(self, model: ScoreModel, data: ScoreModel, *, strength: float = 1.0) -> None:
        super().__init__(model, strength)
        if (data.sde, data.shape) != (model.sde, model.shape):
            raise UserError(
                f"contrast: both models must have one process and shape of image; got {model.sde} {model.shape} and "
                f"{data.sde} {data.shape}"
            )
        self.data = data

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        clean = self.network.denoise(x, t)
        return clean + self.strength * (clean - self.data.denoise(x, t))


FILTERS: dict[str, type[Filter]] = {"repel": Repel, "safe": SafeDenoiser, "guided": Guided, "contrast": Contrast}
CHUNK = 4096


def neighbour_distance(images: Tensor) -> float:
    """The distance within which three in four of the images (N, *) have another."""
    flat = images.flatten(1)
    nearest = [
        torch.cdist(part, flat).topk(min(2, len(flat)), largest=False).values[:, -1] for part in flat.split(CHUNK)
    ]
    return float(torch.cat(nearest).quantile(0.75))


def _checked(model: ScoreModel, images: Tensor) -> Tensor:
    """The images in the model's precision and place."""
    if not images.is_floating_point() or tuple(images.shape[1:]) != model.shape or len(images) == 0:
        raise UserError(
            f"a filter takes floating-point images (N, {', '.join(map(str, model.shape))}) in model space, got "
            f"{images.dtype} {tuple(images.shape)}; convert pixels with model.space"
        )
    return images.to(blank(model, 1))
