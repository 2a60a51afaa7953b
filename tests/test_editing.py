"""Inpainting and reconstruction against closed forms: laws, flows and bits that must not change."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from oracle import RETAIN, SDES, TOY, UNEVEN, gaussian_model, scalar, slope
from PIL import Image
from torch import Tensor, nn

import msgm
from msgm.errors import UserError
from msgm.experiments.exact.mixture import time_of_label
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.model.space import Space
from msgm.process.sde import DDPM, SDE, VESDE, VPSDE, SubVPSDE
from msgm.sampling import SAMPLERS, EulerMaruyama, Heun, PredictorCorrector, SamplerName, Streams, build
from msgm.sampling.editing import inpaint, read_mask, reconstruct

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
MEAN, STD = 0.2, 0.5
HALF = torch.tensor([True, False])


def pixels(n: int, seed: int = 0, shape: tuple[int, ...] = (1, 4, 4)) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Correlated(nn.Module):
    """The exact noise prediction for N(``mean``, ``covariance``) in two dimensions."""

    mean = torch.tensor([0.2, -0.1], dtype=torch.float64)
    covariance = torch.tensor([[0.25, 0.2], [0.2, 0.25]], dtype=torch.float64)

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        self.sde, self.precision = sde, nn.Parameter(scalar(0), requires_grad=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        t = time_of_label(self.sde, label)[0]
        pull = torch.linalg.inv(noised(self.covariance, self.sde, t))
        return self.sde.sigma(t) * (x - self.sde.alpha(t) * self.mean) @ pull


def noised(covariance: Tensor, sde: SDE, t: Tensor) -> Tensor:
    return sde.alpha(t) ** 2 * covariance + sde.sigma(t) ** 2 * torch.eye(2, dtype=torch.float64)


def correlated(sde: SDE) -> ScoreModel:
    return ScoreModel(Correlated(sde), sde, shape=(2,), precondition=Noise())


KNOWN = 0.9
"""The first coordinate; the second is unknown."""
GENTLE = {
    "ve": VESDE(sigma_min=0.2, sigma_max=2.0),
    "vp": VPSDE(beta_max=3.0),
    "subvp": SubVPSDE(beta_max=3.0),
    "ddpm": DDPM(beta_end=0.003),
}
"""Processes that six steps take far enough, none of them so large that what was there before is nothing beside it."""
CONDITIONAL = -0.1 + 0.2 / 0.25 * (KNOWN - 0.2), math.sqrt(0.25 - 0.2**2 / 0.25)
"""Mean and standard deviation of the second given the first."""


def exact_law(sde: SDE, grid: Tensor, walk: list[int]) -> tuple[float, float]:
    """Mean and deviation of the unknown coordinate as the algorithm draws it: all of its moves are affine."""
    eye = torch.eye(2, dtype=torch.float64)

    def put_back(m: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        variance = torch.diag(torch.stack([sde.sigma(t) ** 2, v[1, 1]]))
        return torch.stack([sde.alpha(t) * KNOWN, m[1]]), variance

    def pull(t: Tensor) -> Tensor:
        return torch.linalg.inv(noised(Correlated.covariance, sde, t))

    m, v = put_back(torch.zeros(2, dtype=torch.float64), sde.prior_std**2 * eye, grid[0])
    for here, there in pairwise(walk):
        t, s = grid[here], grid[there]
        if there > here:  # Euler-Maruyama
            width, spread = t - s, (t - s).sqrt() * sde.diffusion(t)
            a = (1 - width * sde.drift(t)) * eye - spread**2 * pull(t)
            b = spread**2 * pull(t) @ (sde.alpha(t) * Correlated.mean)
        else:  # the forward process
            ratio = sde.alpha(s) / sde.alpha(t)
            spread = (sde.sigma(s) ** 2 - ratio**2 * sde.sigma(t) ** 2).sqrt()
            a, b = ratio * eye, torch.zeros(2, dtype=torch.float64)
        m, v = put_back(a @ m + b, a @ v @ a.T + spread**2 * eye, s)
    t = grid[-1]
    alpha, shrink = sde.alpha(t), sde.sigma(t) ** 2 * pull(t)
    a, b = (eye - shrink) / alpha, shrink @ Correlated.mean
    m, v = a @ m + b, a @ v @ a.T
    return float(m[1]), float(v[1, 1].sqrt())


# ------------------------------------------------------------------------------------------------------ inpainting


@pytest.mark.parametrize(
    ("resample", "jump", "walk"),
    [
        (1, 1, [0, 1, 2, 3, 4, 5]),
        (2, 1, [0, 1, 0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5]),
        (3, 2, [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 5, 4, 5, 4, 5]),
    ],
)
@pytest.mark.parametrize("name", GENTLE)
def test_the_law_of_the_unknown_is_that_of_the_algorithm(name: str, resample: int, jump: int, walk: list[int]) -> None:
    sde = GENTLE[name]
    n = 4000
    sampler = EulerMaruyama(correlated(sde), steps=6)
    images = torch.tensor([[KNOWN, 7.0]], dtype=torch.float64).expand(n, 2)
    x = inpaint(sampler, images, HALF, resample=resample, jump=jump, seed=1, batch=n)[:, 1]
    mean, std = exact_law(sde, sampler.times(), walk)
    assert abs(x.mean() - mean) < 4 * std / math.sqrt(n)
    assert abs(x.std() / std - 1) < 4 / math.sqrt(2 * n)


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_resampling_brings_that_law_to_the_conditional_one(name: str) -> None:
    (mean, std), marginal = CONDITIONAL, float(Correlated.mean[1])
    sde, steps, found = SDES[name], 100, {}
    for resample in (1, 10):
        walk = [0]
        for place in range(steps - 1):
            walk += [place + 1, *([place, place + 1] * (resample - 1))]
        m, s = exact_law(sde, EulerMaruyama(correlated(sde), steps=steps).times(), walk)
        found[resample] = (m - marginal) / (mean - marginal), s / std
    assert found[1] == pytest.approx((0.63, 1.18), abs=0.015)
    assert found[10] == pytest.approx((0.96, 0.98), abs=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_where_nothing_is_known_it_is_sampling(name: SamplerName) -> None:
    sampler = build(name, TOY.as_model(VESDE()), steps=6)
    images = torch.full((5, 2), 9.0, dtype=torch.float64)
    assert torch.equal(inpaint(sampler, images, ~(HALF | True), seed=3), sampler.sample(5, seed=3))


@EACH_SDE
@pytest.mark.parametrize("name", ["heun", "dpm++", "ancestral", "euler-maruyama", "reverse-diffusion"])
def test_what_is_independent_of_the_known_is_drawn_as_it_would_be(name: SamplerName, sde: SDE) -> None:
    sampler = build(name, gaussian_model(sde, (2, 3), MEAN, STD), steps=8)
    known = torch.tensor([[True, False, False], [False, True, True]])
    images = torch.full((4, 2, 3), 9.0, dtype=torch.float64)
    x = inpaint(sampler, images, known, seed=2)
    torch.testing.assert_close(x[:, ~known], sampler.sample(4, seed=2)[:, ~known], rtol=0, atol=1e-12)
    assert torch.equal(x[:, known], images[:, known])


@pytest.mark.parametrize("resample", [1, 3])
@EACH_SDE
def test_no_noise_is_left_in_the_unknown_pixels(sde: SDE, resample: int) -> None:
    # All images of this model are one: what differs from it is noise, of which VE, VP and DDPM have 0.01 at t_min.
    model = gaussian_model(sde, (1, 4, 4), MEAN, 1e-5)
    x = inpaint(Heun(model, steps=40), pixels(3), read_mask("upper-half", (1, 4, 4)), resample=resample)
    assert bool((x[:, :, :2] == math.floor((MEAN + 1) * 128)).all())
    floats = inpaint(
        Heun(model, steps=40), Space().to_model(pixels(3)), read_mask("upper-half", (1, 4, 4)), resample=resample
    )
    assert float((floats[:, :, :2] - MEAN).abs().max()) < 1e-4


@pytest.mark.parametrize(
    "shape",
    [(4, 4), (1, 1, 4), (3, 1, 4, 4)],
    ids=["for all images", "for all rows", "for each image"],
)
@EACH_SDE
def test_known_pixels_are_those_of_the_input_bit_by_bit(sde: SDE, shape: tuple[int, ...]) -> None:
    model = gaussian_model(sde, (1, 4, 4), MEAN, STD, dtype=torch.float32)
    known = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    generator = torch.Generator().manual_seed(2)
    floats = torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64)  # not exact in the model's type
    for images in (pixels(3), floats):
        x = inpaint(PredictorCorrector(model, steps=3), images, known, resample=2)
        where = known.expand_as(images)
        assert x.dtype == images.dtype
        assert torch.equal(x[where], images[where])
        assert not torch.equal(x[~where], images[~where])
    unset = torch.where(where, floats, torch.nan)
    assert torch.equal(inpaint(PredictorCorrector(model, steps=3), unset, known, resample=2), x)


def test_an_image_does_not_depend_on_its_batch_and_a_run_can_be_taken_up() -> None:
    sampler = PredictorCorrector(UNEVEN.as_model(VPSDE()), steps=5)
    known = torch.tensor([True, False, False])
    images = UNEVEN.sample(7, torch.Generator().manual_seed(0))
    settings = {"resample": 2, "jump": 2, "seed": 4}
    whole = inpaint(sampler, images, known, **settings)
    torch.testing.assert_close(inpaint(sampler, images, known, batch=3, **settings), whole, rtol=0, atol=1e-12)
    rest = inpaint(sampler, images[5:], known, start=5, **settings)
    torch.testing.assert_close(rest, whole[5:], rtol=0, atol=1e-12)
    assert not torch.allclose(inpaint(sampler, images, known, **{**settings, "seed": 5}), whole)
    same = inpaint(sampler, images[:1].expand(2, 3), known, **settings)
    assert not torch.allclose(same[0], same[1])


def test_steps_and_progress_are_counted() -> None:
    model, done = gaussian_model(VESDE(), (2,)), []
    images = torch.zeros(5, 2, dtype=torch.float64)
    inpaint(EulerMaruyama(model, steps=6), images, HALF, resample=3, jump=2, batch=2, tick=done.append)
    assert model.network.images == 5 * (3 * 5 + 1)
    assert math.isclose(sum(done), 5)


def test_the_default_is_the_predictor_corrector() -> None:
    model = TOY.as_model(VESDE())
    images = torch.zeros(2, 2, dtype=torch.float64)
    expected = msgm.inpaint(PredictorCorrector(model, steps=200), images, HALF)
    assert torch.equal(msgm.inpaint(model, images, HALF), expected)


def test_the_model_is_left_as_it_was() -> None:
    model = gaussian_model(VESDE(), (2,)).train()
    x = inpaint(Heun(model, steps=3), torch.zeros(2, 2, dtype=torch.float64), HALF)
    assert model.training
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3)}, r"shape \(2,\)"),
        ({"images": torch.zeros(0, 2)}, "got 0"),
        ({"images": torch.zeros(2, 2, dtype=torch.long)}, "uint8"),
        ({"known": torch.tensor([1.0, 0.0])}, "bool"),
        ({"known": torch.tensor([True, False, True])}, "expands"),
        ({"known": torch.tensor([True, True])}, "every pixel is known"),
        ({"resample": 0}, "resample"),
        ({"jump": 0}, "jump"),
        ({"batch": 0}, "batch"),
    ],
)
def test_bad_requests_are_refused(change: dict, message: str) -> None:
    model = gaussian_model(VESDE(), (2,))
    given = {"images": torch.zeros(2, 2), "known": HALF, **change}
    with pytest.raises(UserError, match=message):
        inpaint(model, **given)
    assert model.network.calls == 0


# -------------------------------------------------------------------------------------------------- reconstruction


@EACH_SDE
def test_the_way_there_and_back_is_of_third_order(sde: SDE) -> None:
    # One way is of second order; the leading error of Heun's step is cubic, and taken back by the step that undoes it.
    x = RETAIN.sample(64, torch.Generator().manual_seed(0))
    model = RETAIN.as_model(sde)
    errors = [
        float((reconstruct(Heun(model, steps=steps + 1), x, perturb=0) - x).abs().mean()) for steps in (24, 48, 96)
    ]
    assert errors[-1] < 2e-4
    assert 2.8 < slope(errors) < 3.3, errors


@EACH_SDE
@pytest.mark.parametrize("perturb", [0.02, 0.4])
def test_reconstruction_is_the_exact_one_point_by_point(sde: SDE, perturb: float) -> None:
    x = MEAN + STD * torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = scalar(sde.t_min), scalar(1.0)
    ratio = [(STD**2 + sde.log_ratio(t).exp() ** 2).sqrt() for t in (low, high)]
    latent = sde.alpha(high) * (MEAN + (x / sde.alpha(low) - MEAN) * ratio[1] / ratio[0])
    eps, scale = Streams(5, range(6)).normal(x), sde.prior_std
    latent = sde.alpha(scalar(perturb)) * latent + scale * sde.sigma(scalar(perturb)) * eps
    exact = sde.alpha(low) * (MEAN + (latent / sde.alpha(high) - MEAN) * ratio[0] / ratio[1])
    found = reconstruct(Heun(gaussian_model(sde, (3,), MEAN, STD), steps=120), x, perturb=perturb, seed=5)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)


@EACH_SDE
def test_undisturbed_pixels_come_back_exactly(sde: SDE) -> None:
    images = pixels(4)
    x = reconstruct(Heun(gaussian_model(sde, (1, 4, 4), MEAN, STD), steps=100), images, perturb=0)
    assert x.dtype == torch.uint8
    assert torch.equal(x, images)


def test_a_reconstruction_does_not_depend_on_its_batch() -> None:
    flow, done = Heun(TOY.as_model(VPSDE()), steps=6), []
    images = TOY.sample(7, torch.Generator().manual_seed(0))
    whole = reconstruct(flow, images, perturb=0.3, seed=4)
    parts = reconstruct(flow, images, perturb=0.3, seed=4, batch=3, tick=done.append)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)
    assert math.isclose(sum(done), 7)
    rest = msgm.reconstruct(flow, images[5:], perturb=0.3, seed=4, start=5)
    torch.testing.assert_close(rest, whole[5:], rtol=0, atol=1e-12)
    assert not torch.allclose(reconstruct(flow, images, perturb=0.3, seed=5), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"perturb": -0.1}, "perturb"), ({"perturb": 1.1}, "perturb"), ({"batch": 0}, "batch")],
)
def test_bad_reconstructions_are_refused(change: dict, message: str) -> None:
    model = gaussian_model(VESDE(), (2,))
    with pytest.raises(UserError, match=message):
        reconstruct(model, torch.zeros(2, 2), **change)
    assert model.network.calls == 0


# ----------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("spec", "size", "rows", "columns"),
    [
        ("upper-half", 28, (0, 14), (0, 28)),
        ("band", 64, (32, 48), (0, 64)),
        ("band", 32, (16, 24), (0, 32)),
        ("box:4,1,20,3", 28, (1, 4), (4, 24)),
        ("box:0,0,8,8", 8, (0, 8), (0, 8)),
    ],
)
def test_masks_by_name(spec: str, size: int, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    unknown = torch.zeros(size, size, dtype=torch.bool)
    unknown[slice(*rows), slice(*columns)] = True
    assert torch.equal(read_mask(spec, (3, size, size)), ~unknown)


def test_a_mask_from_a_file_is_white_where_unknown(tmp_path: Path) -> None:
    drawing = torch.tensor([[0, 127, 128], [255, 30, 200]], dtype=torch.uint8)
    for mode in ("L", "RGB"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(drawing.numpy()).convert(mode).save(path)
        assert torch.equal(read_mask(str(path), (1, 2, 3)), drawing < 128)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lower-left", "no mask 'lower-left'.*upper-half, band, box"),
        ("nowhere.png", "no mask 'nowhere.png'"),
        ("box:1,2,3", "box:x,y,w,h"),
        ("box:a,b,c,d", "box:x,y,w,h"),
        ("box:0,0,0,4", "no such box"),
        ("box:-1,0,4,4", "no such box"),
        ("box:20,0,9,4", "no such box in images of 28x28"),
    ],
)
def test_masks_that_mean_nothing(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_mask(spec, (1, 28, 28))


def test_mask_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (28, 14), 255).save(path)
    with pytest.raises(UserError, match="28x14 pixels, but the images have 28x28"):
        read_mask(str(path), (1, 28, 28))
    Image.new("L", (28, 28), 0).save(path)
    with pytest.raises(UserError, match="nothing to fill in"):
        read_mask(str(path), (1, 28, 28))
    path.write_text("no picture")
    with pytest.raises(UserError, match="not an image"):
        read_mask(str(path), (1, 28, 28))
