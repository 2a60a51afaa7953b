"""How well numbers tell two sets apart: against SciPy, published intervals, and coverage by simulation."""

import pytest
import torch
from scipy.stats import mannwhitneyu, norm

from msgm.errors import UserError
from msgm.metrics.measured import Measured, Quantity
from msgm.metrics.separation import area, area_interval, caught, difference, separated

QUANTITY = Quantity(name="AUC", about="")


def test_the_area_is_mann_and_whitneys() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 12, (n,), generator=generator).double() for n in (60, 45))
    expected = mannwhitneyu(a.numpy(), b.numpy()).statistic / (60 * 45)
    assert area(a, b) == pytest.approx(expected, abs=1e-12)
    assert area(b, a) == pytest.approx(1 - expected, abs=1e-12)
    assert area(a, a) == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [torch.tensor([1.0]), torch.tensor([1.0, torch.inf]), torch.zeros(2, 2)])
def test_areas_need_finite_numbers(bad: torch.Tensor) -> None:
    with pytest.raises(UserError, match="finite numbers"):
        area(bad, torch.arange(3.0))


def test_its_interval_solves_its_equation() -> None:
    value, n, m = 0.8, 30, 40
    for end in area_interval(value, n, m):
        size = (n + m) / 2 - 1
        variance = end * (1 - end) * (1 + size * (1 - end) / (2 - end) + size * end / (1 + end)) / (n * m)
        assert abs(value - end) == pytest.approx(1.959964 * variance**0.5, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_its_interval_does_not_collapse(value: float) -> None:
    low, high = area_interval(value, 20, 20)
    assert 0.05 < high - low < 0.3
    assert low <= value <= high


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_its_interval_covers(shift: float) -> None:
    generator, truth, hits = torch.Generator().manual_seed(1), norm.cdf(shift / 2**0.5), 0
    for _ in range(400):
        positive = torch.randn(50, generator=generator) + shift
        measured = separated(QUANTITY, positive, torch.randn(40, generator=generator))
        hits += measured.low <= truth <= measured.high
    # 95 % of 400 and three standard deviations of that below and above.
    assert 367 <= hits <= 396


def test_the_share_caught_at_few_false_alarms() -> None:
    negative = torch.arange(100.0)
    # One of a hundred may pass, so the threshold is the second largest, 98.
    measured = caught(QUANTITY, torch.tensor([98.0, 98.5, 99.5, 3.0]), negative)
    assert measured.value == 0.5
    assert caught(QUANTITY, torch.full((5,), 99.0), torch.arange(50.0) + 50).value == 0


def test_differences_are_newcombes() -> None:
    """Newcombe 1998, method 10, example (a): 56/70 against 48/80."""
    share = Quantity(name="share", about="", unit="%")
    change, low, high = difference(share.share(56, 70), share.share(48, 80))
    assert change == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_what_has_no_interval_is_not_compared() -> None:
    with pytest.raises(UserError, match="no value with an interval"):
        difference(Measured(name="a", value=1.0), Measured(name="b", value=1.0, low=0.0, high=2.0))
