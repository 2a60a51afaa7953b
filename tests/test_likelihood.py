"""Likelihoods against exact densities; their errors against what they claim; divergence is flagged."""

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from oracle import RETAIN, SDES, TOY, UNEVEN, GaussianNetwork, gaussian_model, scalar, slope
from torch import nn

from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.formats import load
from msgm.likelihood import Likelihood, log_likelihood, variational_bound
from msgm.model.networks import MLP
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE, VESDE, VPSDE

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))


def points(n: int = 16) -> torch.Tensor:
    return UNEVEN.sample(n, torch.Generator().manual_seed(0))


def pixels(n: int, shape: tuple[int, ...] = (1, 4, 4)) -> torch.Tensor:
    return torch.randint(60, 220, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def centred(sde: SDE) -> tuple[GaussianMixture, SDE]:
    """Data and process for which x_1 follows the prior, as is assumed: the mean is 0, and VE goes far beyond."""
    centre = (UNEVEN.weights[:, None] * UNEVEN.means).sum(0)
    mixture = GaussianMixture(UNEVEN.weights, UNEVEN.means - centre, UNEVEN.stds)
    return mixture, VESDE(sigma_max=2000.0) if isinstance(sde, VESDE) else sde


@EACH_SDE
def test_exact_divergence_gives_the_exact_density(sde: SDE) -> None:
    mixture, sde = centred(sde)
    x = mixture.sample(8, torch.Generator().manual_seed(0))
    found = log_likelihood(mixture.as_model(sde), x, probes="exact", steps=24)
    torch.testing.assert_close(found.nats, mixture.log_density(x, sde, scalar(sde.t_min)), rtol=0, atol=1e-3)
    assert found.reliable
    assert found.bits_per_dim is None
    assert torch.equal(found.values, found.nats)


def test_the_toys_table_is_reproduced_by_the_ode() -> None:
    sde, generator = VESDE(), torch.Generator().manual_seed(2)
    for mixture in (TOY, RETAIN):
        x = RETAIN.sample(400, generator)
        mean, error = log_likelihood(mixture.as_model(sde), x, probes="exact", batch=400).mean()
        exact = mixture.log_density(x, sde, scalar(sde.t_min))
        assert abs(mean - exact.mean().item()) < 2e-3
        assert math.isclose(error, exact.std().item() / 20, rel_tol=0.05)


GENTLE = VESDE(sigma_min=0.1, sigma_max=5.0)


@cache
def converged() -> torch.Tensor:
    return log_likelihood(UNEVEN.as_model(GENTLE), points(4), solver="rk4", probes="exact", steps=80, check=False).nats


@pytest.mark.parametrize(
    ("solver", "clock", "order", "steps"),
    [
        ("euler", "log", 1, 30),
        ("heun", "log", 2, 12),
        ("rk4", "log", 4, 8),
        ("rk4", "atan", 4, 12),
        ("rk4", "rho", 4, 8),
        ("etdrk4", "log", 4, 6),
        ("etdrk4", "rho", 4, 6),
    ],
)
def test_each_solver_is_of_its_order(solver, clock, order: int, steps: int) -> None:
    options = {"solver": solver, "clock": clock, "probes": "exact", "check": False}
    errors = []
    for n in (steps, 2 * steps, 4 * steps):
        found = log_likelihood(UNEVEN.as_model(GENTLE), points(4), steps=n, **options)
        errors.append((found.nats - converged()).abs().mean().item())
    assert order - 0.5 < slope(errors) < order + 0.6, errors


def test_exponential_steps_are_exact_where_the_noise_is_constant() -> None:
    """One point: eps = (x - mean) / r is the same all along the path, and so is r times its divergence."""
    model, x = gaussian_model(VESDE(), (2,), std=1e-6), torch.tensor([[0.21, 0.19]], dtype=torch.float64)
    one, many = (log_likelihood(model, x, probes="exact", steps=n, check=False) for n in (1, 50))
    torch.testing.assert_close(one.nats, many.nats, rtol=1e-6, atol=1e-4)
    classical = log_likelihood(model, x, solver="rk4", probes="exact", steps=1, check=False)
    assert abs(float(classical.nats - many.nats)) > 0.1


@EACH_SDE
def test_dopri5_meets_its_tolerance(sde: SDE) -> None:
    model, x = UNEVEN.as_model(sde), points(4)
    reference = log_likelihood(model, x, probes="exact", steps=50, check=False).nats
    cost, doubled = [], []
    for tolerance in (1e-3, 1e-5):
        found = log_likelihood(model, x, solver="dopri5", probes="exact", rtol=tolerance, atol=tolerance)
        assert bool(((found.nats - reference).abs() < 20 * tolerance * found.dims).all())
        assert found.reliable
        assert bool(found.finished.all())
        cost.append(float(found.nfe.mean()))
        doubled.append(found.doubling.abs().max().item())
    assert cost[0] < cost[1]
    assert doubled[0] > 10 * doubled[1]


def test_each_image_has_its_own_steps() -> None:
    model, x = UNEVEN.as_model(VESDE()), points(7)
    x[3] = 30.0  # far from any data: more work, for itself alone
    whole = log_likelihood(model, x, solver="dopri5", probes="exact", check=False)
    assert len(whole.nfe.unique()) > 1
    for i in range(len(x)):
        alone = log_likelihood(model, x[i : i + 1], solver="dopri5", probes="exact", check=False)
        torch.testing.assert_close(alone.nats, whole.nats[i : i + 1], rtol=0, atol=1e-9)
        assert alone.nfe.tolist() == whole.nfe[i : i + 1].tolist()
    parts = log_likelihood(model, x, solver="dopri5", probes="exact", batch=3, check=False)
    torch.testing.assert_close(parts.nats, whole.nats, rtol=0, atol=1e-9)
    assert parts.nfe.tolist() == whole.nfe.tolist()


def test_finished_images_leave_the_batch() -> None:
    model, done = gaussian_model(VESDE(), (2,)), []
    x = torch.tensor([[0.1, 0.2], [200.0, -100.0], [0.5, 0.0]])
    found = log_likelihood(model, x, solver="dopri5", check=2, tick=done.append)
    assert isinstance(model.network, GaussianNetwork)
    again = log_likelihood(model, x[:2], solver="dopri5", check=False, rtol=1e-3 / 32, atol=1e-3 / 32)
    assert model.network.images == found.nfe.sum() + 2 * again.nfe.sum()
    assert math.isclose(sum(done), 3)


def test_an_image_that_needs_too_much_has_no_value() -> None:
    model, x = UNEVEN.as_model(VESDE()), points(4)
    free = log_likelihood(model, x, solver="dopri5", probes="exact", check=False)
    cap = int(free.nfe.max()) - 1
    capped = log_likelihood(model, x, solver="dopri5", probes="exact", max_nfe=cap, check=1)
    assert capped.finished.tolist() == (free.nfe <= cap).tolist()
    assert bool(capped.nats[capped.finished].isfinite().all())
    assert bool(capped.nats[~capped.finished].isnan().all())
    assert float(capped.nfe.max()) <= cap
    assert not capped.reliable


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in SDES),
        ("vp", {"probes": "gaussian"}),
        ("vp", {"probes": "fixed"}),
        ("vp", {"solver": "dopri5", "rtol": 1e-4, "atol": 1e-4}),
    ],
)
def test_the_density_is_met_within_an_honest_standard_error(name: str, options) -> None:
    mixture, sde = centred(SDES[name])
    x, copies = mixture.sample(8, torch.Generator().manual_seed(0)), 50
    options = {"steps": 20, "repeats": 2, "check": False, "batch": 400} | options
    found = log_likelihood(mixture.as_model(sde), x.repeat(copies, 1), **options)
    draws = found.nats.view(copies, len(x))
    scores = (draws.mean(0) - mixture.log_density(x, sde, scalar(sde.t_min))) / (draws.std(0) / math.sqrt(copies))
    assert float(scores.abs().max()) < 4, scores
    stated, seen = found.stderr.square().mean(), draws.var(0).mean()
    assert 0.7 < float(stated / seen) < 1.4
    assert bool(log_likelihood(mixture.as_model(sde), x, steps=4, check=False).stderr.isnan().all())


def test_images_are_dequantised_and_reported_in_bits_per_dim() -> None:
    """For Gaussian pixels E_u[-log N((pixel + u) / 128 - 1)] is a quadratic, and probes have no noise."""
    mean, std, sde, repeats = 0.1, 0.4, VPSDE(), 50
    images, model = pixels(5), gaussian_model(sde, (1, 4, 4), mean, std)
    found = log_likelihood(model, images, steps=48, repeats=repeats, check=False)
    t = scalar(sde.t_min)
    variance = float(sde.alpha(t) ** 2 * std**2 + sde.sigma(t) ** 2)
    offset = (images.double() + 0.5) / 128 - 1 - float(sde.alpha(t)) * mean
    nats = -0.5 * ((offset.square() + 1 / (12 * 128**2)) / variance + math.log(2 * math.pi * variance))
    exact = -nats.flatten(1).mean(1) / math.log(2) + 7
    assert found.bits_per_dim is not None
    assert bool(((found.bits_per_dim - exact).abs() < 4 * found.stderr + 1e-5).all())
    torch.testing.assert_close(found.bits_per_dim, -found.nats / (16 * math.log(2)) + 7)
    # The spread of the draws is that of u alone.
    spread = 2 * offset / 128 / (2 * variance * math.log(2) * math.sqrt(12))
    expected = spread.square().flatten(1).sum(1).sqrt() / 16 / math.sqrt(repeats)
    torch.testing.assert_close(found.stderr, expected, rtol=0.4, atol=0)


def test_an_image_does_not_depend_on_the_others_nor_on_the_batch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ScoreModel(nn.Sequential(), VESDE(), shape=(6,))
        model.network = MLP(dim=6, width=32)
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(3))
    whole = log_likelihood(model, x, steps=6, repeats=2)
    parts = log_likelihood(model, x, steps=6, repeats=2, batch=2)
    torch.testing.assert_close(parts.nats, whole.nats, rtol=0, atol=1e-4)
    torch.testing.assert_close(parts.doubling, whole.doubling, rtol=0, atol=1e-4)
    others = x.clone()
    others[1:] = 50  # far from any data: a step-size control shared by the batch would shrink
    alone = log_likelihood(model, others, steps=6, repeats=2)
    torch.testing.assert_close(alone.nats[0], whole.nats[0], rtol=0, atol=1e-4)
    assert not torch.allclose(log_likelihood(model, x, steps=6, repeats=2, seed=1).nats, whole.nats)


def test_doubling_compares_two_grids_on_the_same_points() -> None:
    model, x = UNEVEN.as_model(VESDE()), points(6)
    coarse = log_likelihood(model, x, probes="exact", steps=8, check=False)
    fine = log_likelihood(model, x, probes="exact", steps=16, check=False)
    full = log_likelihood(model, x, probes="exact", steps=8)
    some = log_likelihood(model, x, probes="exact", steps=8, check=2)
    assert [int(run.nfe.unique()) for run in (coarse, fine, full, some)] == [32, 64, 64, 32]
    torch.testing.assert_close(full.nats, fine.nats)
    torch.testing.assert_close(full.doubling, fine.nats - coarse.nats)
    torch.testing.assert_close(some.nats, coarse.nats)
    torch.testing.assert_close(some.doubling, full.doubling[:2])
    assert len(coarse.doubling) == 0
    assert not coarse.reliable  # nothing vouches for it
    images = pixels(4)
    checked = log_likelihood(gaussian_model(VESDE(), (1, 4, 4)), images, steps=6)
    plain = [
        log_likelihood(gaussian_model(VESDE(), (1, 4, 4)), images, steps=steps, check=False).values for steps in (6, 12)
    ]
    torch.testing.assert_close(checked.doubling, plain[1] - plain[0])


@pytest.mark.parametrize("factor", [3.0, 50.0, math.nan])
@pytest.mark.parametrize("probes", ["exact", "rademacher"])
def test_a_diverged_network_is_flagged(factor: float, probes) -> None:
    class Diverged(nn.Module):
        """Far too large, and rough in x, as a forget term without a bound leaves a network."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x, label):
            return factor * self.inner(x, label) + factor * (40 * x).sin()

    model = RETAIN.as_model(VESDE())
    x = TOY.sample(100, torch.Generator().manual_seed(4))
    assert log_likelihood(model, x, probes="exact").reliable
    model.network = Diverged(model.network)
    assert not log_likelihood(model, x, probes=probes).reliable


def test_a_merely_large_network_is_flagged_too() -> None:
    model = gaussian_model(VESDE(), (2,), factor=50.0)
    assert not log_likelihood(model, torch.zeros(20, 2) + 0.3, probes="exact").reliable


def test_reliability_weighs_the_mean_change_against_its_own_noise() -> None:
    def result(doubling: list[float], value: float = 3.0, dims: int = 1) -> Likelihood:
        values = torch.full((len(doubling),), value, dtype=torch.float64)
        change = torch.tensor(doubling, dtype=torch.float64)
        return Likelihood(
            nats=values, bits_per_dim=values, stderr=values, doubling=change, nfe=values, finished=values > 0, dims=dims
        )

    assert result([0.02, -0.01, 0.03, 0.0]).reliable
    assert not result([0.08, 0.07, 0.09, 0.08]).reliable
    assert result([0.08, 0.07, 0.09, 0.08], value=20.0).reliable  # within 1 %
    assert not result([3.0, -3.0, 2.9, -2.9]).reliable  # no mean change, but nothing is known
    assert not result([0.0, math.inf]).reliable
    assert not result([0.0, 0.0], value=math.nan).reliable


def test_evaluations_progress_and_mode() -> None:
    model = gaussian_model(VESDE(), (2,)).train()
    network, done = model.network, []
    assert isinstance(network, GaussianNetwork)
    found = log_likelihood(model, torch.zeros(10, 2), steps=3, repeats=2, check=5, batch=4, tick=done.append)
    assert found.nfe.tolist() == [12] * 10
    assert network.images == 2 * (10 * 12 + 5 * 24)
    assert math.isclose(sum(done), 10)
    assert model.training
    assert network.mean.grad is None
    assert not found.nats.requires_grad


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "1x4x4.*3x4x4"),
        (torch.zeros(2, 1, 8, 8), "1x4x4.*1x8x8"),
        (torch.zeros(1, 4, 4), "1x4x4"),
        (torch.zeros(0, 1, 4, 4), "got 0"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), "uint8"),
    ],
)
def test_images_of_another_kind_are_refused_before_any_work(images: torch.Tensor, words: str) -> None:
    model = gaussian_model(VESDE(), (1, 4, 4))
    with pytest.raises(UserError, match=words):
        log_likelihood(model, images)
    assert isinstance(model.network, GaussianNetwork)
    assert model.network.calls == 0


@pytest.mark.parametrize("bad", [{"steps": 0}, {"repeats": 0}, {"batch": 0}])
def test_counts_below_one_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        log_likelihood(gaussian_model(VESDE(), (2,)), torch.zeros(1, 2), **bad)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"probes": "gauss"}, "probes 'gauss' is unknown.*rademacher"),
        ({"solver": "rk45"}, "solver 'rk45' is unknown.*dopri5"),
        ({"clock": "t"}, "clock 't' is unknown.*log, atan, rho"),
        ({"solver": "dopri5", "probes": "rademacher"}, "dopri5 takes probes fixed or exact"),
        ({"solver": "dopri5", "rtol": 0.0}, "positive"),
        ({"solver": "dopri5", "max_nfe": 6}, "max_nfe"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bad, words: str) -> None:
    with pytest.raises(UserError, match=words):
        log_likelihood(gaussian_model(VESDE(), (2,)), torch.zeros(1, 2), **bad)


def test_a_model_of_diffusers_has_both_likelihoods(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    DDPMPipeline(network, DDPMScheduler(num_train_timesteps=60, beta_end=0.2)).save_pretrained(tmp_path / "pipeline")
    network.save_pretrained(tmp_path / "network")
    images = pixels(3, (1, 8, 8))
    for name, steps in (("pipeline", 60), ("network", 1000)):
        model = load(tmp_path / name)
        found = log_likelihood(model, images, steps=3)
        assert bool(found.values.isfinite().all())
        assert bool((found.stderr.isnan() & (found.nfe == 24)).all())
        bound = variational_bound(model, images, steps=4, batch=2)
        assert bool((bound.bits_per_dim > 0).all())
        assert bound.nfe == 5
        assert model.sde.steps == steps
