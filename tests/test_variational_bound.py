"""DDPM's variational bound against its closed form for Gaussian pixels, and against the entropy it bounds."""

import math

import numpy as np
import pytest
import torch
from oracle import GaussianNetwork, gaussian_model
from torch import Tensor

from msgm.errors import UserError
from msgm.likelihood import variational_bound
from msgm.process.sde import DDPM, VPSDE

MEAN, STD, SHAPE = 0.1, 0.3, (1, 4, 4)
SDE = DDPM(steps=20, beta_start=1e-3, beta_end=0.6)


def gaussian_pixels(n: int) -> Tensor:
    """Pixels of N(MEAN, STD^2): the bin that a number falls into, the outer bins without end."""
    noise = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((MEAN + STD * noise + 1) * 128).floor().clamp(0, 255).to(torch.uint8)


def log_mass(images: Tensor, mean: Tensor, std: float) -> Tensor:
    """log P(bin of each pixel) under N(mean, std^2)."""
    x = (images.double() + 0.5) / 128 - 1
    low = ((x - 1 / 256 - mean) / std).where(images > 0, -torch.inf)
    high = ((x + 1 / 256 - mean) / std).where(images < 255, torch.inf)
    left = low + high < 0  # the lower tail is the exact one
    high, low = torch.where(left, high, -low), torch.where(left, low, -high)
    return ((torch.erfc(-high / 2**0.5) - torch.erfc(-low / 2**0.5)) / 2).log()


def exact_bound(images: Tensor, variance: str) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms for the exact denoiser of N(MEAN, STD^2), in bits/dim, written out from Ho et al. 2020.

    It is linear, D = MEAN + g (x_k - alpha MEAN), so that x - D is Gaussian given x; the decoder by quadrature.
    """
    beta = torch.linspace(SDE.beta_start, SDE.beta_end, SDE.steps, dtype=torch.float64)
    bar = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    posterior = beta * (1 - before) / (1 - bar)
    gain = bar.sqrt() * STD**2 / (bar * STD**2 + 1 - bar)
    x = (images.double().flatten(1) + 0.5) / 128 - 1
    diffusion = torch.zeros(len(x), dtype=torch.float64)
    for k in range(1, SDE.steps):
        gap = ((x - MEAN) * (1 - gain[k] * bar[k].sqrt())).square() + gain[k] ** 2 * (1 - bar[k])
        reverse = posterior[k] if variance == "small" else beta[k]
        shrink = posterior[k] / reverse
        square = before[k] * beta[k] ** 2 / (1 - bar[k]) ** 2 / reverse * gap
        diffusion += 0.5 * (square + shrink - 1 - shrink.log()).sum(1)
    prior = 0.5 * (bar[-1] * x.square() - bar[-1] - (1 - bar[-1]).log()).sum(1)
    decoder = torch.zeros_like(x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        noised = bar[0].sqrt() * x + (1 - bar[0]).sqrt() * node
        mean = MEAN + gain[0] * (noised - bar[0].sqrt() * MEAN)
        decoder -= weight * log_mass(images.flatten(1), mean, float(posterior[1].sqrt()))
    unit = x.shape[1] * math.log(2)
    return prior / unit, diffusion / unit, decoder.sum(1) / unit


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [None, 9])
def test_all_terms_are_those_of_the_closed_form(variance, steps: int | None) -> None:
    images, repeats = gaussian_pixels(6), 25
    images[0, 0, 0], images[0, 0, 1] = 0, 255  # the outer bins
    model = gaussian_model(SDE, SHAPE, MEAN, STD)
    found = variational_bound(model, images, variance=variance, clip=False, steps=steps, repeats=repeats)
    prior, diffusion, decoder = exact_bound(images, variance)
    torch.testing.assert_close(found.prior, prior)
    scores = (found.bits_per_dim - (prior + diffusion + decoder)) / found.stderr
    assert float(scores.abs().max()) < 4, scores
    assert 0.1 < float(scores.square().mean()) < 3.5, scores
    torch.testing.assert_close(found.diffusion.mean(), diffusion.mean(), rtol=0.1 if steps is None else 0.3, atol=0)
    torch.testing.assert_close(found.decoder.mean(), decoder.mean(), rtol=0.1, atol=0)


def test_it_lies_above_the_entropy_and_comes_down_with_more_steps() -> None:
    images = gaussian_pixels(60)
    entropy = -float(log_mass(images, torch.tensor(MEAN), STD).mean()) / math.log(2)
    bounds = []
    for steps in (20, 100):
        sde = DDPM(steps=steps, beta_start=0.1 / steps, beta_end=min(20 / steps, 0.9))
        found = variational_bound(gaussian_model(sde, SHAPE, MEAN, STD), images, variance="large", clip=False)
        bounds.append(found.mean()[0])
    assert entropy < bounds[1] < bounds[0] < entropy + 0.3


def test_clipping_holds_the_image_to_its_range() -> None:
    images = gaussian_pixels(4)
    wild = gaussian_model(SDE, SHAPE, MEAN, STD, factor=40.0)
    assert variational_bound(wild, images).mean()[0] < variational_bound(wild, images, clip=False).mean()[0] / 10


def test_images_have_their_own_noise_whatever_the_batch() -> None:
    images, model, done = gaussian_pixels(5), gaussian_model(SDE, SHAPE, MEAN, STD), []
    whole = variational_bound(model, images, steps=7)
    parts = variational_bound(model, images, steps=7, batch=2, tick=done.append)
    torch.testing.assert_close(parts.bits_per_dim, whole.bits_per_dim)
    torch.testing.assert_close(parts.stderr, whole.stderr)
    assert math.isclose(sum(done), 5)
    assert whole.nfe == 8
    assert isinstance(model.network, GaussianNetwork)
    assert model.network.images == 2 * 2 * 5 * 8
    assert bool(variational_bound(model, images, steps=7, repeats=1).stderr.isnan().all())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"model": gaussian_model(VPSDE(), SHAPE)}, "DDPM.*VPSDE"),
        ({"images": torch.zeros(2, *SHAPE)}, "uint8"),
        ({"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "1x4x4"),
        ({"variance": "learned"}, "small, large"),
        ({"steps": 20}, "1 to 19"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_what_has_no_bound_is_refused(bad, words: str) -> None:
    given = {"model": gaussian_model(SDE, SHAPE), "images": gaussian_pixels(2)} | bad
    with pytest.raises(UserError, match=words):
        variational_bound(**given)
