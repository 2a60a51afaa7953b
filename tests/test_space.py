"""Between pixels and models: the formula, exactly undone; other spaces; what one is worth in bits/dim."""

import math

import pytest
import torch
from oracle import gaussian_model

from msgm.errors import UserError
from msgm.likelihood import log_likelihood
from msgm.model.space import Space
from msgm.process.sde import VESDE

SPACE = Space()
UNIT = Space(scale=1 / 256, shift=0)
"""Of the models that take pixels in [0, 1)."""


def test_every_pixel_value_comes_back_whatever_u_is() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    ends = torch.tensor([0, 1, 2**15, 2**16 - 1]) / 2**16
    for u in ends:
        assert torch.equal(SPACE.to_pixels((values.float() + u) / 128 - 1), values)
    for seed in range(3):
        many = values.repeat(4000, 1)
        x = SPACE.to_model(many, torch.Generator().manual_seed(seed))
        assert x.dtype == torch.float32
        assert x.min() >= -1
        assert x.max() < 1
        assert torch.equal(SPACE.to_pixels(x), many)
    assert torch.equal(SPACE.to_pixels(SPACE.to_model(values)), values)


def test_model_space_is_the_formula() -> None:
    values = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)
    assert SPACE.to_model(values).tolist() == [-1 + 1 / 256, -1 + 3 / 256, 1 / 256, 1 - 1 / 256]
    x = SPACE.to_model(torch.full((200_000,), 7, dtype=torch.uint8), torch.Generator().manual_seed(0))
    u = (x + 1) * 128 - 7
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / 200_000) ** 0.5
    assert abs(u.var() - 1 / 12) < 1e-3
    again = SPACE.to_model(torch.full((200_000,), 7, dtype=torch.uint8), torch.Generator().manual_seed(0))
    assert torch.equal(x, again)


def test_pixels_outside_model_space_are_clamped() -> None:
    assert SPACE.to_pixels(torch.tensor([-50.0, -1.0, -1e-9, 0.0, 1.0, 50.0])).tolist() == [
        0,
        0,
        128,
        128,
        255,
        255,
    ]
    assert SPACE.to_pixels(torch.tensor([-1 / 128, 1 / 128], dtype=torch.float64)).tolist() == [127, 129]
    with pytest.raises(UserError, match=r"images must be uint8, not torch\.float32"):
        SPACE.to_model(torch.zeros(1))


@pytest.mark.parametrize("space", [UNIT, Space(scale=1 / 64, shift=-2.0), Space(scale=2, shift=0)], ids=str)
def test_other_spaces_are_undone_exactly(space: Space) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert space.to_model(values).tolist() == [(p + 0.5) * space.scale + space.shift for p in range(256)]
    many = values.repeat(1000, 1)
    x = space.to_model(many, torch.Generator().manual_seed(0))
    low, high = space.range
    assert low <= x.min() and x.max() < high
    assert torch.equal(space.to_pixels(x), many)
    # The same points in another space, and back.
    assert torch.equal(SPACE.to_pixels(space.moved(x, SPACE)), many)
    torch.testing.assert_close(SPACE.moved(space.moved(x, SPACE), space), x, rtol=0, atol=0)


def test_the_offset_of_bits_per_dim() -> None:
    assert SPACE.bits_offset == 7 and UNIT.bits_offset == 8 and SPACE.range == (-1, 1) and UNIT.range == (0, 1)


@pytest.mark.parametrize(("scale", "shift"), [(0, 0), (-1, 0), (math.inf, 0), (1, math.nan), ("1", 0), (1, None)])
def test_a_space_that_is_none_is_refused(scale, shift) -> None:
    with pytest.raises(UserError, match="scale"):
        Space(scale=scale, shift=shift)


def test_bits_per_dim_are_those_of_the_pixels_whatever_the_space() -> None:
    """The same Gaussian of pixels and the same process, all of it in [-1, 1) and at half the size."""
    pixels = torch.randint(0, 256, (6, 1, 3, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    wide = gaussian_model(VESDE(), (1, 3, 3), mean=0.2, std=0.5)
    half = gaussian_model(VESDE(sigma_min=0.005, sigma_max=25.0), (1, 3, 3), mean=0.1, std=0.25)
    half.space = Space(scale=1 / 256, shift=-0.5)
    found = [log_likelihood(model, pixels, steps=8, check=False).bits_per_dim for model in (wide, half)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)
    # Of the pixels themselves: a step of 1/128 and one of 1/256 hold the same mass.
    x = wide.space.to_model(pixels).double()
    exact = 7 - torch.distributions.Normal(0.2, 0.5).log_prob(x).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(found[0], exact, rtol=0, atol=0.05)
