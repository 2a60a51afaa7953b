"""DDIM, DDPM and DPM-Solver++ step by step beside diffusers' schedulers: same network, noise and times."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from oracle import TOY
from torch import Tensor

from msgm.process.sde import DDPM
from msgm.sampling import DDIM, Ancestral, DPMSolver, DPMSolverSDE, Sampler, Streams

N = 5


def ours(sampler: Sampler, steps: Tensor) -> Tensor:
    times, streams = steps.double() / 999, Streams("noise", range(N))
    x = Streams("start", range(N)).normal(torch.empty(N, 2, dtype=torch.float64))
    for t, s in pairwise(times):
        x = sampler.step(x, t, s, streams)
    return sampler.model.denoise(x, times[-1])


def theirs(scheduler: Any, sampler: Sampler, step: Callable[..., Any]) -> Tensor:
    x = Streams("start", range(N)).normal(torch.empty(N, 2, dtype=torch.float64))
    for k in scheduler.timesteps:
        x = step(sampler.model.noise(x, k.double() / 999), k, x).prev_sample
    return x


def table(schedule: str = "linear") -> DDPM:
    return DDPM(schedule=schedule)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim(eta: float, schedule: str) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_schedule=schedule, beta_start=1e-4, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(20)
    sampler, streams = DDIM(TOY.as_model(table(schedule)), eta=eta), Streams("noise", range(N))

    def step(eps: Tensor, k: Tensor, x: Tensor) -> Any:
        return scheduler.step(eps, int(k), x, eta=eta, variance_noise=streams.normal(x) if eta else None)

    x = theirs(scheduler, sampler, step)
    torch.testing.assert_close(ours(sampler, scheduler.timesteps), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("variance", "name"), [("posterior", "fixed_small"), ("forward", "fixed_large")])
def test_ddpm(variance: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    scheduler = DDPMScheduler(clip_sample=False, variance_type=name)
    scheduler.set_timesteps(50)
    sampler, streams = Ancestral(TOY.as_model(table()), variance=variance), Streams("noise", range(N))
    like = torch.empty(N, 2, dtype=torch.float64)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *shape, **kind: streams.normal(like))
    x = theirs(scheduler, sampler, scheduler.step)
    torch.testing.assert_close(ours(sampler, scheduler.timesteps), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [12, 20])
@pytest.mark.parametrize("kind", [DPMSolver, DPMSolverSDE])
def test_dpm_solver(kind: type[DPMSolver], count: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    name = "dpmsolver++" if kind is DPMSolver else "sde-dpmsolver++"
    scheduler = DPMSolverMultistepScheduler(algorithm_type=name, beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(count)
    sampler, streams = kind(TOY.as_model(table())), Streams("noise", range(N))

    def step(eps: Tensor, k: Tensor, x: Tensor) -> Any:
        return scheduler.step(eps, k, x, variance_noise=streams.normal(x) if kind is DPMSolverSDE else None)

    x = theirs(scheduler, sampler, step)
    torch.testing.assert_close(ours(sampler, scheduler.timesteps), x, rtol=0, atol=1e-4)
