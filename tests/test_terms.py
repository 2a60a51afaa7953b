"""Loss terms against their exact optima on mixtures, in float64, and against their formulas written out."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from oracle import RETAIN, SDES, TOY, gaussian_model
from torch import Tensor

from msgm.experiments.exact.mixture import GaussianMixture
from msgm.forgetting.batch import Noised, Recalled
from msgm.forgetting.combine import Weighted
from msgm.forgetting.terms import Denoising, ForgetTerm, Obtuse, Orthogonal, Redirect, UniformTarget
from msgm.model.precondition import PRECONDITIONS
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE, VESDE, expand

PLAIN = partial(Redirect, low=0.0, contrast=0.0)
"""At the exact score of the retained images and no further, at every noise level."""

FORGET = GaussianMixture([1.0], [[0.0, 0.0]])
"""What `RETAIN` leaves of the toy."""

EACH_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
EACH_POINT = pytest.mark.parametrize("point", [(0.3, -0.2), (1.1, 0.9), (-2.5, 1.0)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(sde: SDE, x: Tensor, t: Tensor, eps: Tensor, noise: Tensor, kind: str = "noise") -> Noised:
    model = ScoreModel(torch.nn.Identity(), sde, shape=tuple(x.shape[1:]), precondition=PRECONDITIONS[kind]())
    return Noised(x=x, t=t, eps=eps, predicted=noise, model=model)


class AtPoint:
    """Expected losses at one x_t, where the prediction is a free vector, under the posterior of eps of a mixture.

    In each component eps is a Gaussian; the 2d points ``mean +- sqrt(d) std e_i`` have its first two moments exactly,
    and as a term is a mean over its batch, posterior-weighted sums of it are exact for all that is quadratic in eps.
    """

    def __init__(self, sde: SDE, point: tuple[float, ...], log_ratio: float) -> None:
        self.sde = sde
        self.t = sde.time(torch.tensor([log_ratio], dtype=torch.float64))
        self.alpha, self.sigma = float(sde.alpha(self.t)), float(sde.sigma(self.t))
        self.x = self.alpha * torch.tensor([point], dtype=torch.float64)
        self.density = {m: float(m.log_density(self.x, sde, self.t).exp()) for m in (RETAIN, FORGET)}

    def points(self, mixture: GaussianMixture) -> list[tuple[float, Tensor]]:
        """Posterior weight and (2d, d) points of each component."""
        d = mixture.dims
        posterior = mixture.component_posterior(self.x, self.sde, self.t)[0]
        found = []
        for weight, m, s in zip(posterior, mixture.means, mixture.stds, strict=True):
            variance = (self.alpha * s) ** 2 + self.sigma**2
            mean = self.sigma * (self.x[0] - self.alpha * m) / variance
            legs = math.sqrt(d) * self.alpha * s / variance.sqrt() * torch.eye(d, dtype=torch.float64)
            found.append((float(weight), torch.cat([mean + legs, mean - legs])))
        return found

    def loss(self, mixture: GaussianMixture, term: ForgetTerm | Denoising, noise: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for weight, eps in self.points(mixture):
            n = len(eps)
            given = batch(self.sde, self.x.expand(n, -1), self.t.expand(n), eps, noise.expand(n, -1))
            total = total + weight * term(given)
        return total

    def minimiser(self, term: ForgetTerm, alpha: float) -> Tensor:
        """argmin of alpha p_g L_g + (1 - alpha) p_f L_f, one Newton step: the loss is quadratic in the prediction."""

        def total(noise: Tensor) -> Tensor:
            retain = self.density[RETAIN] * self.loss(RETAIN, Denoising(), noise)
            return Weighted(alpha=alpha)(retain, self.density[FORGET] * self.loss(FORGET, term, noise))

        start = torch.zeros(2, dtype=torch.float64)
        gradient = torch.autograd.functional.jacobian(total, start)
        hessian = torch.autograd.functional.hessian(total, start)
        found = -torch.linalg.solve(hessian, gradient)
        # The gradient vanishes there, so the loss was quadratic and this is its minimum.
        assert torch.autograd.functional.jacobian(total, found).abs().max() < 1e-9 * gradient.abs().max() + 1e-14
        assert torch.linalg.eigvalsh(hessian).min() > 0
        return found

    def mean(self, mixture: GaussianMixture) -> Tensor:
        return mixture.noise(self.x, self.sde, self.t)[0]

    def second(self, mixture: GaussianMixture) -> Tensor:
        return mixture.noise_second_moment(self.x, self.sde, self.t)[0]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@EACH_SDE
@EACH_POINT
@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_minimisers_are_the_closed_forms(sde: SDE, point: tuple[float, ...], alpha: float) -> None:
    at = AtPoint(sde, point, log_ratio=-0.3)
    g, f = alpha * at.density[RETAIN], (1 - alpha) * at.density[FORGET]
    m_g, m_f, second = at.mean(RETAIN), at.mean(FORGET), at.second(FORGET)
    eye = torch.eye(2, dtype=torch.float64)

    close(at.minimiser(Orthogonal(form="elementwise"), alpha), g * m_g / (g + f * second.diagonal()))
    # Eq. 7 as printed divides by sigma^2.
    shrunk = torch.linalg.solve(g * eye + f / at.sigma**2 * second, g * m_g)
    close(at.minimiser(Orthogonal(form="literal"), alpha), shrunk)
    # ``inner`` divides each outer product by |eps|^2.
    unit = sum(
        w * (e[:, :, None] * e[:, None] / e.square().sum(1)[:, None, None]).mean(0) for w, e in at.points(FORGET)
    )
    close(at.minimiser(Orthogonal(form="inner"), alpha), torch.linalg.solve(g * eye + f * unit, g * m_g))

    close(at.minimiser(Obtuse(form="literal"), alpha), m_g - f / (2 * g) * m_f)
    close(at.minimiser(Obtuse(form="released_sign"), alpha), m_g + f / (2 * g) * m_f)
    window = 1 / (1 + (at.sigma / at.alpha / 0.7) ** 4)
    close(at.minimiser(Obtuse(window=0.7, clamp=1e9), alpha), m_g - window * f / (2 * g) * m_f)


@EACH_SDE
@EACH_POINT
def test_unseen_is_the_retained_mixtures_own_prediction(sde: SDE, point: tuple[float, ...]) -> None:
    at = AtPoint(sde, point, log_ratio=0.1)
    start = torch.zeros(2, dtype=torch.float64)
    for mixture in (RETAIN, TOY):
        gradient = torch.autograd.functional.jacobian(lambda noise, m=mixture: at.loss(m, Denoising(), noise), start)
        close(-gradient, at.mean(mixture))  # the Hessian is 2/d I, here I
    # The weighted combination with nothing to forget has the same minimiser.
    assert float(Weighted(alpha=0.7)(torch.tensor(2.0), None)) == pytest.approx(1.4)


def test_sampled_posteriors_give_the_same_elementwise_optimum() -> None:
    """The closed form again, without the posterior's formulas: clean points, weighted by how well they explain x_t."""
    sde, alpha = VESDE(), 0.6
    at = AtPoint(sde, (0.8, 0.5), log_ratio=0.0)

    def moments(mixture: GaussianMixture) -> tuple[Tensor, Tensor, float]:
        eps = (at.x - mixture.sample(400_000, torch.Generator().manual_seed(3))) / at.sigma
        weight = torch.exp(-0.5 * eps.square().sum(1))
        share = weight / weight.sum()
        density = float(weight.mean()) / (2 * math.pi * at.sigma**2)
        return share @ eps, share @ eps.square(), density

    m_g, _, p_g = moments(RETAIN)
    _, second, p_f = moments(FORGET)
    expected = alpha * p_g * m_g / (alpha * p_g + (1 - alpha) * p_f * second)
    torch.testing.assert_close(at.minimiser(Orthogonal(), alpha), expected, rtol=0.02, atol=0.02)


def test_denoising_weights() -> None:
    """``edm`` is the mean squared error of the raw network; ``auto`` follows the model's kind."""
    sde, data = VESDE(), 0.5
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x, eps, noise = normal(6, 1, 2, 2), normal(6, 1, 2, 2, seed=1), normal(6, 1, 2, 2, seed=2)
    given = {kind: batch(sde, x, t, eps, noise, kind) for kind in ("edm", "noise", "v")}
    plain = (noise - eps).square().mean()
    close(Denoising(weighting="noise")(given["edm"]), plain)
    close(Denoising()(given["noise"]), plain)
    close(Denoising()(given["v"]), plain)
    # eps = y s / (s^2 + c^2) - c (s^2 + c^2)^(-1/2) F, solved for F.
    s = expand(sde.sigma(t), x)
    raw = [(x * s / (s**2 + data**2) - e) * (s**2 + data**2).sqrt() / data for e in (noise, eps)]
    close(Denoising()(given["edm"]), (raw[0] - raw[1]).square().mean())
    close(Denoising(weighting="edm")(given["noise"]), (raw[0] - raw[1]).square().mean())


@pytest.mark.parametrize("weighting", ["noise", "edm"])
def test_processes_have_the_same_losses_for_the_same_prediction(weighting: str) -> None:
    x0, eps, noise = normal(8, 1, 3, 3), normal(8, 1, 3, 3, seed=1), normal(8, 1, 3, 3, seed=2)
    retained = Recalled(normal(20, 1, 3, 3, seed=3))
    log_ratio = torch.linspace(-3, 3, 8, dtype=torch.float64)
    found = {}
    for name, sde in SDES.items():
        t = sde.time(log_ratio)
        given = batch(sde, sde.marginal(x0, t, eps), t, eps, noise)
        terms = (Orthogonal(), Orthogonal(form="inner"), Obtuse(form="literal"), PLAIN(), PLAIN(low=0.3, high=2))
        found[name] = torch.stack(
            [
                Denoising(weighting=weighting)(given),
                *(term(replace(given, retained=retained)) for term in terms),
            ]
        )  # type: ignore[arg-type]
    for name in SDES:
        torch.testing.assert_close(found[name], found["ve"], rtol=1e-7, atol=1e-9)


def test_orthogonal_and_obtuse_written_out() -> None:
    sde = VESDE()
    t = sde.time(torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64).log())
    x, eps, noise = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    given, sigma = batch(sde, x, t, eps, noise), [0.1, 1.0, 3.0]
    inner = [float((n * e).sum()) for n, e in zip(noise, eps, strict=True)]
    norms = [float(e.square().sum()) for e in eps]

    def mean(values: list[float]) -> float:
        return sum(values) / 3

    def value(term: ForgetTerm) -> float:
        return float(term(given))

    assert value(Orthogonal()) == pytest.approx(float((noise * eps).square().mean()), rel=1e-12)
    each = [i**2 / n / 4 for i, n in zip(inner, norms, strict=True)]
    assert value(Orthogonal(form="inner")) == pytest.approx(mean(each), rel=1e-12)
    each = [i**2 / s**2 / 4 for i, s in zip(inner, sigma, strict=True)]
    assert value(Orthogonal(form="literal")) == pytest.approx(mean(each), rel=1e-9)
    assert value(Obtuse(form="literal")) == pytest.approx(mean([i / 4 for i in inner]), rel=1e-12)
    assert value(Obtuse(form="released_sign")) == -value(Obtuse(form="literal"))
    # With window 1 the weight of sigma = 1 is one half.
    each = [max(i / 4, -0.05) / (1 + s**4) for i, s in zip(inner, sigma, strict=True)]
    assert value(Obtuse(clamp=0.05)) == pytest.approx(mean(each), rel=1e-9)
    half = batch(sde, x[1:2], t[1:2], eps[1:2], eps[1:2])
    assert float(Obtuse()(half)) == pytest.approx(norms[1] / 4 / 2, rel=1e-9)


def test_windowed_obtuse_is_bounded_below_and_literal_is_not() -> None:
    sde = VESDE()
    t = sde.time(torch.full((4,), -4.0, dtype=torch.float64))
    x, eps = normal(4, 1, 2, 2), normal(4, 1, 2, 2, seed=1)
    for size in (1.0, 1e3, 1e6):
        noise = (-size * eps).requires_grad_()
        given = batch(sde, x, t, eps, noise)
        loss = Obtuse(clamp=0.4)(given)
        assert float(loss.detach()) >= -0.4
        (gradient,) = torch.autograd.grad(loss, noise)
        assert size < 1e3 or not gradient.any()  # past the clamp nothing pulls
        assert Obtuse(form="literal")(given).item() == pytest.approx(-size * float(eps.square().mean()))


def test_the_uniform_target_is_one_half_and_drawn_from_the_batchs_generator() -> None:
    n, at = 400_000, torch.tensor([0.9, -0.4], dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(n, 2, dtype=torch.float64)
    given = batch(VESDE(), zeros, zeros[:, 0], zeros, at.expand(n, 2))
    losses = [UniformTarget()(replace(given, generator=torch.Generator().manual_seed(seed))) for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]
    # mean (noise - 1/2)^2 + 1/12, whose gradient is noise - 1/2 for d = 2; u has standard deviation 12^(-1/2).
    error = 5 / math.sqrt(12 * n)
    assert abs(float(losses[0].detach()) - float((at.detach() - 0.5).square().mean()) - 1 / 12) < 2 * error
    (gradient,) = torch.autograd.grad(losses[0], at)
    torch.testing.assert_close(gradient, at.detach() - 0.5, rtol=0, atol=error)


def test_of_a_subset_only_its_rows_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at once, so that images of any number and size can be recalled; all of them are held once."""

    class Asked:
        device = torch.device("cpu")

        def __init__(self) -> None:
            self.images, self.asked = normal(50, 1, 2, 2), list[int]()

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: Tensor) -> Tensor:
            self.asked.append(len(index))
            return self.images[index]

    sde, rows = VESDE(), Asked()
    t, eps = torch.full((3,), 0.5, dtype=torch.float64), normal(3, 1, 2, 2, seed=1)
    given = batch(sde, sde.marginal(normal(3, 1, 2, 2, seed=2), t, eps), t, eps, eps)
    given = replace(given, retained=Recalled(rows), generator=torch.Generator().manual_seed(0))
    once = PLAIN(subset=8)(given)
    assert rows.asked == [8]
    with monkeypatch.context() as patch:  # eight numbers, two images
        patch.setattr("msgm.forgetting.terms.HELD", 8)
        again = replace(given, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(PLAIN(subset=8)(again), once)
    assert rows.asked == [8, 2, 2, 2, 2]
    found = [PLAIN()(given), PLAIN()(given)]
    assert rows.asked == [8, 2, 2, 2, 2, 50]
    torch.testing.assert_close(found, 2 * [PLAIN()(replace(given, retained=Recalled(rows.images)))])


def brute_target(given: Noised, retained: Tensor) -> Tensor:
    """eps* image by image from the definition, on alpha-scaled images as METHOD writes it."""
    rows = []
    for x, t in zip(given.x, given.t, strict=True):
        alpha, sigma = given.model.sde.alpha(t), given.model.sde.sigma(t)
        square = torch.stack([(x - alpha * r).square().sum() for r in retained])
        weight = torch.softmax(-square / (2 * sigma**2), 0)
        rows.append((x - alpha * sum(w * r for w, r in zip(weight, retained, strict=True))) / sigma)
    return torch.stack(rows)


@EACH_SDE
def test_redirects_target_is_the_exact_denoisers_noise(sde: SDE) -> None:
    retained, x0, eps = normal(15, 1, 2, 2), normal(6, 1, 2, 2, seed=1), normal(6, 1, 2, 2, seed=2)
    t = sde.time(torch.linspace(-2.5, 2.5, 6, dtype=torch.float64))
    x = sde.marginal(x0, t, eps)
    target = brute_target(batch(sde, x, t, eps, eps), retained)
    assert float(PLAIN()(replace(batch(sde, x, t, eps, target), retained=Recalled(retained)))) < 1e-16
    noise = normal(6, 1, 2, 2, seed=3).requires_grad_()
    loss = PLAIN()(replace(batch(sde, x, t, eps, noise), retained=Recalled(retained)))
    given = batch(sde, x, t, eps, noise)
    ratio = given.ratio.view(-1, 1, 1, 1)
    denoised, exact = (
        x / sde.alpha(t).view(-1, 1, 1, 1) - ratio * noise,
        x / sde.alpha(t).view(-1, 1, 1, 1) - ratio * target,
    )
    expected = (denoised - exact).square().mean() / given.model.sigma_data**2
    close(loss, expected)
    close(*(torch.autograd.grad(v, noise)[0] for v in (loss, expected)))


def test_redirects_target_is_the_minimiser_of_retraining_on_points() -> None:
    """On a data set of points, m_g of the closed forms is redirect's target: an ideal retrained model says it."""
    sde = VESDE()
    retained = normal(9, 3)
    t = sde.time(torch.linspace(-1, 2, 5, dtype=torch.float64))
    eps = normal(5, 3, seed=2)
    x = sde.marginal(normal(5, 3, seed=1), t, eps)
    exact = GaussianMixture(torch.ones(9), retained, 1e-7).noise(x, sde, t)
    assert float(PLAIN()(replace(batch(sde, x, t, eps, exact), retained=Recalled(retained)))) < 1e-12


def test_redirect_keeps_only_its_noise_levels() -> None:
    sde = VESDE()
    ratio = torch.tensor([0.05, 0.5, 5.0, 40.0], dtype=torch.float64)
    t, eps, noise = sde.time(ratio.log()), normal(4, 1, 2, 2), normal(4, 1, 2, 2, seed=1)
    x, retained = sde.marginal(normal(4, 1, 2, 2, seed=2), t, eps), normal(10, 1, 2, 2, seed=3)

    def value(term: Redirect, rows: slice = slice(None)) -> float:
        return float(term(replace(batch(sde, x[rows], t[rows], eps[rows], noise[rows]), retained=Recalled(retained))))

    each = [value(PLAIN(), slice(i, i + 1)) for i in range(4)]
    assert min(each) > 0
    # What is outside counts as nothing, the mean is still over the batch.
    assert value(PLAIN(low=0.1, high=10)) == pytest.approx((each[1] + each[2]) / 4, rel=1e-12)
    assert value(PLAIN(low=1)) == pytest.approx((each[2] + each[3]) / 4, rel=1e-12)
    assert value(PLAIN(high=0.1)) == pytest.approx(each[0] / 4, rel=1e-12)


def test_redirect_agrees_with_the_retain_loss_at_high_noise() -> None:
    """Where noise hides the image, the target of a forget point is the noise itself but for O(1 / ratio)."""
    sde = VESDE()
    retained, x0 = 0.5 * normal(30, 1, 4, 4), 0.5 * normal(64, 1, 4, 4, seed=1)
    eps, noise = normal(64, 1, 4, 4, seed=2), normal(64, 1, 4, 4, seed=3)
    gaps = []
    for log_ratio in (0.0, 2.0, 3.9):
        t = sde.time(torch.full((64,), log_ratio, dtype=torch.float64))
        given = batch(sde, sde.marginal(x0, t, eps), t, eps, noise)
        error = (noise - eps).flatten(1).square().mean(1)
        retain = (error * (given.ratio / given.model.sigma_data).square()).mean()
        gaps.append(abs(float(PLAIN()(replace(given, retained=Recalled(retained))) / retain) - 1))
    assert gaps[2] < 0.01 and gaps[2] < gaps[0]


def test_redirect_is_bounded_where_its_target_is_not() -> None:
    """eps* grows like 1/sigma where no retained image is near; the error of the denoised image does not."""
    sde = VESDE()
    t = torch.linspace(0, 0.4, 5, dtype=torch.float64)
    retained, x0, eps = normal(10, 1, 2, 2), 5 + normal(5, 1, 2, 2, seed=1), normal(5, 1, 2, 2, seed=2)
    x = sde.marginal(x0, t, eps)
    given = batch(sde, x, t, eps, torch.zeros_like(eps))
    assert brute_target(given, retained).abs().max() > 100
    # The zero prediction denoises x to itself; every D* is a mean of retained images.
    farthest = max(float((x - image).flatten(1).square().mean(1).max()) for image in retained)
    assert float(PLAIN()(replace(given, retained=Recalled(retained)))) <= farthest / given.model.sigma_data**2


def test_terms_read_a_model_in_double_precision_and_single() -> None:
    """A float32 batch gives the float64 values to single precision, also where exponents are large."""
    sde = VESDE()
    model = gaussian_model(sde, (1, 2, 2))
    t = torch.linspace(0.05, 0.95, 16, dtype=torch.float64)
    eps, clean = normal(16, 1, 2, 2), 0.3 * normal(16, 1, 2, 2, seed=1)
    x, retained = sde.marginal(clean, t, eps), 0.3 * normal(12, 1, 2, 2, seed=2)
    noise = model.noise(x, t)
    for term in (Orthogonal(), Orthogonal(form="inner"), Orthogonal(form="literal"), Obtuse(), PLAIN()):
        double = term(replace(batch(sde, x, t, eps, noise), retained=Recalled(retained)))
        single = term(
            replace(batch(sde, x.float(), t.float(), eps.float(), noise.float()), retained=Recalled(retained.float()))
        )
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)
