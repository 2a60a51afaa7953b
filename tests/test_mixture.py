"""The mixture's closed forms against autograd, quadrature, simulation and the printed values of the toy."""

import math

import pytest
import torch
from oracle import RETAIN, SDES, TOY, UNEVEN, scalar

from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.process.sde import SDE

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))


def points(n: int = 40) -> torch.Tensor:
    return 1.5 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def times(sde: SDE, n: int = 40) -> torch.Tensor:
    return torch.linspace(max(sde.t_min, 0.02), 0.6, n, dtype=torch.float64)


def hessian(x: torch.Tensor, sde: SDE, t: torch.Tensor) -> torch.Tensor:
    rows = [
        torch.autograd.functional.hessian(lambda p, s=s: UNEVEN.log_density(p[None], sde, s).sum(), point)
        for point, s in zip(x, t, strict=True)
    ]
    return torch.stack(rows)


@EACH_SDE
def test_score_is_the_gradient_of_the_log_density(sde: SDE) -> None:
    x, t = points().requires_grad_(), times(sde)
    (gradient,) = torch.autograd.grad(UNEVEN.log_density(x, sde, t).sum(), x)
    torch.testing.assert_close(UNEVEN.score(x, sde, t), gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(UNEVEN.noise(x, sde, t), -sde.sigma(t)[:, None] * gradient, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(UNEVEN.log_density(x).sum(), x)
    torch.testing.assert_close(UNEVEN.score(x), gradient, rtol=1e-9, atol=1e-9)


@EACH_SDE
def test_divergence_and_second_moment_follow_from_the_hessian(sde: SDE) -> None:
    x, t = points(12), times(sde, 12)
    curvature, sigma = hessian(x, sde, t), sde.sigma(t)[:, None, None]
    trace = curvature.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(UNEVEN.divergence(x, sde, t), trace, rtol=1e-8, atol=1e-8)
    # Second-order Tweedie: Cov[eps | x_t] = I + sigma^2 Hessian log p_t.
    noise = UNEVEN.noise(x, sde, t)
    expected = torch.eye(3, dtype=torch.float64) + sigma**2 * curvature + noise[:, :, None] * noise[:, None]
    torch.testing.assert_close(UNEVEN.noise_second_moment(x, sde, t), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["ve", "subvp"])
def test_moments_of_the_noise_against_importance_sampling(name: str) -> None:
    sde, t = SDES[name], scalar(0.45)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = sde.marginal(torch.tensor([[0.4, 0.1, 0.6]], dtype=torch.float64), t, torch.ones(1, 3, dtype=torch.float64))
    clean = UNEVEN.sample(400_000, torch.Generator().manual_seed(1))
    eps = (x - alpha * clean) / sigma
    weights = (-0.5 * eps.square().sum(1)).softmax(0)
    outer = eps[:, :, None] * eps[:, None]
    for values, exact in (
        (eps, UNEVEN.noise(x, sde, t)[0]),
        (outer, UNEVEN.noise_second_moment(x, sde, t)[0]),
    ):
        w = weights.view(-1, *[1] * (values.ndim - 1))
        mean = (w * values).sum(0)
        error = (w * (values - mean)).square().sum(0).sqrt()
        assert bool(((mean - exact).abs() < 4.5 * error).all())


def test_density_integrates_to_one_and_weights_are_normalised() -> None:
    mixture = GaussianMixture([4, 2, 4], [[-2, -2], [0, 0], [2, 2]])
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    cell = float(axis[1] - axis[0]) ** 2
    assert math.isclose(float(mixture.log_density(grid).exp().sum()) * cell, 1, rel_tol=1e-9)
    noised = mixture.log_density(grid, SDES["vp"], scalar(0.3)).exp().sum() * cell
    assert math.isclose(float(noised), 1, rel_tol=1e-9)
    torch.testing.assert_close(mixture.log_density(grid), TOY.log_density(grid))


def test_samples_have_the_components_shares_means_and_stds() -> None:
    x = UNEVEN.sample(100_000, torch.Generator().manual_seed(2))
    mean = (UNEVEN.weights[:, None] * UNEVEN.means).sum(0)
    second = (UNEVEN.weights[:, None] * (UNEVEN.means.square() + UNEVEN.stds[:, None].square())).sum(0)
    std = (second - mean.square()).sqrt()
    assert bool(((x.mean(0) - mean).abs() < 4.5 * std / math.sqrt(len(x))).all())
    torch.testing.assert_close(x.std(0), std, rtol=0.01, atol=0)
    share = UNEVEN.component_posterior(x).mean(0)
    torch.testing.assert_close(share, UNEVEN.weights, rtol=0, atol=0.006)


@EACH_SDE
def test_as_model_is_the_exact_noise(sde: SDE) -> None:
    x, t = points(), times(sde)
    model = UNEVEN.as_model(sde)
    assert model.shape == (3,)
    torch.testing.assert_close(model.noise(x, t), UNEVEN.noise(x, sde, t), rtol=1e-9, atol=1e-9)


def test_the_toys_exact_values() -> None:
    """The paper's Table 1, exact, in its unit nats / (2 ln 2) + 8; the share of p_g nearest the middle."""
    generator = torch.Generator().manual_seed(3)
    retain = RETAIN.sample(200_000, generator)
    forget = GaussianMixture([1.0], [[0.0, 0.0]]).sample(200_000, generator)

    def table(mixture: GaussianMixture, x: torch.Tensor) -> float:
        return -float(mixture.log_density(x).mean()) / (2 * math.log(2)) + 8

    assert abs(table(TOY, retain) - 10.62) < 0.015
    assert abs(table(TOY, forget) - 10.79) < 0.015
    assert abs(table(RETAIN, retain) - 10.54) < 0.015
    assert abs(table(RETAIN, forget) - 11.72) < 0.015
    middle = torch.cdist(retain, TOY.means).argmin(1) == 1
    assert abs(float(middle.double().mean()) - 0.0783) < 0.003


def test_bad_mixtures_are_refused() -> None:
    with pytest.raises(UserError, match="means"):
        GaussianMixture([0.5, 0.5], [[0.0, 0.0]])
    with pytest.raises(UserError, match="positive"):
        GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [1.0, 0.0])
