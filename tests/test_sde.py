"""The four processes against their definitions: inverses, derivatives, end points, the discrete schedule."""

import math

import pytest
import torch

from msgm.process.sde import DDPM, PROCESSES, SDE, VESDE, VPSDE, SubVPSDE

ALL = pytest.mark.parametrize("sde", [process() for process in PROCESSES.values()], ids=list(PROCESSES))


def interior(n: int = 37) -> torch.Tensor:
    """Times inside (0, 1) that lie in the middle of DDPM's segments, where all processes are smooth."""
    k = torch.linspace(3, 995, n, dtype=torch.float64).floor()
    return (k + 0.5) / 999


def derivative(function, t: torch.Tensor, h: float = 1e-5) -> torch.Tensor:
    return (function(t + h) - function(t - h)) / (2 * h)


@ALL
def test_time_inverts_log_ratio(sde: SDE) -> None:
    t = torch.cat([torch.tensor([sde.t_min, 1.0], dtype=torch.float64), interior()])
    torch.testing.assert_close(sde.time(sde.log_ratio(t)), t, rtol=1e-9, atol=1e-12)
    assert sde.time(sde.log_ratio(t[3])).shape == ()
    log_ratio = sde.log_ratio(t.sort().values)
    assert bool((log_ratio.diff() > 0).all())


@ALL
def test_log_ratio_is_that_of_sigma_and_alpha(sde: SDE) -> None:
    t = interior()
    torch.testing.assert_close(sde.log_ratio(t).exp(), sde.sigma(t) / sde.alpha(t), rtol=1e-12, atol=0)


@ALL
def test_drift_and_diffusion_are_the_marginals_derivatives(sde: SDE) -> None:
    t = interior()
    drift = derivative(sde.log_alpha, t)
    torch.testing.assert_close(sde.drift(t), drift, rtol=1e-6, atol=1e-9)
    growth = derivative(lambda t: sde.sigma(t).square(), t)
    square = growth - 2 * drift * sde.sigma(t).square()
    torch.testing.assert_close(sde.diffusion(t).square(), square, rtol=1e-6, atol=1e-8)


@ALL
def test_marginal_takes_any_shape_and_one_or_many_times(sde: SDE) -> None:
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 3, 1, 4, 4, generator=generator)
    t = torch.tensor([0.2, 0.5, 0.9])
    many = sde.marginal(x, t, eps)
    for i in range(3):
        one = sde.marginal(x[i : i + 1], t[i], eps[i : i + 1])
        torch.testing.assert_close(many[i : i + 1], one)
        torch.testing.assert_close(one, sde.alpha(t[i]) * x[i : i + 1] + sde.sigma(t[i]) * eps[i : i + 1])


@ALL
def test_x_1_is_close_to_its_prior(sde: SDE) -> None:
    one = torch.ones((), dtype=torch.float64)
    assert sde.alpha(one) < 0.025 * sde.sigma(one)
    assert math.isclose(sde.sigma(one), sde.prior_std, rel_tol=1e-4)


@ALL
def test_single_precision_keeps_the_smallest_noise(sde: SDE) -> None:
    t = torch.tensor([sde.t_min, 0.01, 0.5], dtype=torch.float64)
    torch.testing.assert_close(sde.sigma(t.float()).double(), sde.sigma(t), rtol=2e-4, atol=0)


def test_ve_is_geometric() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    sigma = VESDE(sigma_min=0.01, sigma_max=90.0).sigma(t)
    torch.testing.assert_close(sigma, torch.tensor([0.01, math.sqrt(0.9), 90.0], dtype=torch.float64))


def test_vp_and_sub_vp_share_alpha() -> None:
    t = interior()
    vp, sub = VPSDE(), SubVPSDE()
    integral = 0.1 * t + 19.9 * t.square() / 2
    torch.testing.assert_close(vp.alpha(t), (-integral / 2).exp())
    torch.testing.assert_close(sub.alpha(t), vp.alpha(t))
    torch.testing.assert_close(vp.alpha(t).square() + vp.sigma(t).square(), torch.ones_like(t))
    torch.testing.assert_close(sub.sigma(t), 1 - vp.alpha(t).square())


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_ddpm_has_the_schedule_of_diffusers(schedule) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule=schedule
    ).alphas_cumprod.double()
    sde, k = DDPM(schedule=schedule), torch.arange(1000, dtype=torch.float64)
    t = k / 999
    # Their products are in single precision.
    torch.testing.assert_close(sde.alpha(t).square(), theirs, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(sde.label(t), k)
    torch.testing.assert_close(sde.nearest(t + 0.4 / 999), t)


def test_labels_are_those_networks_expect() -> None:
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    torch.testing.assert_close(VESDE().label(t), VESDE().sigma(t))
    torch.testing.assert_close(VPSDE().label(t), 999 * t)
    torch.testing.assert_close(DDPM(steps=501).label(t), 500 * t)
