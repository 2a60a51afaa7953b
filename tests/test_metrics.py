"""Rates against Wilson's formula solved another way, the Fréchet distance against closed forms."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

from msgm.errors import UserError
from msgm.metrics.distances import frechet_distance
from msgm.metrics.judge import JUNK, Judge
from msgm.metrics.rates import Rate, wilson
from msgm.metrics.shares import judged_shares, unlearning_ratio
from msgm.model.precondition import Sample
from msgm.model.score import ScoreModel
from msgm.process.sde import VESDE
from msgm.sampling import Heun

Z = 1.959963984540054


def test_wilson_known_value() -> None:
    rate = wilson(10, 1000)
    assert rate.value == 0.01
    assert rate.low == pytest.approx(0.00544, abs=1e-5)
    assert rate.high == pytest.approx(0.01831, abs=1e-5)
    assert rate.interval == (rate.low, rate.high)


@pytest.mark.parametrize(("k", "n"), [(1, 3), (10, 1000), (150, 200), (9_999, 10_000)])
def test_wilson_limits_are_where_the_score_test_is_on_the_edge(k: int, n: int) -> None:
    rate = wilson(k, n)
    for limit in rate.interval:
        assert abs(rate.value - limit) / math.sqrt(limit * (1 - limit) / n) == pytest.approx(Z, rel=1e-9)


def test_wilson_at_the_ends() -> None:
    none, all_of_them = wilson(0, 100), wilson(100, 100)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(Z**2 / (100 + Z**2))
    assert (all_of_them.value, all_of_them.high) == (1, 1)
    assert all_of_them.low == pytest.approx(100 / (100 + Z**2))


def test_wilson_confidence_widens() -> None:
    assert wilson(5, 50, 0.99).low < wilson(5, 50).low < wilson(5, 50, 0.5).low < 0.1


@pytest.mark.parametrize(("k", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1, 5, 1.0)])
def test_wilson_refuses(k: int, n: int, confidence: float) -> None:
    with pytest.raises(UserError):
        wilson(k, n, confidence)


def test_rate_to_json() -> None:
    rate = wilson(1, 4)
    assert Rate(**json.loads(json.dumps(rate.to_dict()))) == rate


def test_shares_add_to_one_and_junk_is_not_retained() -> None:
    predicted = torch.tensor([3, 3, 7, JUNK, JUNK, JUNK, 0, 1, 2, 9])
    shares = judged_shares(predicted, {3, 7}, range(10))
    assert (shares.unlearning_ratio.value, shares.junk.value, shares.retained.value) == (0.3, 0.3, 0.4)
    assert shares.unlearning_ratio == wilson(3, 10)
    assert shares.junk == wilson(3, 10)
    assert shares.retained == wilson(4, 10)
    assert (shares.value, shares.interval) == (0.3, wilson(3, 10).interval)


def test_a_model_of_pure_junk_retains_nothing() -> None:
    shares = judged_shares(torch.full((50,), JUNK), {1}, (0, 1))
    assert (shares.value, shares.junk.value, shares.retained.value) == (0, 1, 0)


@pytest.mark.parametrize("forget", [set(), {10}, {3, 10}, {0, 1, 2}])
def test_forget_classes_that_the_judge_cannot_tell_are_refused(forget: set[int]) -> None:
    with pytest.raises(UserError, match="forget classes"):
        judged_shares(torch.tensor([0, 1]), forget, (0, 1, 2))


def test_shares_refuse_no_samples_and_strange_labels() -> None:
    with pytest.raises(UserError, match="no samples"):
        judged_shares(torch.tensor([], dtype=torch.int64), {1}, (0, 1))
    with pytest.raises(UserError, match=r"labels \[5\]"):
        judged_shares(torch.tensor([0, 5]), {1}, (0, 1))


class Dark(nn.Module):
    """A network whose images are all -0.5."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.full_like(x, -0.5)


class Brightness(Judge):
    """Judges by the mean: junk below -0.9, 0 below zero, 1 above."""

    def probabilities(self, x: Tensor, batch: int = 500) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([(mean < 0) & (mean > -0.9), mean >= 0, mean <= -0.9], dim=1).float()


@pytest.mark.parametrize("wrap", [False, True])
def test_unlearning_ratio_of_a_known_model(wrap: bool) -> None:
    model = ScoreModel(Dark(), VESDE(), shape=(1, 8, 8), precondition=Sample())
    judge = Brightness((0, 1), (1, 8, 8))
    shares = unlearning_ratio(Heun(model, steps=4) if wrap else model, judge, {0}, n=20, seed=1)
    assert (shares.value, shares.junk.value, shares.retained.value, shares.junk.n) == (1, 0, 0, 20)
    assert unlearning_ratio(model, judge, {1}, n=20).value == 0


def gaussian(n: int, mean: Tensor, root: Tensor, seed: int) -> Tensor:
    """n points whose sample mean and covariance are exactly ``mean`` and ``root root'``."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.cholesky(x.T @ x / (n - 1))
    return torch.linalg.solve_triangular(white, x.T, upper=False).T @ root.T + mean


def test_frechet_of_commuting_covariances() -> None:
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double())[0]
    first, second = torch.tensor([1.0, 2, 3, 0.5]).double(), torch.tensor([2.0, 2, 0.1, 4]).double()
    mean = torch.tensor([1.0, -1, 0, 2]).double()
    a = gaussian(50, torch.zeros(4).double(), turn @ first.diag(), 1)
    b = gaussian(70, mean, turn @ second.diag(), 2)
    exact = float(mean.square().sum() + (first - second).square().sum())
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(exact, rel=1e-10)


def test_frechet_of_covariances_that_do_not_commute() -> None:
    # In two dimensions tr (Sa Sb)^½ = √(tr Sa Sb + 2 √(det Sa det Sb)).
    one = torch.tensor([[2.0, 0.3], [-0.5, 1]]).double()
    two = torch.tensor([[0.4, 1.0], [0.2, -3]]).double()
    a, b = gaussian(30, torch.zeros(2).double(), one, 3), gaussian(30, torch.zeros(2).double(), two, 4)
    cov_a, cov_b = one @ one.T, two @ two.T
    cross = ((cov_a @ cov_b).trace() + 2 * (cov_a.det() * cov_b.det()).sqrt()).sqrt()
    assert frechet_distance(a, b) == pytest.approx(float(cov_a.trace() + cov_b.trace() - 2 * cross), rel=1e-10)


def test_frechet_of_equal_sets_is_zero() -> None:
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-9)


def test_frechet_with_fewer_samples_than_features() -> None:
    x = 100 * torch.rand(10, 128, generator=torch.Generator().manual_seed(0)).double()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 128, rel=1e-9)
    # Point masses: the distance of the means is all there is.
    assert frechet_distance(torch.zeros(2, 3), torch.ones(2, 3)) == pytest.approx(3)


def test_frechet_refuses() -> None:
    good = torch.zeros(4, 3)
    for bad in (torch.zeros(1, 3), torch.zeros(4), torch.full((4, 3), torch.nan)):
        with pytest.raises(UserError, match="features b"):
            frechet_distance(good, bad)
    with pytest.raises(UserError, match="same network"):
        frechet_distance(good, torch.zeros(4, 2))
