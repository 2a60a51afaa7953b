"""Samplers against exact flows and laws, and the promise that image i depends on (seed, i) alone."""

import math
from itertools import pairwise

import pytest
import torch
from oracle import SDES, TOY, GaussianNetwork, gaussian_model, slope
from torch import nn

from msgm.errors import UserError
from msgm.networks import MLP
from msgm.sampling import EulerMaruyama, Heun, Sampler, Streams
from msgm.score import ScoreModel
from msgm.sde import SDE, VESDE, VPSDE

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
EACH_SAMPLER = pytest.mark.parametrize("kind", [Heun, EulerMaruyama])
MEAN, STD = 0.2, 0.5


def mlp_model(dropout: float = 0.0) -> ScoreModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(dim=5, width=16)
    network.layers.append(nn.Sequential(nn.Linear(16, 16), nn.Dropout(dropout)))
    return ScoreModel(network, VESDE(), shape=(5,))


def exact_flow(sde: SDE, x: torch.Tensor) -> torch.Tensor:
    """Where the probability-flow ODE takes x_1 for data N(MEAN, STD^2), and the denoised image there."""
    first, last = torch.tensor([1.0, sde.t_min], dtype=torch.float64)
    start, end = sde.log_ratio(first).exp(), sde.log_ratio(last).exp()
    y = MEAN + (x / sde.alpha(first) - MEAN) * ((STD**2 + end**2) / (STD**2 + start**2)).sqrt()
    return MEAN + (y - MEAN) * STD**2 / (STD**2 + end**2)


@EACH_SDE
def test_heun_follows_the_exact_flow_point_by_point(sde: SDE) -> None:
    model = gaussian_model(sde, (3,), MEAN, STD)
    start = sde.prior_std * Streams(7, range(6)).normal(torch.empty(6, 3, dtype=torch.float64))
    x = Heun(model, steps=300).sample(6, seed=7)
    torch.testing.assert_close(x, exact_flow(sde, start), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_heun_is_of_second_order(name: str) -> None:
    model = TOY.as_model(SDES[name])
    reference = Heun(model, steps=2049).sample(64, seed=1)
    errors = [
        (Heun(model, steps=steps + 1).sample(64, seed=1) - reference).abs().mean().item() for steps in (64, 128, 256)
    ]
    assert 1.8 < slope(errors) < 2.3, errors


@EACH_SDE
def test_both_samplers_draw_the_data_of_a_gaussian(sde: SDE) -> None:
    n = 4000
    model = gaussian_model(sde, (2,), MEAN, STD)
    for sampler in (Heun(model, steps=60), EulerMaruyama(model, steps=300)):
        x = sampler.sample(n, seed=3, batch=n)
        assert bool(((x.mean(0) - MEAN).abs() < 4 * STD / math.sqrt(n)).all())
        # Four standard errors, and 2 % for the steps.
        assert bool(((x.std(0) / STD - 1).abs() < 4 / math.sqrt(2 * n) + 0.02).all())


@EACH_SAMPLER
def test_components_of_a_mixture_are_drawn_in_proportion(kind: type[Sampler]) -> None:
    n = 2000
    x = kind(TOY.as_model(VPSDE()), steps=100).sample(n, seed=4, batch=n)
    shares = TOY.component_posterior(x).mean(0)
    assert bool(((shares - TOY.weights).abs() < 4 * (TOY.weights * (1 - TOY.weights) / n).sqrt() + 0.01).all())


@EACH_SAMPLER
def test_an_image_does_not_depend_on_its_batch(kind: type[Sampler]) -> None:
    sampler = kind(TOY.as_model(VESDE()), steps=12)
    whole = sampler.sample(11, seed=5)
    torch.testing.assert_close(sampler.sample(11, seed=5, batch=3), whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(sampler.sample(4, seed=5, start=6), whole[6:10], rtol=0, atol=1e-9)
    assert not torch.allclose(sampler.sample(11, seed=6), whole)
    assert len(whole[:, 0].unique()) == 11


@EACH_SAMPLER
def test_precision_is_the_models_and_the_noise_is_the_same(kind: type[Sampler]) -> None:
    single = kind(gaussian_model(VPSDE(), (1, 4, 4), MEAN, STD, dtype=torch.float32), steps=20).sample(3)
    double = kind(gaussian_model(VPSDE(), (1, 4, 4), MEAN, STD), steps=20).sample(3)
    assert (single.dtype, double.dtype, single.shape) == (torch.float32, torch.float64, (3, 1, 4, 4))
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


def test_the_model_is_run_in_evaluation_mode_and_left_as_it_was() -> None:
    model = mlp_model(dropout=0.5).train()
    model.network.enter.eval()  # a part that its owner has frozen
    before = {name: part.training for name, part in model.named_modules()}
    x = Heun(model, steps=4).sample(3)
    assert not x.requires_grad
    assert {name: part.training for name, part in model.named_modules()} == before
    torch.testing.assert_close(Heun(model.eval(), steps=4).sample(3), x)


@EACH_SAMPLER
def test_evaluations_and_progress_are_counted(kind: type[Sampler]) -> None:
    model = gaussian_model(VESDE(), (2,))
    network, done = model.network, []
    assert isinstance(network, GaussianNetwork)
    sampler = kind(model, steps=18)
    sampler.sample(10, batch=4, tick=done.append)
    assert sampler.nfe == {Heun: 35, EulerMaruyama: 18}[kind]
    assert network.images == 10 * sampler.nfe
    assert len(done) == 3 * 18
    assert math.isclose(sum(done), 10)


@EACH_SDE
def test_grids_run_from_one_to_t_min(sde: SDE) -> None:
    model = gaussian_model(sde, (2,))
    for sampler in (Heun(model, steps=9), EulerMaruyama(model, steps=9)):
        grid = sampler.grid()
        assert (len(grid), float(grid[0]), float(grid[-1])) == (9, 1.0, sde.t_min)
        assert bool((grid.diff() < 0).all())
    # Karras et al. 2022, Eq. 5.
    ratios = sde.log_ratio(Heun(model, steps=9).grid()).exp()
    high, low = float(ratios[0]), float(ratios[-1])
    third = (high ** (1 / 7) + 3 / 8 * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    assert math.isclose(float(ratios[3]), third, rel_tol=1e-6)


def test_a_new_sampler_is_one_step() -> None:
    class Euler(Sampler):
        def step(self, x, t, s, generator):
            sde = self.model.sde
            ratio = [sde.log_ratio(u).exp() for u in (t, s)]
            return sde.alpha(s) * (x / sde.alpha(t) + (ratio[1] - ratio[0]) * self.model.noise(x, t))

        grid = Heun.grid
        rho = 7.0

    model = gaussian_model(VESDE(), (2,), MEAN, STD)
    euler = Euler(model, steps=4000)
    assert euler.nfe == 4000
    torch.testing.assert_close(euler.sample(2), Heun(model, steps=300).sample(2), rtol=0, atol=5e-3)


def test_heun_also_encodes() -> None:
    sde = VPSDE()
    sampler = Heun(gaussian_model(sde, (2,), MEAN, STD), steps=300)
    clean = torch.tensor([[0.9, -0.3]], dtype=torch.float64)
    x, generator = clean, Streams(0, range(1))
    up = sampler.grid().flip(0)
    for times in (up, up.flip(0)):
        for t, s in pairwise(times):
            x = sampler.step(x, t, s, generator)
    torch.testing.assert_close(x, clean, rtol=0, atol=1e-3)


def test_streams_are_independent_standard_and_reproducible() -> None:
    n = 20_000
    streams = Streams(0, range(n))
    z = torch.cat([streams.normal(torch.empty(n, 2)), streams.normal(torch.empty(n, 1))], dim=1).double()
    error = 1 / math.sqrt(n)
    assert bool((z.mean(0).abs() < 4.5 * error).all())
    assert bool((z.var(0) - 1).abs().max() < 4.5 * math.sqrt(2) * error)
    correlations = (z.T @ z / n - torch.eye(3)).abs()
    assert float(correlations.fill_diagonal_(0).max()) < 4.5 * error
    for lag in (1, 2, 250):  # neighbouring images
        assert float((z[lag:] * z[:-lag]).mean(0).abs().max()) < 4.5 * error
    signs = streams.rademacher(torch.empty(n, 3, dtype=torch.float64))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert float(signs.mean(0).abs().max()) < 4.5 * error
    u = streams.uniform(torch.empty(n, 1))
    assert 0 <= float(u.min()) < float(u.max()) < 1
    like = torch.empty(2, 3)
    assert torch.equal(Streams(0, [5, 9]).normal(like)[1], Streams(0, [9]).normal(like[:1])[0])
    assert not torch.equal(Streams((0, 1), [5]).normal(like[:1]), Streams((0, 2), [5]).normal(like[:1]))


def test_bad_requests_are_refused() -> None:
    model = gaussian_model(VESDE(), (2,))
    with pytest.raises(UserError, match="steps"):
        Heun(model, steps=1)
    with pytest.raises(UserError, match="at least one image"):
        Heun(model).sample(0)
    with pytest.raises(UserError, match="batch"):
        Heun(model).sample(3, batch=0)
