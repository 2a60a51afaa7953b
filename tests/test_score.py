"""One network read three ways, against the closed forms of a mixture; the denoiser of a finite data set."""

from itertools import pairwise
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from oracle import SDES, UNEVEN, ExactNetwork, scalar
from torch import nn

from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.model.precondition import EDM, PRECONDITIONS, Level, Noise, Prediction
from msgm.model.score import ScoreModel
from msgm.process.posterior import exact_denoiser
from msgm.process.sde import SDE, VESDE, expand

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))


def points(sde: SDE, n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    t = torch.linspace(max(sde.t_min, 0.01), 1, n, dtype=torch.float64)
    clean = UNEVEN.sample(n, generator)
    return sde.marginal(clean, t, torch.randn(n, 3, generator=generator, dtype=torch.float64)), t


@EACH_SDE
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_every_kind_of_network_gives_the_same_noise(sde: SDE, prediction: Prediction) -> None:
    x, t = points(sde)
    network = ExactNetwork(UNEVEN, sde, prediction, sigma_data=0.7)
    model = ScoreModel(network, sde, shape=(3,), precondition=PRECONDITIONS[prediction](sigma_data=0.7))
    torch.testing.assert_close(model.noise(x, t), UNEVEN.noise(x, sde, t), rtol=1e-8, atol=1e-8)


@EACH_SDE
def test_score_and_denoised_image_are_the_exact_ones(sde: SDE) -> None:
    x, t = points(sde)
    model = UNEVEN.as_model(sde)
    torch.testing.assert_close(model.score(x, t), UNEVEN.score(x, sde, t), rtol=1e-8, atol=1e-8)
    # E[x_0 | x_t] in each component: a precision-weighted mean of the observation and the component's mean.
    alpha, sigma = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
    variance = UNEVEN.stds.square()[:, None]
    each = (alpha * variance * x[:, None] + sigma**2 * UNEVEN.means) / (alpha**2 * variance + sigma**2)
    mean = torch.einsum("bk,bkd->bd", UNEVEN.component_posterior(x, sde, t), each)
    torch.testing.assert_close(model.denoise(x, t), mean, rtol=1e-7, atol=1e-7)


def test_a_time_may_be_one_number_for_all_images() -> None:
    model = UNEVEN.as_model(VESDE())
    x, _ = points(model.sde, 5)
    for read in (model.noise, model.score, model.denoise):
        torch.testing.assert_close(read(x, scalar(0.3)), read(x, torch.full((5,), 0.3, dtype=torch.float64)))


def test_processes_agree_at_equal_ratio() -> None:
    """At equal y = x / alpha and sigma / alpha the noise prediction and the denoising loss are the same."""
    generator = torch.Generator().manual_seed(2)
    clean = UNEVEN.sample(200, generator)
    eps = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    log_ratio = torch.linspace(-3, 3.5, 200, dtype=torch.float64)
    losses, predictions = [], []
    for sde in SDES.values():
        t = sde.time(log_ratio)
        predicted = UNEVEN.as_model(sde).noise(sde.marginal(clean, t, eps), t)
        predictions.append(predicted)
        losses.append((predicted - eps).square().mean())
    for (a, b), (loss_a, loss_b) in zip(pairwise(predictions), pairwise(losses), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(loss_a, loss_b, rtol=1e-8, atol=0)


def test_patch_folds_squares_into_channels_and_back() -> None:
    seen = []

    class Identity(nn.Module):
        def forward(self, x, label):
            seen.append((x.shape, label.shape))
            return SimpleNamespace(sample=x)  # as diffusers' networks answer

    model = ScoreModel(Identity(), VESDE(), shape=(3, 8, 8), precondition=Noise(), patch=2)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.noise(x, torch.tensor(0.5)), x)
    assert seen == [((2, 12, 4, 4), (2,))]


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), "0.5", None])
def test_a_scale_of_the_data_that_is_none_is_refused(bad: object) -> None:
    with pytest.raises(UserError, match="sigma_data"):
        EDM(sigma_data=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_only_the_network_sees_low_precision(prediction: Prediction, kind: torch.dtype) -> None:
    """Its input is rounded, and nothing else: label, alpha and sigma are those of float32."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            self.label = label
            return self.weight * x

    t, x = torch.linspace(0.001, 1, 200), torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    for sde in SDES.values():
        model = ScoreModel(Half().to(kind), sde, shape=(3,), precondition=PRECONDITIONS[prediction]())
        at = Level(expand(sde.alpha(t), x), expand(sde.sigma(t), x))
        raw = 0.5 * model.precondition.enter(x, at).to(kind)
        assert torch.equal(model.noise(x, t), model.precondition.read(raw.float(), x, at))
        assert torch.equal(model.network.label, model.precondition.label(sde, t))  # type: ignore[arg-type]
        assert model.denoise(x, t).dtype == model.score(x.to(kind), t).dtype == torch.float32


def test_exact_denoiser_is_the_softmax_mean_whatever_the_chunk() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(50, 1, 3, 3, generator=generator, dtype=torch.float64) * 2 - 1
    ratio = torch.logspace(-2, 1.7, 12, dtype=torch.float64)
    y = images[:12] + expand(ratio, images) * torch.randn(12, 1, 3, 3, generator=generator, dtype=torch.float64)
    square = (y[:, None] - images[None]).flatten(2).square().sum(2)
    weights = (-square / (2 * ratio.square()[:, None])).softmax(1)
    expected = torch.einsum("br,rchw->bchw", weights, images)
    for chunk in (1, 7, 50, 4096):
        torch.testing.assert_close(exact_denoiser(y, ratio, images, chunk=chunk), expected, rtol=1e-9, atol=1e-9)


def test_exact_denoiser_is_that_of_a_mixture_of_points() -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    sde = VESDE()
    t = torch.linspace(0.3, 1, 9, dtype=torch.float64)
    y = sde.marginal(images, t, torch.randn(9, 4, generator=generator, dtype=torch.float64))
    model = GaussianMixture(torch.ones(9), images, 1e-7).as_model(sde)
    torch.testing.assert_close(exact_denoiser(y, sde.sigma(t), images), model.denoise(y, t), rtol=1e-7, atol=1e-7)


def test_exact_denoiser_at_the_smallest_noise_in_single_precision_returns_the_image() -> None:
    images = torch.rand(300, 1, 28, 28, generator=torch.Generator().manual_seed(5)) * 2 - 1
    denoised = exact_denoiser(images[:4] + 1e-3, torch.full((4,), 0.01), images, chunk=64)
    torch.testing.assert_close(denoised, images[:4], rtol=0, atol=1e-5)
