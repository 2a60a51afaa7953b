"""What all samplers promise: image i depends on (seed, i) alone, evaluations are counted, grids, batches, names."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch
from oracle import SDES, TOY, GaussianNetwork, gaussian_model
from torch import nn

from msgm.errors import UserError
from msgm.model.networks import MLP
from msgm.model.score import ScoreModel
from msgm.process.sde import DDPM, SDE, VESDE, VPSDE
from msgm.sampling import (
    DDIM,
    GRIDS,
    RK45,
    SAMPLERS,
    Ancestral,
    Grid,
    Heun,
    Langevin,
    Sampler,
    SamplerName,
    Streams,
    build,
    fitting,
)

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
EACH_SAMPLER = pytest.mark.parametrize("name", SAMPLERS)
MEAN, STD = 0.2, 0.5


def mlp_model(dropout: float = 0.0) -> ScoreModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(dim=5, width=16)
    network.layers.append(nn.Sequential(nn.Linear(16, 16), nn.Dropout(dropout)))
    return ScoreModel(network, VESDE(), shape=(5,))


@pytest.mark.parametrize("name", ["heun", "dpm++", "dpm++-sde", "euler-maruyama"])
def test_components_of_a_mixture_are_drawn_in_proportion(name: SamplerName) -> None:
    n = 2000
    x = build(name, TOY.as_model(VPSDE()), steps=100).sample(n, seed=4, batch=n)
    shares = TOY.component_posterior(x).mean(0)
    assert bool(((shares - TOY.weights).abs() < 4 * (TOY.weights * (1 - TOY.weights) / n).sqrt() + 0.01).all())


@EACH_SAMPLER
def test_an_image_does_not_depend_on_its_batch(name: SamplerName) -> None:
    sampler = build(name, TOY.as_model(VESDE()), steps=6)
    whole = sampler.sample(11, seed=5)
    torch.testing.assert_close(sampler.sample(11, seed=5, batch=3), whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(sampler.sample(4, seed=5, start=6), whole[6:10], rtol=0, atol=1e-9)
    assert not torch.allclose(sampler.sample(11, seed=6), whole)
    assert len(whole[:, 0].unique()) == 11


@EACH_SAMPLER
def test_precision_is_the_models_and_the_noise_is_the_same(name: SamplerName) -> None:
    single = build(name, gaussian_model(VPSDE(), (1, 4, 4), MEAN, STD, dtype=torch.float32), steps=20).sample(3)
    double = build(name, gaussian_model(VPSDE(), (1, 4, 4), MEAN, STD), steps=20).sample(3)
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
def test_evaluations_and_progress_are_counted(name: SamplerName) -> None:
    model = gaussian_model(VESDE(), (2,))
    network, done = model.network, []
    assert isinstance(network, GaussianNetwork)
    sampler = build(name, model, steps=6)
    sampler.sample(10, batch=4, tick=done.append)
    assert network.images == pytest.approx(10 * sampler.nfe, abs=0 if name != "rk45" else 5)
    assert name == "rk45" or sampler.nfe == {"heun": 11, "pc": 11}.get(name, 6)
    assert len(done) == 3 * 6
    assert math.isclose(sum(done), 10)


def test_the_batch_that_fits_follows_memory_and_network() -> None:
    # Layers of an MLP of width 16 return this many numbers for one vector.
    model = mlp_model()
    seen: list[int] = []
    for part in model.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda layer, given, out: seen.append(4 * out.numel()))
    assert fitting(model, memory=1) == 1
    one = 2 * sum(seen)
    assert fitting(model, memory=10 * one) == 10
    assert fitting(model, memory=1e15) == fitting(model) == 250


def test_names_build_samplers() -> None:
    model = gaussian_model(VESDE(), (2,))
    assert get_args(SamplerName) == tuple(SAMPLERS)
    assert get_args(Grid) == tuple(GRIDS)
    for name in SAMPLERS:
        own, given = build(name, model), build(name, model, steps=7, grid="log-snr")
        assert own.steps >= 2
        assert (type(given), given.steps, given.grid) == (type(own), 7, "log-snr")
    assert build("ddpm", model).steps == 1000


@EACH_SDE
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_run_from_one_to_t_min(sde: SDE, grid: Grid) -> None:
    times = Heun(gaussian_model(sde, (2,)), steps=9, grid=grid).times()
    assert (len(times), times.dtype, float(times[0]), float(times[-1])) == (9, torch.float64, 1.0, sde.t_min)
    assert bool((times.diff() < 0).all())
    # What is uniform is named by the grid; EDM's is Karras et al. 2022, Eq. 5.
    levels = sde.log_ratio(times)
    even = {"uniform": times, "discrete": times, "log-snr": levels, "edm": (levels / 7).exp()}[grid].diff()
    rounding = 1 / 999 if grid == "discrete" and isinstance(sde, DDPM) else 1e-6 * float(even.abs().max())
    torch.testing.assert_close(even, even.mean().expand(8), rtol=0, atol=rounding)


def test_the_discrete_grid_visits_the_steps_of_ddpm_once() -> None:
    model = gaussian_model(DDPM(steps=20), (2,))
    assert torch.equal((19 * DDIM(model, steps=500).times()).round(), torch.arange(19, -1, -1, dtype=torch.float64))
    assert DDIM(model, steps=500).nfe == 20
    few = 19 * DDIM(model, steps=7).times()
    torch.testing.assert_close(few, few.round(), rtol=0, atol=1e-9)


def test_a_new_sampler_is_one_step() -> None:
    class Midpoint(Sampler):
        evaluations = 2

        def step(self, x, t, s, generator):
            sde = self.model.sde
            first, last = sde.log_ratio(t).exp(), sde.log_ratio(s).exp()
            middle = sde.time(((first + last) / 2).log())
            y = x / sde.alpha(t) + (last - first) / 2 * self.model.noise(x, t)
            slope = self.model.noise(sde.alpha(middle) * y, middle)
            return sde.alpha(s) * (x / sde.alpha(t) + (last - first) * slope)

    model = gaussian_model(VESDE(), (2,), MEAN, STD)
    midpoint = Midpoint(model, steps=300, grid="edm")
    assert midpoint.nfe == 599
    torch.testing.assert_close(midpoint.sample(2), Heun(model, steps=300).sample(2), rtol=0, atol=1e-3)


def test_heun_also_encodes() -> None:
    sde = VPSDE()
    sampler = Heun(gaussian_model(sde, (2,), MEAN, STD), steps=300)
    clean = torch.tensor([[0.9, -0.3]], dtype=torch.float64)
    x, generator = clean, Streams(0, range(1))
    up = sampler.times().flip(0)
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
    with pytest.raises(UserError, match=r"no grid 'square'; known: uniform"):
        Heun(model, grid="square")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no sampler 'magic'; known: heun"):
        build("magic", model)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="eta"):
        DDIM(model, eta=2)
    with pytest.raises(UserError, match="variance"):
        Ancestral(model, variance="none")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="tolerance"):
        RK45(model, tolerance=0)
    with pytest.raises(UserError, match="snr"):
        Langevin(snr=0)
    with pytest.raises(UserError, match="more than 20 evaluations"):
        RK45(model, most=20).sample(2)
