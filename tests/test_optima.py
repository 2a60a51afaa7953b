"""Each exact optimum against the library's own terms: their mean gradient vanishes there, within Monte Carlo error."""

import math
from dataclasses import replace

import pytest
import torch
from oracle import RETAIN
from torch import Tensor

from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.experiments.exact.optima import optimum
from msgm.forgetting import methods
from msgm.forgetting.batch import Noised
from msgm.forgetting.combine import Weighted
from msgm.forgetting.methods import Method
from msgm.forgetting.steer import Steer, Steered
from msgm.forgetting.terms import Denoising, ForgetTerm, Obtuse, Orthogonal, Redirect
from msgm.forgetting.windows import Windows
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE, VESDE, VPSDE, expand

FORGET = GaussianMixture([1.0], [[0.3, 0.0]])
POINTS = torch.tensor([[0.4, -0.3], [1.3, -1.6], [-1.5, -1.0], [0.05, 0.02]], dtype=torch.float64)


def steer(alpha: float, term: ForgetTerm) -> Method:
    return Method(name="steer", forget=term, combine=Weighted(alpha=alpha, every=1))


FREE = Steer(margin=4.0, reach=1e6)
OBJECTIVES = {
    "unseen": methods.unseen(),
    "orthogonal": methods.orthogonal(alpha=0.7, every=1),
    "orthogonal-inner": methods.orthogonal(alpha=0.7, every=1, form="inner"),
    "orthogonal-literal": methods.orthogonal(alpha=0.95, every=1, form="literal"),
    "obtuse": methods.obtuse(alpha=0.6, every=1),
    "obtuse-narrow": methods.obtuse(alpha=0.6, every=1, window=0.5, clamp=0.2),
    "obtuse-literal": methods.obtuse(alpha=0.9, every=1, form="literal"),
    "obtuse-released": methods.obtuse(alpha=0.9, every=1, form="released_sign"),
    "erasediff": methods.erasediff(alpha=0.7),
    "steer": steer(0.6, FREE),
    "steer-within-reach": steer(0.6, Steer(margin=4.0, reach=0.6)),
    "steer-as-noise": steer(0.8, Steer(margin=1.5, reach=1e6, weighting="noise")),
    "steer-over-orthogonal": steer(
        0.6, Windows(above=Steer(margin=4.0, reach=1e6), below=Orthogonal(), at=0.7, share=2.0)
    ),
    "steer-over-what-is-sure": steer(0.6, Windows(above=FREE, below=Orthogonal(), at=0.7, sure=2.0)),
    "redirect": steer(0.6, Redirect(low=0.0, contrast=1.5)),
    "recalled-over-steer-over-orthogonal": steer(
        0.6,
        Windows(above=Redirect(contrast=0.7), below=Windows(above=FREE, below=Orthogonal(), at=0.25, sure=2.0), at=1.1),
    ),
    "obtuse-over-steer": steer(0.6, Windows(above=Obtuse(window=2.0), below=FREE, at=0.7)),
}
SHARE = 0.3
"""Of the forget set in all data."""


def known(term: ForgetTerm | None, sde: SDE) -> ForgetTerm | None:
    """The term with the exact model of all data and the exact P(forget | x_t), where it needs them."""
    if isinstance(term, Windows):
        return replace(term, above=known(term.above, sde), below=known(term.below, sde))
    if isinstance(term, Redirect):
        return replace(term, denoiser=lambda y, ratio: denoised(y, ratio, sde))
    if not isinstance(term, Steer):
        return term
    both = GaussianMixture([*(RETAIN.weights * (1 - SHARE)), SHARE], torch.cat([RETAIN.means, FORGET.means]))

    def log_odds(y: Tensor, ratio: Tensor) -> Tensor:
        t = sde.time(ratio.log())
        x = expand(sde.alpha(t), y) * y
        return FORGET.log_density(x, sde, t) - RETAIN.log_density(x, sde, t) + math.log(SHARE / (1 - SHARE))

    return Steered(
        margin=term.margin, reach=term.reach, weighting=term.weighting, low=term.low, high=term.high, log_odds=log_odds,
        before=both.as_model(sde),
    )  # fmt: skip


def denoised(y: Tensor, ratio: Tensor, sde: SDE) -> Tensor:
    """The retained mixture's own denoised point."""
    t = sde.time(ratio.log())
    return y - expand(ratio, y) * RETAIN.noise(expand(sde.alpha(t), y) * y, sde, t)


def posterior_sample(mixture: GaussianMixture, x: Tensor, sde: SDE, t: Tensor, n: int, seed: int) -> Tensor:
    """n draws of eps given x_t, from the definition: components by posterior, then their Gaussians."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(mixture.component_posterior(x[None], sde, t)[0], n, replacement=True, generator=generator)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    variance = (alpha * mixture.stds[k]).square() + sigma**2
    mean = sigma * (x - alpha * mixture.means[k]) / variance[:, None]
    spread = alpha * mixture.stds[k] / variance.sqrt()
    return mean + spread[:, None] * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def gradient(method: Method, e: Tensor, x: Tensor, sde: SDE, t: Tensor, n: int = 40_000) -> tuple[Tensor, Tensor]:
    """Gradient of the expected loss at a prediction e, by parts of a sample of the noise: its mean and error, (2,)."""
    model = ScoreModel(torch.nn.Identity(), sde, shape=(2,), precondition=Noise())
    density = {m: float(m.log_density(x[None], sde, t).exp()) for m in (RETAIN, FORGET)}
    parts = []
    for seed in range(20):
        free = e.clone().requires_grad_()
        total = torch.zeros((), dtype=torch.float64)
        for mixture, term, weight in (
            (RETAIN, Denoising(weighting="noise"), method.combine.alpha),
            (FORGET, known(method.forget, sde), 1 - method.combine.alpha),
        ):
            if term is None:
                continue
            eps = posterior_sample(mixture, x, sde, t, n // 20, seed=100 * seed + (mixture is FORGET))
            given = Noised(
                x=x.expand(len(eps), 2),
                t=t.expand(len(eps)),
                eps=eps,
                predicted=free.expand(len(eps), 2),
                model=model,
                generator=torch.Generator().manual_seed(seed),
            )
            loss = term(given)
            total = total + weight * density[mixture] * loss
        parts.append(torch.autograd.grad(total, free)[0])
    stacked = torch.stack(parts)
    return stacked.mean(0), stacked.std(0) / math.sqrt(len(parts))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("sde", [VESDE(), VPSDE()], ids=["ve", "vp"])
def test_the_gradient_of_the_loss_vanishes_at_the_optimum(name: str, sde: SDE) -> None:
    method = OBJECTIVES[name]
    model = optimum(method, RETAIN, FORGET, sde, share=SHARE)
    for log_ratio in (-1.2, 0.2):
        t = sde.time(torch.tensor(log_ratio, dtype=torch.float64))
        x = sde.alpha(t) * POINTS
        e = model.noise(x, t).detach()
        found = []
        for point, prediction in zip(x, e, strict=True):
            mean, error = gradient(method, prediction, point, sde, t)
            # 20 parts: Student's t with 19 degrees of freedom passes 6 with probability 1e-5.
            assert bool((mean.abs() < 6 * error + 1e-12).all()), (log_ratio, point, mean / error)
            elsewhere, error = gradient(method, prediction + 0.25, point, sde, t)
            found.append(float((elsewhere.abs() / error).max()))
        assert min(found) > 6  # the test can tell


@pytest.mark.parametrize("name", OBJECTIVES)
def test_optima_differentiate_as_finite_differences_do(name: str) -> None:
    """The likelihood needs their divergence; the windowed one is found by iteration and differentiated implicitly."""
    sde = VESDE()
    model, t = (
        optimum(OBJECTIVES[name], RETAIN, FORGET, sde, share=SHARE),
        sde.time(torch.tensor(-0.5, dtype=torch.float64)),
    )
    x = POINTS.clone().requires_grad_()
    noise, step = model.noise(x, t), 1e-5
    for i in range(2):
        (slope,) = torch.autograd.grad(noise[:, i].sum(), x, retain_graph=True)
        for j in range(2):
            shift = step * torch.eye(2, dtype=torch.float64)[j]
            with torch.no_grad():
                numeric = (model.noise(x + shift, t) - model.noise(x - shift, t))[:, i] / (2 * step)
            torch.testing.assert_close(slope[:, j], numeric, rtol=1e-5, atol=1e-6)


def test_without_a_clamp_the_windowed_optimum_is_linear() -> None:
    sde, t = VESDE(), torch.tensor(0.5, dtype=torch.float64)
    wide = optimum(methods.obtuse(alpha=0.7, every=1, window=1e9, clamp=1e9), RETAIN, FORGET, sde)
    literal = optimum(methods.obtuse(alpha=0.7, every=1, form="literal"), RETAIN, FORGET, sde)
    torch.testing.assert_close(wide.noise(POINTS, t), literal.noise(POINTS, t), rtol=1e-8, atol=1e-8)


def test_steered_without_a_margin_to_the_retained_score_whatever_the_weight() -> None:
    """With the exact classifier the target itself is m_g; forbidding below the boundary leaves what is above alone."""
    sde = VESDE()
    for log_ratio in (-1.0, 0.0, 1.0):
        t = sde.time(torch.full((len(POINTS),), log_ratio, dtype=torch.float64))
        target = RETAIN.noise(POINTS, sde, t)
        model = ScoreModel(torch.nn.Identity(), sde, shape=(2,), precondition=Noise())
        exact = known(Steer(margin=0.0, reach=1e6), sde)
        assert exact is not None
        given = Noised(x=POINTS, t=t, eps=torch.zeros_like(POINTS), predicted=target, model=model)
        assert float(exact(given)) < 1e-20
        off = replace(given, predicted=target + 0.01)
        assert float(exact(off)) == pytest.approx(1e-4 * (math.exp(log_ratio) / 0.5) ** 2)
        for alpha in (0.1, 0.9):
            composed = Windows(above=Steer(margin=0.0, reach=1e6), below=Orthogonal(), at=0.7)
            found = optimum(steer(alpha, composed), RETAIN, FORGET, sde, share=SHARE).noise(POINTS, t)
            if log_ratio >= 0:
                torch.testing.assert_close(found, target, rtol=1e-10, atol=1e-10)
            else:
                below = optimum(methods.orthogonal(alpha=alpha, every=1), RETAIN, FORGET, sde).noise(POINTS, t)
                torch.testing.assert_close(found, below, rtol=1e-10, atol=1e-10)
                assert bool((found - target).abs().max() > 1e-3)


def test_every_fourth_step_is_a_quarter_of_the_weight() -> None:
    sde, t = VESDE(), torch.tensor(0.4, dtype=torch.float64)
    fourth = optimum(methods.orthogonal(alpha=0.5, every=4), RETAIN, FORGET, sde)
    quarter = optimum(methods.orthogonal(alpha=0.8, every=1), RETAIN, FORGET, sde)  # (1 - a) / a = 1/4
    torch.testing.assert_close(fourth.noise(POINTS, t), quarter.noise(POINTS, t))


def test_optima_that_are_not_known_are_refused() -> None:
    apart = replace(methods.orthogonal(), combine=Weighted(alpha=0.99, every=4, separate=True))
    for method in (methods.standard(), methods.retrack(), methods.deflect(), apart):
        with pytest.raises(UserError, match=method.name):
            optimum(method, RETAIN, FORGET, VESDE())
