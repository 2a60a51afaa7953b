"""A score model: one network, read three ways.

The network's raw output is turned into a noise prediction here and nowhere else; losses, samplers and likelihood
are all written in terms of ``noise(x, t)``, so they hold for every process and every kind of network.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import UserError
from .sde import SDE, expand

Prediction = Literal["edm", "noise", "score", "v", "sample"]

LABEL_PER_NAT = 10.0
"""Time input of an "edm" network per unit of log(sigma/alpha): a few periods of a sinusoidal embedding."""


class ScoreModel(nn.Module):
    """``ScoreModel(network, sde)``: the noise, the score and the denoised image that a network predicts.

    ``network(x, label)`` takes a batch ``(B, *)`` and a time label ``(B,)`` and returns a tensor (or an object
    with one in ``.sample``, as diffusers' networks do). ``prediction`` says what that tensor means:

    =========  ===============================================================================================
    ``noise``  eps (DDPM)
    ``score``  grad log p_t(x) = -eps / sigma
    ``v``      alpha eps - sigma x_0
    ``sample`` x_0
    ``edm``    F of Karras et al. 2022, Eq. 7, in y = x / alpha and s = sigma / alpha (default):
               eps = y s / (s^2 + sigma_data^2) - sigma_data (s^2 + sigma_data^2)^(-1/2) F
    =========  ===============================================================================================

    ``patch`` folds squares of that side into channels before the network and back after it (space-to-depth);
    ``shape`` is the shape of one image. ``record`` tells where the weights come from (`msgm.checkpoint`).
    """

    def __init__(
        self,
        network: nn.Module,
        sde: SDE,
        *,
        shape: tuple[int, ...],
        prediction: Prediction = "edm",
        sigma_data: float = 0.5,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if prediction not in get_args(Prediction):
            raise UserError(f"prediction {prediction!r} is unknown; choose one of {', '.join(get_args(Prediction))}")
        self.network = network
        self.sde = sde
        self.shape = tuple(shape)
        self.prediction: Prediction = prediction
        self.sigma_data = sigma_data
        self.patch = patch
        self.record: dict[str, Any] = {}

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise eps(x_t, t), shape (B, *); t of shape () or (B,)."""
        t = t.to(x).expand(x.shape[0])
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        if self.prediction == "edm":
            y, ratio, data = x / alpha, sigma / alpha, self.sigma_data
            total = ratio.square() + data**2
            raw = self._network(y * total.rsqrt(), LABEL_PER_NAT * self.sde.log_ratio(t))
            return y * ratio / total - data * total.rsqrt() * raw
        raw = self._network(x, self.sde.label(t))
        if self.prediction == "noise":
            return raw
        if self.prediction == "score":
            return -sigma * raw
        if self.prediction == "v":
            return (alpha * raw + sigma * x) / (alpha.square() + sigma.square())
        return (x - alpha * raw) / sigma

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """`noise`, so that wrappers of modules (data parallelism) apply."""
        return self.noise(x, t)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted score grad_x log p_t(x) = -eps(x, t) / sigma(t)."""
        return -self.noise(x, t) / expand(self.sde.sigma(t.to(x)), x)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted clean image E[x_0 | x_t] = (x - sigma eps) / alpha."""
        t = t.to(x)
        return (x - expand(self.sde.sigma(t), x) * self.noise(x, t)) / expand(self.sde.alpha(t), x)

    def _network(self, x: Tensor, label: Tensor) -> Tensor:
        if self.patch > 1:
            x = functional.pixel_unshuffle(x, self.patch)
        out = self.network(x, label)
        out = out if isinstance(out, Tensor) else out.sample
        return functional.pixel_shuffle(out, self.patch) if self.patch > 1 else out

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def exact_denoiser(y: Tensor, ratio: Tensor, images: Tensor, *, neighbours: int = 0, chunk: int = 4096) -> Tensor:
    """The denoiser of a data set that is known exactly: E[x_0 | y] for y = x_0 + ratio * eps, x_0 one of ``images``.

    ``sum_r w_r x_r`` with ``w = softmax_r(-|y - x_r|^2 / (2 ratio^2))`` (Karras et al. 2022, Eq. 57). Shapes: y (B, *),
    ratio (B,) = sigma/alpha, images (N, *); returns (B, *). Images are visited ``chunk`` at a time. ``neighbours`` > 0
    keeps only that many of the largest weights of each y, those of its nearest images.
    """
    if 0 < neighbours < len(images):
        flat, rows, scale = y.flatten(1), images.flatten(1), 1 / (2 * ratio.square())
        logits, nearest = ((2 * flat @ rows.T - rows.square().sum(1)) * scale[:, None]).topk(neighbours, 1)
        return torch.einsum("bk,bkd->bd", logits.softmax(1), rows[nearest]).view_as(y)
    return exact_posterior(y, ratio, images, chunk=chunk)[0]


def exact_posterior(y: Tensor, ratio: Tensor, images: Tensor, *, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """`exact_denoiser` (B, *), and the log mass (B,) that the images have at y.

    That is ``log sum_r exp(-|y - x_r|^2 / (2 ratio^2))`` up to a term that depends on y and ratio alone: the difference
    between two sets of images is the log of their odds given y, an image counting as one.
    """
    flat, scale = y.flatten(1), 1 / (2 * ratio.square())
    best = torch.full_like(ratio, -torch.inf)
    total, mean = torch.zeros_like(ratio), torch.zeros_like(flat)
    for part in images.flatten(1).split(chunk):
        # |y|^2 is common to all images and cancels in the softmax.
        logits = (2 * flat @ part.T - part.square().sum(1)) * scale[:, None]
        peak = torch.maximum(best, logits.amax(1))
        weights, keep = (logits - peak[:, None]).exp(), (best - peak).exp()
        total = total * keep + weights.sum(1)
        mean = mean * keep[:, None] + weights @ part
        best = peak
    return (mean / total[:, None]).view_as(y), best + total.log()
