"""Draws of training times: marginals, strata, ranges and quantiles."""

import math

import pytest
import torch
from oracle import SDES

from msgm.process.sde import DDPM, SDE
from msgm.process.times import LogNormalClock, UniformClock, stratified, uniform

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
CLOCKS = pytest.mark.parametrize("clock", [UniformClock(), LogNormalClock()], ids=["uniform", "lognormal"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(n: int = 20_000) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


@pytest.mark.parametrize("n", [1, 7, 64])
def test_stratified_hits_each_cell_once(n: int) -> None:
    g = generator()
    for _ in range(50):
        u = stratified(n, g)
        assert u.shape == (n,) and float(u.min()) >= 0 and float(u.max()) < 1
        # In double: n u may round up to the next cell in single precision.
        assert (u.double() * n).floor().sort().values.tolist() == list(range(n))


@pytest.mark.parametrize("draw", [stratified, uniform])
def test_every_place_of_a_batch_is_uniform(draw) -> None:
    """One in each cell, but in random order: what the third image of a batch gets is uniform in [0, 1)."""
    g = generator(1)
    third = torch.stack([draw(8, g)[2] for _ in range(4000)]).double().sort().values
    # Kolmogorov-Smirnov, far in the tail.
    distance = (third - (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000).abs().max()
    assert float(distance) < 2.2 / math.sqrt(4000)


def test_stratified_varies_less_than_independent() -> None:
    g = generator(2)
    spread = {d: torch.stack([d(32, g).mean() for _ in range(300)]).std() for d in (stratified, uniform)}
    assert spread[stratified] < spread[uniform] / 10


def test_draws_follow_the_generator() -> None:
    for draw in (stratified, uniform):
        assert torch.equal(draw(16, generator(3)), draw(16, generator(3)))
        assert not torch.equal(draw(16, generator(3)), draw(16, generator(4)))


@EACH_SDE
@CLOCKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clocks_stay_within_the_training_range(sde: SDE, clock, dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1e-7, 0.3 - 1e-7, 0.3, 0.3 + 1e-7, 1 - 1e-6], dtype=dtype)
    t = clock(torch.cat([dense().to(dtype), ends]), sde)
    assert t.dtype == dtype and bool(torch.isfinite(t).all())
    slack = 1e-6 if dtype == torch.float32 else 1e-9
    assert float(t.min()) >= sde.t_train - slack and float(t.max()) <= 1


@CLOCKS
def test_ddpm_times_are_its_steps(clock) -> None:
    for sde in (DDPM(), DDPM(steps=50)):
        steps = clock(dense().float(), sde) * (sde.steps - 1)
        assert float((steps - steps.round()).abs().max()) < 1e-4
        assert float(steps.min()) >= 0 and float(steps.max()) <= sde.steps - 1


def test_uniform_clock_is_uniform_in_t() -> None:
    u = dense()
    for name, sde in SDES.items():
        t = UniformClock()(u, sde)
        if name == "ddpm":
            # Each of the steps gets the same share, its first and last too.
            assert (t * 999).round().long().bincount(minlength=1000).tolist() == [20] * 1000
        else:
            torch.testing.assert_close(t, 1e-5 + (1 - 1e-5) * u)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_lognormal_clocks_quantiles(name: str) -> None:
    sde, clock = SDES[name], LogNormalClock(spread=0.0)
    level = sde.log_ratio(clock(dense(), sde)).sort().values
    n = len(level)
    assert float(level[n // 2]) == pytest.approx(-0.9, abs=1e-3)  # the median of sigma/alpha is exp(mean)
    assert float(level[int(n * 0.8413447)]) == pytest.approx(-0.9 + 1.2, abs=2e-3)
    assert float(level[int(n * 0.1586553)]) == pytest.approx(-0.9 - 1.2, abs=2e-3)
    assert float(level.mean()) == pytest.approx(-0.9, abs=0.01)


def test_a_share_covers_the_whole_range_of_levels() -> None:
    sde, clock = SDES["ve"], LogNormalClock()
    level = sde.log_ratio(clock(dense(), sde))
    low, high = math.log(0.01), math.log(50)
    share = (dense() < 0.3).double().mean()
    spread = level[dense() < 0.3]
    expected = low + (high - low) * (torch.arange(len(spread), dtype=torch.float64) + 0.5) / len(spread)
    torch.testing.assert_close(spread.sort().values, expected, rtol=0, atol=2e-3)
    assert float(share) == pytest.approx(0.3)
    assert float(level[dense() >= 0.3].median()) == pytest.approx(-0.9, abs=2e-3)
