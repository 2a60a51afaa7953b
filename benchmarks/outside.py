"""The same network drawn from by other libraries: diffusers' pipelines and azula's samplers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from msgm.model.modes import blank, evaluating
from msgm.model.score import ScoreModel
from msgm.process.sde import DDPM

Draw = Callable[[int, int, int], Tensor]
"""(evaluations of the network, number of images, seed) -> images in model space."""


def diffusers_pipelines(model: ScoreModel) -> dict[str, Draw]:
    """DDPM, DDIM and DPM-Solver++ as diffusers runs them with its own settings (clipped to [-1, 1], uniform steps).

    diffusers knows processes with alpha^2 + sigma^2 = 1 at discrete steps only. Every process becomes one by a change
    of scale: step k has the ratio r = sigma/alpha of the k-th of 1,000 times, and x / (1 + r^2)^(1/2) in place of x.
    """
    from diffusers import (
        ConfigMixin,
        DDIMPipeline,
        DDIMScheduler,
        DDPMPipeline,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        ModelMixin,
    )
    from diffusers.configuration_utils import register_to_config

    sde = model.sde
    times = torch.linspace(sde.t_min, 1, sde.steps if isinstance(sde, DDPM) else 1000, dtype=torch.float64)
    ratios = sde.log_ratio(times).exp()
    bar = 1 / (1 + ratios.square())
    betas = (1 - bar / torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])).tolist()

    class Network(ModelMixin, ConfigMixin):  # type: ignore[misc]
        """The model's noise prediction under the names that pipelines ask for."""

        @register_to_config  # type: ignore[untyped-decorator]
        def __init__(self, in_channels: int, sample_size: int) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, step: Tensor) -> Any:
            k = int(step)
            scale = float(sde.alpha(times[k]) * (1 + ratios[k].square()).sqrt())
            return SimpleNamespace(sample=model.noise(scale * x, times[k]))

    def draw(pipeline: Any, scheduler: Any, nfe: int, n: int, seed: int) -> Tensor:
        run = pipeline(Network(model.shape[0], model.shape[-1]), scheduler(trained_betas=betas))
        run.set_progress_bar_config(disable=True)
        with evaluating(model):
            images = run(n, torch.Generator().manual_seed(seed), num_inference_steps=nfe, output_type="np").images
        return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1

    return {
        "diffusers ddpm": partial(draw, DDPMPipeline, DDPMScheduler),
        "diffusers ddim": partial(draw, DDIMPipeline, DDIMScheduler),
        "diffusers dpm++": partial(draw, DDPMPipeline, DPMSolverMultistepScheduler),
    }


def azula_samplers(model: ScoreModel) -> dict[str, Draw]:
    """azula's samplers with its own settings (steps uniform in t), from t = 1 to t_min, and our last denoising step.

    Raises ImportError where azula is not installed.
    """
    from azula import sample
    from azula.denoise import Denoiser, DiracPosterior

    sde = model.sde

    class Denoise(Denoiser):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = lambda t: (sde.alpha(t), sde.sigma(t))

        def forward(self, x: Tensor, t: Tensor, **given: Any) -> Any:
            return DiracPosterior(mean=model.denoise(x, t))

    def draw(kind: Any, each: int, nfe: int, n: int, seed: int) -> Tensor:
        torch.manual_seed(seed)  # azula draws from the global generator
        run = kind(Denoise(), start=1.0, stop=sde.t_min, steps=max(1, (nfe - 1) // each), silent=True)
        x = sde.prior_std * torch.randn_like(blank(model, n))
        with evaluating(model):
            images: Tensor = model.denoise(run(x), torch.tensor(sde.t_min))
        return images

    return {
        "azula ddpm": partial(draw, sample.DDPMSampler, 1),
        "azula ddim": partial(draw, sample.DDIMSampler, 1),
        "azula heun": partial(draw, sample.HeunSampler, 2),
        "azula xEAB": partial(draw, sample.xEABSampler, 1),
    }
