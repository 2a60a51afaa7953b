"""A score model: one network, read three ways.

The network's raw output is turned into a noise prediction here and nowhere else; losses, samplers and likelihood
are all written in terms of ``noise(x, t)``, so they hold for every process and every kind of network.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..process.sde import SDE, expand

Prediction = Literal["edm", "noise", "score", "v", "sample"]
Precision = Literal["fp32", "bf16"]

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
    ``precision`` (not saved) is what the network alone is computed in: times, noise levels and what is made of its
    output keep the type of x.
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
        self.precision: Precision = "fp32"
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
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            out = self.network(x, label)
        out = (out if isinstance(out, Tensor) else out.sample).to(x)
        return functional.pixel_shuffle(out, self.patch) if self.patch > 1 else out

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
