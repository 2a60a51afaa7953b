"""Filters against closed forms: on Gaussian mixtures, and on data sets whose exact denoiser is known."""

import math
from collections.abc import Callable

import pytest
import torch
from oracle import RETAIN, SDES, TOY, UNEVEN, scalar
from tiny import tiny_model
from torch import Tensor

from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.formats import save
from msgm.likelihood import log_likelihood
from msgm.model.score import ScoreModel
from msgm.process.posterior import exact_denoiser
from msgm.process.sde import SDE, VESDE, expand
from msgm.sampling import Heun
from msgm.sampling.filters import FILTERS, Contrast, Filter, Guided, Repel, SafeDenoiser, neighbour_distance

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
EVERY = pytest.mark.parametrize("name", FILTERS)


def noised(mixture: GaussianMixture, sde: SDE, n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    t = torch.linspace(max(sde.t_min, 0.02), 1, n, dtype=torch.float64)
    clean = mixture.sample(n, generator)
    return sde.marginal(clean, t, torch.randn(clean.shape, generator=generator, dtype=torch.float64)), t


def points(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cloud(images: Tensor, sde: SDE) -> ScoreModel:
    """The exact model of the distribution that is one of the images (N, d), each as likely as the others."""
    return GaussianMixture(torch.ones(len(images)), images, 1e-7).as_model(sde)


def build(name: str, model: ScoreModel) -> Filter:
    """A filter that is at work everywhere, on a model of any shape."""
    dtype = next(model.parameters()).dtype
    forget, retained = (points(9, model.shape, seed).to(dtype) for seed in (1, 2))
    if name == "repel":
        return Repel(model, forget, radius=3 * neighbour_distance(forget))
    if name == "safe":
        return SafeDenoiser(model, forget, retained, low=0)
    if name == "guided":
        return Guided(model, lambda x: -(x - 1).flatten(1).square().sum(1) / 50, strength=0.1)
    return Contrast(model, Shrunk(model, 1), strength=0.7)


class Shrunk(Filter):
    """Every denoised image made fainter."""

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.9 * self.network.denoise(x, t)


# ---------------------------------------------------------------------------------------------------- each its formula


@EACH_SDE
def test_contrast_is_the_score_of_a_ratio_of_densities(sde: SDE) -> None:
    x, t = noised(TOY, sde)
    model = Contrast(RETAIN.as_model(sde), TOY.as_model(sde), strength=0.6)
    point = x.clone().requires_grad_()
    log_density = 1.6 * RETAIN.log_density(point, sde, t) - 0.6 * TOY.log_density(point, sde, t)
    (score,) = torch.autograd.grad(log_density.sum(), point)
    torch.testing.assert_close(model.score(x, t), score, rtol=1e-7, atol=1e-7)


@EACH_SDE
def test_safe_denoiser_of_all_images_is_the_exact_denoiser_of_the_retained(sde: SDE) -> None:
    forget, retained = points(5, (3,), 1), points(8, (3,), 2)
    everything = torch.cat([forget, retained])
    x, t = noised(GaussianMixture(torch.ones(13), everything, 1e-7), sde)
    ratio = sde.log_ratio(t).exp()
    keep = ratio > 0.3  # below, the odds are of 1e-100 and of 1e100
    x, t, ratio = x[keep], t[keep], ratio[keep]
    exact = exact_denoiser(x / expand(sde.alpha(t), x), ratio, retained)
    model = SafeDenoiser(cloud(everything, sde), forget, retained, strength=1, cap=math.inf, low=0)
    assert len(x) > 10
    torch.testing.assert_close(model.denoise(x, t), exact, rtol=1e-5, atol=1e-5)


def test_safe_denoiser_by_hand_with_its_cap_and_window() -> None:
    """One forget image at 1 and two retained ones at -1 and 2, in one dimension."""
    sde = VESDE()
    sigma = torch.tensor([0.4, 0.5, 2.0], dtype=torch.float64)
    t, x = sde.time(sigma.log()), torch.tensor([[0.9], [0.9], [0.9]], dtype=torch.float64)
    parts = [torch.tensor(values, dtype=torch.float64)[:, None] for values in ([1.0], [-1.0, 2.0])]
    clean = TOY_1D.as_model(sde).denoise(x, t)
    kernel = [(-((x - part.T) ** 2) / (2 * sigma[:, None] ** 2)).exp().sum(1, keepdim=True) for part in parts]
    odds = kernel[0] / kernel[1]
    assert odds[1] > 3 > odds[2]
    expected = clean + 0.5 * torch.stack([0 * odds[0], 0 * odds[1] + 3, odds[2]]) * (clean - 1)
    model = SafeDenoiser(TOY_1D.as_model(sde), *parts, strength=0.5, cap=3, low=0.45)
    torch.testing.assert_close(model.denoise(x, t), expected, rtol=1e-9, atol=1e-9)


TOY_1D = GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [0.5, 0.8])


@EACH_SDE
def test_guidance_by_the_exact_posterior_is_the_exact_retained_score(sde: SDE) -> None:
    """All data are one Gaussian, so that x_t is known from D(x_t); the retained part of them is any mixture."""
    everything = GaussianMixture([1.0], [[0.0, 0.0, 0.0]], 2.0)
    x, t = noised(UNEVEN, sde)
    for point, time in zip(x[:, None], t, strict=True):
        alpha, sigma = sde.alpha(time), sde.sigma(time)

        def log_retain(clean: Tensor, time: Tensor = time, alpha: Tensor = alpha, sigma: Tensor = sigma) -> Tensor:
            back = (
                clean * (4 * alpha**2 + sigma**2) / (4 * alpha)
            )  # the inverse of D(x) = 4 alpha x / (4 alpha^2 + sigma^2)
            return UNEVEN.log_density(back, sde, time) - everything.log_density(back, sde, time)

        model = Guided(everything.as_model(sde), log_retain, strength=1)
        torch.testing.assert_close(model.score(point, time), UNEVEN.score(point, sde, time), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("strength", [1.0, 1.6])
def test_repellency_pushes_along_the_radius(strength: float) -> None:
    sde = VESDE()
    centre = torch.zeros(1, 2, 2, dtype=torch.float64) + 0.3
    direction = points(4, (2, 2))
    direction = direction / expand(direction.flatten(1).norm(dim=1), direction)
    distance = torch.tensor([0.2, 1.0, 1.99, 2.01], dtype=torch.float64)
    clean = centre + expand(distance, direction) * direction
    model = Repel(Constant(clean, sde), centre, radius=2.0, strength=strength)
    moved = model.denoise(torch.randn_like(clean), scalar(0.5)) - centre
    # From d to d + strength (2 - d) where d < 2: to the surface for 1, beyond it for more; the rest stays.
    wanted = distance + strength * (2 - distance).clamp(min=0)
    torch.testing.assert_close(moved, expand(wanted, direction) * direction, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved[3] + centre[0], clean[3], rtol=0, atol=0)


def test_repellency_adds_up_over_images_and_survives_being_one_of_them() -> None:
    sde, images = VESDE(), torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    clean = torch.tensor([[1.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    model = Repel(Constant(clean, sde), images, radius=2.5, strength=1.0)
    # 1.5 away from the first, 0.5 from the second, out of the third's reach; on the third: no direction, no push.
    expected = torch.tensor([[1.0 + 1.5 - 0.5, 0.0], [0.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(model.denoise(clean, scalar(0.5)), expected, rtol=1e-9, atol=1e-9)


class Constant(ScoreModel):
    """A model that denoises whatever it is shown to the same images."""

    def __init__(self, clean: Tensor, sde: SDE) -> None:
        super().__init__(torch.nn.Linear(1, 1, dtype=torch.float64), sde, shape=tuple(clean.shape[1:]))
        self.clean = clean

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.clean


def test_the_radius_is_the_distance_between_neighbours() -> None:
    images = torch.tensor([0.0, 1.0, 3.0, 3.5, 10.0, 10.0])[:, None]
    assert neighbour_distance(images) == pytest.approx(NEIGHBOUR)
    assert Repel(Constant(images, VESDE()), images).radius == pytest.approx(NEIGHBOUR)


NEIGHBOUR = 0.875


# ------------------------------------------------------------------------------------------------- what all share


@EVERY
@EACH_SDE
def test_noise_score_and_denoised_image_agree(name: str, sde: SDE) -> None:
    x, t = noised(UNEVEN, sde)
    model = build(name, UNEVEN.as_model(sde))
    alpha, sigma, clean = expand(sde.alpha(t), x), expand(sde.sigma(t), x), model.denoise(x, t)
    assert not torch.allclose(clean, UNEVEN.as_model(sde).denoise(x, t), atol=1e-3)
    torch.testing.assert_close(model.noise(x, t), (x - alpha * clean) / sigma)
    torch.testing.assert_close(model.score(x, t), (alpha * clean - x) / sigma**2)
    torch.testing.assert_close(model(x, t), model.noise(x, t))


@EVERY
def test_an_image_does_not_depend_on_those_beside_it(name: str) -> None:
    sde = SDES["vp"]
    x, t = noised(UNEVEN, sde)
    model = build(name, UNEVEN.as_model(sde))
    together = model.noise(x, t)
    alone = torch.cat([model.noise(x[k : k + 1], t[k]) for k in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-9)


@EVERY
@pytest.mark.parametrize("kind", ["ve", "ddpm"])
def test_images_are_sampled_and_no_gradient_leaks(name: str, kind: str) -> None:
    inner = tiny_model(SDES[kind])
    model = build(name, inner)
    x = Heun(model, steps=3).sample(2)
    assert x.shape == (2, *inner.shape)
    assert not x.requires_grad
    plain = Heun(inner, steps=3).sample(2)
    assert bool(x.isfinite().all()) and not torch.allclose(x, plain)
    noise = model.eval().noise(x, scalar(0.5))  # as in training: the graph is that of the network's weights
    noise.square().mean().backward()
    assert all(weight.grad is not None for weight in inner.network.parameters() if weight.requires_grad)
    inner.zero_grad(set_to_none=True)
    with torch.no_grad():
        assert not model.noise(x, scalar(0.5)).requires_grad
    assert all(weight.grad is None for weight in model.parameters())


@EVERY
def test_the_likelihood_takes_a_filter(name: str) -> None:
    """The divergence is that of the filtered field: exact probes against finite differences of the noise."""
    sde = VESDE()
    model = build(name, UNEVEN.as_model(sde))
    x, t = noised(UNEVEN, sde, 8)
    x = x.requires_grad_()
    noise, h = model.noise(x, t), 1e-6
    exact = torch.stack([torch.autograd.grad(noise[:, j].sum(), x, retain_graph=True)[0][:, j] for j in range(3)], 1)
    step = h * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        difference = [(model.noise(x + e, t) - model.noise(x - e, t))[:, j] / (2 * h) for j, e in enumerate(step)]
    torch.testing.assert_close(exact, torch.stack(difference, 1), rtol=1e-4, atol=1e-5)
    found = log_likelihood(model, x.detach(), steps=4, check=False, probes="exact")
    assert bool(found.nats.isfinite().all())


def test_guidance_of_a_network_with_attention_has_a_likelihood() -> None:
    model = build("guided", tiny_model(VESDE()))
    found = log_likelihood(model, torch.zeros(1, *model.shape), steps=1, check=False)
    assert bool(found.nats.isfinite().all())


@pytest.mark.parametrize(("outer", "inner"), [("repel", "contrast"), ("guided", "safe"), ("contrast", "guided")])
def test_a_filter_goes_around_a_filter(outer: str, inner: str) -> None:
    x, t = noised(UNEVEN, VESDE())
    first = build(inner, UNEVEN.as_model(VESDE()))
    frozen = Constant(first.denoise(x, t), VESDE())
    if outer == "guided":  # it needs the gradient of what it is put around
        assert build(outer, first).denoise(x, t).isfinite().all()
    else:
        torch.testing.assert_close(build(outer, first).denoise(x, t), build(outer, frozen).denoise(x, t))


def test_a_filter_is_not_saved_as_if_it_were_the_model(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot save"):
        save(build("repel", tiny_model()), tmp_path / "model")


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda model, images: Repel(model, images, radius=0), "radius"),
        (lambda model, images: Repel(model, images, strength=-1), "strength"),
        (lambda model, images: Repel(model, images[:, :1]), "model space"),
        (lambda model, images: Repel(model, images.to(torch.uint8)), "model.space"),
        (lambda model, images: SafeDenoiser(model, images[:0], images), "model space"),
        (lambda model, images: SafeDenoiser(model, images, images, cap=0), "cap"),
        (lambda model, images: Guided(model, torch.sum, strength=0), "strength"),
        (lambda model, images: Contrast(model, model, strength=math.nan), "strength"),
        (lambda model, images: Contrast(model, UNEVEN.as_model(SDES["vp"])), "one process"),
        (lambda model, images: Contrast(model, TOY.as_model(VESDE())), "shape"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[ScoreModel, Tensor], Filter], word: str) -> None:
    with pytest.raises(UserError, match=word):
        make(UNEVEN.as_model(VESDE()), points(4, (3,)))
