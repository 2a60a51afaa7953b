"""Each sampler against the exact flow and the exact law of its own images, its order, and its correctors at rest.

On a Gaussian a step is affine in the image and in the noise it draws, so that the whole run is
``x = b + A x_1 + sum_k c_k z_k``. One batch finds all coefficients, hence the exact mean b and variance
``(A prior_std)^2 + sum_k c_k^2`` of what is sampled: no sampling error hides the sampler's own.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise

import pytest
import torch
from oracle import SDES, TOY, gaussian_model, scalar, slope
from torch import Tensor

from msgm.model.modes import evaluating
from msgm.process.sde import SDE, VESDE
from msgm.process.solvers import Pair, adapt, attempt
from msgm.sampling import (
    DDIM,
    RK45,
    SAMPLERS,
    Ancestral,
    AnnealedLangevin,
    Corrector,
    Langevin,
    PredictorCorrector,
    Sampler,
    SamplerName,
    Streams,
    build,
)

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
MEAN, STD = 0.2, 0.5


class Impulses(Streams):
    """Noise for finding coefficients: row 0 meets none, row k + 2 meets 1 in draw k alone."""

    def __init__(self) -> None:
        super().__init__(0, [])
        self.draws = 0

    def normal(self, like: Tensor) -> Tensor:
        z = torch.zeros_like(like)
        z[self.draws + 2] = 1
        self.draws += 1
        return z


def law(sampler: Sampler) -> tuple[float, float]:
    """The exact mean and standard deviation of one pixel of the sampler's images of a Gaussian."""
    grid, noise = sampler.times(), Impulses()
    x = torch.zeros(2 * len(grid) + 2, 1, dtype=torch.float64)
    x[1] = 1
    with evaluating(sampler.model):
        for t, s in pairwise(grid):
            x = sampler.step(x, t, s, noise)
        x = sampler.model.denoise(x, grid[-1])[:, 0]
    effect = x[1:] - x[0]
    return float(x[0]), float(((effect[0] * sampler.model.sde.prior_std) ** 2 + effect[1:].square().sum()).sqrt())


def extrapolated(make: Callable[..., Sampler]) -> tuple[float, float, float]:
    """Mean and standard deviation without their first order in the step, and the latter of the finer run alone."""
    (mean, std), (finer_mean, finer_std) = (law(make(steps=k + 1)) for k in (100, 200))
    return 2 * finer_mean - mean, 2 * finer_std - std, finer_std


def wanted(sde: SDE) -> float:
    """The standard deviation of the data noised to t_min and denoised; the mean stays."""
    return STD**2 / float((STD**2 + (2 * sde.log_ratio(scalar(sde.t_min))).exp()).sqrt())


def exact_flow(sde: SDE, x: Tensor) -> Tensor:
    """Where the probability-flow ODE takes x_1 for data N(MEAN, STD^2), and the denoised image there."""
    first, last = scalar(1.0), scalar(sde.t_min)
    start, end = sde.log_ratio(first).exp(), sde.log_ratio(last).exp()
    y = MEAN + (x / sde.alpha(first) - MEAN) * ((STD**2 + end**2) / (STD**2 + start**2)).sqrt()
    return MEAN + (y - MEAN) * STD**2 / (STD**2 + end**2)


SECOND: tuple[SamplerName, ...] = ("heun", "dpm++", "dpm++-sde")
FIRST: tuple[SamplerName, ...] = ("ddim", "euler", "ancestral", "ddpm", "reverse-diffusion", "euler-maruyama")


@EACH_SDE
@pytest.mark.parametrize("name", [*SECOND, "rk45"])
def test_moments_of_a_gaussian(name: SamplerName, sde: SDE) -> None:
    mean, std = law(build(name, gaussian_model(sde, (1,), MEAN, STD), steps=2 if name == "rk45" else 100))
    assert abs(mean - MEAN) < 0.01 * STD
    assert abs(std / wanted(sde) - 1) < 0.01


@EACH_SDE
@pytest.mark.parametrize("name", FIRST)
def test_moments_of_a_gaussian_but_for_the_first_order_in_the_step(name: SamplerName, sde: SDE) -> None:
    mean, std, finest = extrapolated(partial(build, name, gaussian_model(sde, (1,), MEAN, STD), grid="uniform"))
    assert abs(mean - MEAN) < 0.01 * STD
    assert abs(std / wanted(sde) - 1) < 0.01
    assert abs(finest / wanted(sde) - 1) < 0.15


def test_no_sampler_is_left_out() -> None:
    assert {*FIRST, *SECOND, "rk45", "pc"} == set(SAMPLERS)


@EACH_SDE
def test_moments_of_the_predictor_corrector(sde: SDE) -> None:
    model = gaussian_model(sde, (1,), MEAN, STD)
    mean, std, _ = extrapolated(partial(PredictorCorrector, model, corrector=AnnealedLangevin()))
    assert abs(mean - MEAN) < 0.01 * STD
    # Each move widens by 1 / (1 - h / 2v), at most by snr^2 in the variance.
    assert abs(std / wanted(sde) - 1) < 0.01 + 0.16**2 / 2


@EACH_SDE
@pytest.mark.parametrize("name", ["heun", "dpm++", "rk45"])
def test_samplers_of_the_ode_follow_the_exact_flow_point_by_point(name: SamplerName, sde: SDE) -> None:
    start = sde.prior_std * Streams(7, range(6)).normal(torch.empty(6, 3, dtype=torch.float64))
    x = build(name, gaussian_model(sde, (3,), MEAN, STD), steps=2 if name == "rk45" else 300).sample(6, seed=7)
    torch.testing.assert_close(x, exact_flow(sde, start), rtol=0, atol=2e-3)


# ----------------------------------------------------------------------------------------------------------- orders


@lru_cache
def reference(sde: str) -> Tensor:
    return RK45(TOY.as_model(SDES[sde]), tolerance=1e-8).sample(8, seed=1, batch=8)


@pytest.mark.parametrize("sde", ["ve", "vp", "subvp"])
@pytest.mark.parametrize(
    ("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm++", 2)], ids=["euler", "ddim", "heun", "dpm++"]
)
def test_orders_of_the_ode_samplers(name: SamplerName, order: int, sde: str) -> None:
    model, errors = TOY.as_model(SDES[sde]), []
    for steps in (50, 100, 200):
        x = build(name, model, steps=steps + 1, grid="log-snr").sample(8, seed=1, batch=8)
        errors.append((x - reference(sde)).abs().mean().item())
    assert abs(slope(errors) - order) < 0.25, errors


@pytest.mark.parametrize("sde", ["ve", "vp", "subvp"])
@pytest.mark.parametrize("name", ["euler-maruyama", "reverse-diffusion", "ancestral"])
def test_the_law_of_the_sde_samplers_is_of_first_order(name: SamplerName, sde: str) -> None:
    model = gaussian_model(SDES[sde], (1,), MEAN, STD)
    laws = [law(build(name, model, steps=steps + 1))[1] for steps in (50, 100, 200, 400)]
    # On a Gaussian with VE the first-order term of Euler-Maruyama's variance is proportional to
    # int_0^inf (2 w / (v + w) - 1) / (v + w)^2 dw with w = sigma^2 and v = STD^2, which is zero.
    order = 2 if (name, sde) == ("euler-maruyama", "ve") else 1
    # The limit is unknown only by the prior's error: differences of halved steps fall as the error does.
    assert abs(slope([abs(a - b) for a, b in pairwise(laws)]) - order) < 0.25, laws


def test_dormand_and_princes_step_is_of_fifth_order_and_its_error_estimate_of_fourth() -> None:
    # dy/du = y cos u, y = exp(sin u), from 0 to 2 in equal steps; one step's error estimate falls as h^5.
    def f(u: Tensor, y: Tensor) -> Pair:
        return y * u.cos()[:, None], torch.zeros(1, dtype=torch.float64)

    errors, estimates = [], []
    for steps in (8, 16, 32):
        y, h = torch.ones(1, 1, dtype=torch.float64), torch.full((1,), 2 / steps, dtype=torch.float64)
        for i in range(steps):
            u = i * h
            (change, _), (estimate, _), _ = attempt(f, u, y, h, f(u, y))
            y = y + change
            if i == 0:
                estimates.append(float(estimate.abs()))
        errors.append(float((y - scalar(2.0).sin().exp()).abs()))
    assert abs(slope(errors) - 5) < 0.3, errors
    assert abs(slope(estimates) - 5) < 0.3, estimates


def test_the_error_of_rk45_follows_its_tolerance() -> None:
    model = TOY.as_model(VESDE())
    errors, used = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        sampler = RK45(model, tolerance=tolerance)
        errors.append((sampler.sample(8, seed=1, batch=8) - reference("ve")).abs().max().item())
        used.append(sampler.nfe)
    for tolerance, error in zip((1e-2, 1e-4, 1e-6), errors, strict=True):
        assert error < 100 * tolerance, errors
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert used == sorted(used)


def test_images_of_rk45_take_their_own_steps() -> None:
    # The second number of each image is its rate, which stays: 1 and 1000. The fast one takes more steps, alone.
    def decay(tau: Tensor, y: Tensor, rows: Tensor) -> Pair:
        still = torch.zeros(len(y), dtype=y.dtype)
        return torch.stack([-y[:, 1] * y[:, 0], still], dim=1), still

    start = torch.tensor([[1.0, 1.0], [1.0, 1000.0]], dtype=torch.float64)
    (alone, _, cost, _), (both, _, costs, _) = (
        adapt(decay, y, scalar(0.0), scalar(1.0), rtol=1e-6, atol=1e-6, max_nfe=10**5) for y in (start[:1], start)
    )
    assert torch.equal(alone[0], both[0])
    assert int(cost[0]) == int(costs[0]) < int(costs[1]) / 5
    torch.testing.assert_close(both[:, 0], (-start[:, 1]).exp(), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- coincidences


@EACH_SDE
def test_what_the_papers_say_is_the_same(sde: SDE) -> None:
    model = TOY.as_model(sde)
    one, half = (DDIM(model, eta=eta).sample(4, seed=2, batch=4) for eta in (1.0, 0.5))
    torch.testing.assert_close(one, Ancestral(model, steps=50, grid="discrete").sample(4, seed=2, batch=4))
    assert not torch.allclose(one, half)
    # DDIM without noise is Euler in (y, r), and the first step of both forms of DPM-Solver++ (nothing to extrapolate).
    t, s = scalar(0.8), scalar(0.6)
    x = Streams(0, range(4)).normal(torch.empty(4, 2, dtype=torch.float64))
    ratio = [sde.log_ratio(u).exp() for u in (t, s)]
    euler = sde.alpha(s) * (x / sde.alpha(t) + (ratio[1] - ratio[0]) * model.noise(x, t))
    torch.testing.assert_close(DDIM(model).step(x, t, s, Streams(1, range(4))), euler)
    for pair in (("dpm++", partial(DDIM, eta=0.0)), ("dpm++-sde", partial(DDIM, eta=1.0))):
        first = build(pair[0], model).step(x, t, s, Streams(1, range(4)))  # type: ignore[arg-type]
        torch.testing.assert_close(first, pair[1](model).step(x, t, s, Streams(1, range(4))))


@pytest.mark.parametrize("name", ["dpm++", "dpm++-sde"])
def test_a_past_that_does_not_lead_here_is_not_used(name: SamplerName) -> None:
    sampler = build(name, TOY.as_model(VESDE()))
    x = Streams(0, range(4)).normal(torch.empty(4, 2, dtype=torch.float64))
    t, s, later = scalar(0.8), scalar(0.6), scalar(0.5)

    def after(*before: tuple[Tensor, Tensor]) -> Tensor:
        streams = Streams(1, range(4))
        for pair in before:
            sampler.step(x, *pair, streams)
        streams = _same_noise(streams)
        return sampler.step(x, s, later, streams)

    assert torch.equal(after(), after((t, later)))
    assert not torch.allclose(after(), after((t, s)))


def _same_noise(streams: Streams) -> Streams:
    fresh = Streams(9, range(4))
    fresh.past = streams.past
    return fresh


# --------------------------------------------------------------------------------------------------------- correctors


@EACH_SDE
def test_annealed_langevin_leaves_the_exact_law_to_second_order_in_the_step(sde: SDE) -> None:
    model = gaussian_model(sde, (1,), MEAN, STD)
    for t in (scalar(0.1), scalar(0.5), scalar(0.9)):
        variance = float((sde.alpha(t) * STD).square() + sde.sigma(t).square())
        mean, h = float(sde.alpha(t)) * MEAN, 2 * (0.16 * float(sde.sigma(t))) ** 2
        noise, x = Impulses(), torch.full((5, 1), mean, dtype=torch.float64)
        x[1] += variance**0.5
        moved = AnnealedLangevin()(model, x, t, noise)[:, 0].detach()
        assert float(moved[0]) == pytest.approx(mean, abs=1e-12)
        # (1 - h/v)^2 v + 2 h = v + h^2 / v.
        assert float((moved[1:] - moved[0]).square().sum()) == pytest.approx(variance + h**2 / variance, rel=1e-9)


@pytest.mark.parametrize(
    ("corrector", "growth"),
    [
        (partial(Langevin, snr=0.16), (1 + 2 / 64) / (1 - 0.16**2)),
        (partial(AnnealedLangevin, snr=0.3), 1 / (1 - 0.3**2 * 0.8)),
    ],
    ids=["langevin", "annealed"],
)
def test_correctors_at_rest(corrector: type[Corrector], growth: float) -> None:
    # sigma = 1 beside data of variance 1/4, or sigma = 0.5 for the Langevin that goes by the score's norm.
    sde, n = VESDE(), 1000
    t = sde.time(scalar(1.0 if growth > 1.06 else 0.5).log())
    model = gaussian_model(sde, (1, 8, 8), MEAN, STD)
    variance = STD**2 + float(sde.sigma(t)) ** 2
    streams = Streams(3, range(n))
    x = MEAN + variance**0.5 * streams.normal(torch.empty(n, 1, 8, 8, dtype=torch.float64))
    with evaluating(model):
        x = corrector(repeats=60)(model, x, t, streams)
    error = (2 / x.numel()) ** 0.5
    assert abs(float(x.mean()) - MEAN) < 4 * (variance / x.numel()) ** 0.5
    assert abs(float(x.var()) / variance / growth - 1) < 4 * error + 0.005


def test_a_vanishing_score_does_not_throw_an_image_away() -> None:
    model = gaussian_model(VESDE(), (1, 4, 4), factor=0.0)
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    t = scalar(0.5)
    moved = Langevin()(model, x, t, Streams(0, range(2))).detach()
    assert float(moved.abs().max()) < 5 * 2 * 0.16 * float((1 + model.sde.sigma(t).square()).sqrt())


def test_a_corrector_moves_towards_the_law() -> None:
    sde, n = VESDE(), 10
    model, t = gaussian_model(sde, (1, 8, 8), MEAN, STD), sde.time(scalar(0.5).log())
    with evaluating(model):
        moved = Langevin(repeats=200)(model, torch.ones(n, 1, 8, 8, dtype=torch.float64), t, Streams(0, range(n)))
    # Four standard errors of the mean of n * 64 numbers of variance 1/2.
    assert abs(float(moved.mean()) - MEAN) < 4 * (0.5 / (n * 64)) ** 0.5
