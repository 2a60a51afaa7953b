"""The field's reference settings, written from what the papers state, to be measured against.

Song et al., *Score-based generative modeling through stochastic differential equations*, ICLR 2021: likelihood by a
black-box ODE solver (Sec. 4.3, App. D.2), predictor-corrector sampling (App. G), training with Adam and an average of
the weights (App. H). Nothing here is clever on purpose.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from msgm.forgetting.batch import Noised, Recalled
from msgm.forgetting.methods import Method
from msgm.model.modes import blank, evaluating
from msgm.model.score import ScoreModel
from msgm.process.sde import VESDE, expand
from msgm.training.settings import TrainSettings

SNR = 0.16
"""Signal-to-noise ratio of the Langevin corrector's step (App. G)."""


def log_likelihood(model: ScoreModel, x: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
    """log p(x) in nats, float64 (B,), and the evaluations of the field that the solver asked for.

    The probability-flow ODE in t from t_min (1e-5 for VE, as published) to 1 and the log-density along it, all images
    as one vector, by SciPy's RK45 at rtol = atol = 1e-5. The divergence is Hutchinson's, with one Rademacher probe for
    the whole path. Field and divergence are two passes: a forward, then a forward and backward.
    """
    from scipy.integrate import solve_ivp

    sde, size = model.sde, x.numel()
    probe = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x)

    def field(t: Tensor, x: Tensor) -> Tensor:
        return expand(sde.drift(t), x) * x - 0.5 * expand(sde.diffusion(t), x).square() * model.score(x, t)

    def slope(time: float, state: np.ndarray) -> np.ndarray:
        now = torch.from_numpy(state[:size]).to(x).reshape(x.shape)
        t = torch.full((len(x),), time).to(x)
        with torch.no_grad():
            drift = field(t, now)
        with torch.enable_grad():
            now.requires_grad_()
            (grad,) = torch.autograd.grad((field(t, now) * probe).sum(), now)
        divergence = (grad * probe).flatten(1).sum(1)
        return np.concatenate([drift.numpy().ravel(), divergence.numpy()]).astype(np.float64)

    start = np.concatenate([x.numpy().ravel(), np.zeros(len(x))]).astype(np.float64)
    with evaluating(model):
        solution = solve_ivp(slope, (sde.t_min, 1.0), start, method="RK45", rtol=1e-5, atol=1e-5)
    end = torch.from_numpy(solution.y[:size, -1]).reshape(x.shape).flatten(1)
    change = torch.from_numpy(solution.y[size:, -1])
    scale = end.shape[1] * math.log(math.sqrt(2 * math.pi) * sde.prior_std)
    return change - 0.5 * (end / sde.prior_std).square().sum(1) - scale, int(solution.nfev)


def evaluations(model: ScoreModel, steps: int = 1000) -> int:
    """Network evaluations for each image of `sample`."""
    return 2 * steps if isinstance(model.sde, VESDE) else steps


def sample(model: ScoreModel, n: int, generator: torch.Generator, *, steps: int = 1000) -> Tensor:
    """n images by the settings that were published for the process: (n, *shape) in model space.

    VE: predictor-corrector, one Langevin step (snr 0.16) and one of reverse diffusion at each of 1,000 noise levels.
    VP and subVP: Euler-Maruyama, 1,000 steps. Both return the mean of the last step, its noise left away.
    """
    sde, times = model.sde, torch.linspace(1.0, model.sde.t_min, steps, dtype=torch.float64)
    like = blank(model, n)

    def normal() -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    x = mean = sde.prior_std * normal()
    with evaluating(model):
        for t, s in pairwise([*times, None]):
            width = torch.tensor(1.0 / steps, dtype=torch.float64)
            if isinstance(sde, VESDE):
                score, eps = model.score(x, t), normal()
                size = 2 * (SNR * eps.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()) ** 2
                x = x + size * score + (2 * size).sqrt() * eps
                low = sde.sigma(s) if s is not None else torch.zeros_like(t)
                variance = expand(sde.sigma(t).square() - low.square(), x)
                mean = x + variance * model.score(x, t)
                x = mean + variance.sqrt() * normal()
            else:
                drift, diffusion = expand(sde.drift(t), x), expand(sde.diffusion(t), x)
                mean = x - width * (drift * x - diffusion.square() * model.score(x, t))
                x = mean + width.sqrt() * diffusion * normal()
    return mean


class Loop:
    """A plain training loop: Adam and the average of the weights parameter by parameter, two forwards, one backward."""

    def __init__(self, model: ScoreModel, settings: TrainSettings, method: Method, generator: torch.Generator) -> None:
        self.model, self.settings, self.method, self.generator = (
            copy.deepcopy(model).train(),
            settings,
            method,
            generator,
        )
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, foreach=False, fused=False)
        self.average = [p.detach().clone() for p in self.parameters]
        self.steps = 0

    def step(self, retain: Tensor, forget: Tensor | None, pool: Tensor) -> float:
        """One step on clean images in model space; ``pool`` are the retained images that some terms ask for."""
        method, settings = self.method, self.settings
        loss = method.retain(self._noised(retain))
        if method.forget is not None:
            given = None if forget is None else replace(self._noised(forget), retained=Recalled(pool))
            loss = method.combine(loss, None if given is None else method.forget(given))
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (self.steps + 1) / max(1, settings.warmup))
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        decay = min(settings.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for kept, now in zip(self.average, self.parameters, strict=True):
                kept.sub_((1 - decay) * (kept - now))
        self.steps += 1
        return float(loss.detach())

    def _noised(self, x0: Tensor) -> Noised:
        sde = self.model.sde
        t = sde.t_train + (1 - sde.t_train) * torch.rand(len(x0), generator=self.generator)
        eps = torch.randn(x0.shape, generator=self.generator)
        x = sde.marginal(x0, t, eps)
        return Noised(x=x, t=t, eps=eps, predicted=self.model.noise(x, t), model=self.model)
