"""The peers' terms against closed forms: SISS at every time, ascent, redirection to neighbours, the forget expert."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from oracle import RETAIN, SDES
from test_regularise import Shift, start
from test_terms import EACH_POINT, EACH_SDE, FORGET, PLAIN, AtPoint, batch, brute_target, close, normal
from tiny import PLANE, plane_model, quiet
from torch import Tensor

from msgm.errors import UserError
from msgm.forgetting import methods
from msgm.forgetting.batch import Noised, Recalled
from msgm.forgetting.combine import Weighted
from msgm.forgetting.deflect import Deflect, Deflected
from msgm.forgetting.expert import AwayFrom, Expert
from msgm.forgetting.methods import METHODS, PARTS
from msgm.forgetting.pairs import PairedAscent, PairedDenoising, paired_errors
from msgm.forgetting.steer import Steered
from msgm.forgetting.terms import Ascent, Denoising, ForgetTerm, Negated, Redirect, UniformTarget
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.model.vectors import flatten
from msgm.process.posterior import exact_denoiser
from msgm.process.sde import DDPM, SDE, VESDE
from msgm.training import loop as training
from msgm.training.loop import unlearn
from msgm.training.settings import UnlearnSettings


@EACH_SDE
@EACH_POINT
def test_minimisers_are_the_closed_forms(sde: SDE, point: tuple[float, ...]) -> None:
    at, alpha = AtPoint(sde, point, log_ratio=-0.3), 0.9
    g, f = alpha * at.density[RETAIN], (1 - alpha) * at.density[FORGET]
    m_g, m_f = at.mean(RETAIN), at.mean(FORGET)
    if f < g:
        # At f = g ascent has no optimum, beyond it the loss has no minimum.
        close(at.minimiser(Ascent(), alpha), (g * m_g - f * m_f) / (g - f))
    w = 1 / (1 + (at.sigma / at.alpha / 0.7) ** 4)
    close(at.minimiser(Negated(window=0.7), alpha), (g * m_g - w * f * m_f) / (g + w * f))
    known = PLAIN(denoiser=lambda y, r: RETAIN.as_model(sde).denoise(at.alpha * y, at.t), weighting="noise")
    close(at.minimiser(known, alpha), m_g)
    close(at.minimiser(replace(known, contrast=0.4), alpha), m_g + 0.4 * f / (f + g) * (m_g - m_f))
    # Away from what a model of both sets says: it knows the odds of the point.
    share = at.density[RETAIN] / (at.density[RETAIN] + at.density[FORGET])
    both = share * m_g + (1 - share) * m_f
    before = ScoreModel(Shift(both), sde, shape=(2,), precondition=Noise())
    deflect = Deflected(contrast=2.5, weighting="noise", before=before)
    aim = m_f + 3.5 * share * (m_g - m_f)
    close(at.minimiser(deflect, alpha), (g * m_g + f * aim) / (g + f))
    image = (at.sigma / at.alpha / before.sigma_data) ** 2
    weighted = replace(deflect, weighting="image")
    close(at.minimiser(weighted, alpha), (g * m_g + image * f * aim) / (g + image * f))


def test_ascent_written_out() -> None:
    sde, t = VESDE(), torch.full((3,), 0.5, dtype=torch.float64)
    x, eps = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1)
    noise = (eps + torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64).view(3, 1, 1, 1)).requires_grad_()
    given = batch(sde, x, t, eps, noise)  # errors 0.01, 1, 9
    assert Ascent()(given).item() == pytest.approx(-10.01 / 3)
    bounded = Ascent(form="bounded", clamp=2.0)(given)
    assert bounded.item() == pytest.approx(-(0.01 + 1 + 2) / 3)
    (slope,) = torch.autograd.grad(bounded, noise)
    assert slope[:2].all() and not slope[2].any()  # past the clamp nothing pulls
    adaptive = Ascent(adaptive=0.5, strength=10.0)(given)
    assert adaptive.item() == pytest.approx(-10 * (0.1 + 1 + 3) / 3)
    (slope,) = torch.autograd.grad(adaptive, noise)
    # The weight is held fixed: every image pulls as hard, 10 * 2 (noise - eps) l^-1/2 / 12.
    torch.testing.assert_close(slope, torch.full_like(slope, -10 * 2 / 12))
    for progress, share in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        faded = Ascent(fade=True)(replace(given, progress=progress))
        assert faded.item() == pytest.approx(-share * 10.01 / 3, abs=1e-12)


def test_deflect_keeps_the_model_as_it_was_and_asks_nothing_at_contrast_0() -> None:
    theta = torch.tensor([2.0, -1.0])
    model = ScoreModel(Shift(theta.clone()), VESDE(), shape=(2,), precondition=Noise())
    term = Deflect(contrast=0.0, high=1e6).prepare(start(model))
    given = start(model).noised(model, PLANE.forget.rows(), 4)
    assert term(given).item() == 0
    with torch.no_grad():
        model.network.theta += 1  # training goes on, the term's copy stays
    given = start(model).noised(model, PLANE.forget.rows(), 4)
    assert replace(term, weighting="noise")(given).item() == 1
    assert torch.equal(term.before.network.theta, theta)
    with pytest.raises(UserError, match="prepare"):
        Deflect()(given)
    with pytest.raises(UserError, match="contrast must be 0 or more"):
        methods.deflect(contrast=-1.0)


@pytest.mark.parametrize("name", PARTS["forget"])
def test_every_term_has_the_same_windows(name: str) -> None:
    if name == "expert":
        network = ScoreModel(Shift(torch.zeros(2, dtype=torch.float64)), VESDE(), shape=(2,), precondition=Noise())
        term: ForgetTerm = AwayFrom(eta=1.0, before=network, expert=network)
    elif name == "steer":
        network = ScoreModel(Shift(torch.zeros(2).double()), VESDE(), shape=(2,), precondition=Noise())
        term = Steered(before=network, log_odds=lambda y, ratio: y.square().sum(1) - ratio)
    elif name == "deflect":
        term = Deflected(before=ScoreModel(Shift(torch.zeros(2).double()), VESDE(), shape=(2,), precondition=Noise()))
    else:
        term = PARTS["forget"][name](window=None) if name != "obtuse" else PARTS["forget"][name](window=1e9)
    term = replace(term, low=0.0, high=1e6)
    sde, ratio = VESDE(), torch.tensor([0.05, 0.5, 5.0, 40.0], dtype=torch.float64)
    t, eps, noise = sde.time(ratio.log()), normal(4, 2), normal(4, 2, seed=1)
    given = batch(sde, sde.marginal(normal(4, 2, seed=2), t, eps), t, eps, noise)
    retained = normal(10, 2, seed=3)

    def value(term: ForgetTerm) -> float:
        return term(replace(given, generator=torch.Generator().manual_seed(0), retained=Recalled(retained))).item()

    each = term.each(replace(given, generator=torch.Generator().manual_seed(0), retained=Recalled(retained)))
    assert value(term) == pytest.approx(float(each.mean()))
    assert value(replace(term, low=0.1, high=10.0)) == pytest.approx(float(each[1:3].sum()) / 4)
    smooth = each / (1 + (ratio / 2.0) ** 4)
    assert value(replace(term, window=2.0)) == pytest.approx(float(smooth.mean()))
    for bad in ({"low": 3.0, "high": 2.0}, {"window": 0.0}):
        with pytest.raises(UserError, match=r"noise level"):
            replace(term, **bad)


def halves(sde: SDE, t: Tensor, d: int = 3, distance: float = 1.0) -> tuple[Noised, Noised]:
    n = len(t)
    x0, a0 = normal(n, d), distance * normal(n, d, seed=1)
    eps, noise = normal(n, d, seed=2).to(t), normal(2 * n, d, seed=3).to(t)
    x, a = (sde.marginal(v.to(t), t, eps) for v in (x0, a0))
    return batch(sde, x, t, eps, noise[:n]), batch(sde, a, t, eps, noise[n:])


@EACH_SDE
def test_siss_is_importance_sampling(sde: SDE) -> None:
    """Against the densities themselves, with the noise of each image at each point from its definition."""
    t, mix = sde.time(torch.linspace(-0.5, 1.5, 6, dtype=torch.float64)), 0.3
    retain, forget = halves(sde, t)
    found = paired_errors(retain, forget, mix)
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    clean = [(h.x - sigma * h.eps) / alpha for h in (retain, forget)]

    def density(m: Tensor, x0: Tensor) -> Tensor:
        return torch.exp(-(m - alpha * x0).square().sum(1) / (2 * sigma[:, 0] ** 2))

    for which, image in enumerate(clean):
        expected = torch.zeros(6, dtype=torch.float64)
        for share, half in ((1 - mix, retain), (mix, forget)):
            mixture = (1 - mix) * density(half.x, clean[0]) + mix * density(half.x, clean[1])
            eps = (half.x - alpha * image) / sigma
            expected += share * density(half.x, image) / mixture * (half.predicted - eps).square().mean(1)
        torch.testing.assert_close(found[which], expected, rtol=1e-8, atol=1e-8)


def test_siss_weights_are_unbiased() -> None:
    """E_m[w_x] = 1 and E_m[w_x |e - eps_x|^2] is the plain loss on x alone, for any prediction: here e(m) = m."""
    sde, n = VESDE(), 200_000
    t = sde.time(torch.zeros(n, dtype=torch.float64))
    eps, x0, a0 = normal(n, 2), torch.tensor([0.4, 0.1]).double(), torch.tensor([-0.5, 0.6]).double()
    x, a = x0 + eps, a0 + eps  # sigma = 1
    retain, forget = batch(sde, x, t, eps, x), batch(sde, a, t, eps, a)
    for mix in (0.2, 0.5, 0.8):
        for found, clean in zip(paired_errors(retain, forget, mix), (x0, a0), strict=True):
            error = 5 * float(found.std()) / math.sqrt(n)
            assert abs(float(found.mean()) - float(clean.square().mean())) < error


@EACH_SDE
def test_siss_does_not_overflow_at_any_time(sde: SDE) -> None:
    """In single precision, also where the two images' densities differ by a factor of e^(10^9)."""
    for distance in (1.0, 100.0):
        if isinstance(sde, DDPM):
            t = torch.arange(sde.steps, dtype=torch.float32) / (sde.steps - 1)
        else:
            t = torch.cat([torch.tensor([sde.t_train]), torch.linspace(sde.t_train, 1, 400)])
        retain, forget = halves(sde, t, d=64, distance=distance)
        noise = [h.predicted.float().requires_grad_() for h in (retain, forget)]
        retain, forget = (replace(h, predicted=v) for h, v in zip((retain, forget), noise, strict=True))
        loss = PairedDenoising()(replace(retain, pair=forget)) + PairedAscent()(replace(forget, pair=retain))
        assert bool(torch.isfinite(loss))
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, noise))
    # Far apart each image is read at its own point alone.
    total = paired_errors(retain, forget, 0.5)
    own = [(h.predicted - h.eps).square().mean(1) for h in (retain, forget)]
    first = slice(0, 1)
    torch.testing.assert_close([v[first] for v in total], [v[first] for v in own])


def test_siss_alone_is_the_ordinary_loss_and_shares_the_runs_noise(monkeypatch) -> None:
    retain, _ = halves(VESDE(), torch.full((4,), 0.5, dtype=torch.float64))
    close(PairedDenoising()(retain), Denoising()(retain))
    seen = []
    each = PairedAscent.each
    monkeypatch.setattr(PairedAscent, "each", lambda self, b: (seen.append(b), each(self, b))[1])
    settings = UnlearnSettings(steps=2, batch=8)
    unlearn(plane_model(VESDE()), PLANE, method=methods.siss(), settings=settings, run=quiet())
    assert len(seen) == 2
    for b in seen:
        assert b.pair is not None and torch.equal(b.eps, b.pair.eps) and torch.equal(b.t, b.pair.t)
    for mix in (0.0, 1.0):
        with pytest.raises(UserError, match="mix"):
            methods.siss(mix=mix)


def redirected(term: Redirect, seed: int = 0, n: int = 40) -> tuple[Noised, Tensor, Tensor]:
    sde = VESDE()
    retained, t = normal(n, 3), sde.time(torch.linspace(-1.5, 1.5, 6, dtype=torch.float64))
    eps = normal(6, 3, seed=2)
    given = batch(sde, sde.marginal(normal(6, 3, seed=1), t, eps), t, eps, eps)
    given = replace(given, generator=torch.Generator().manual_seed(seed))
    found = term.denoised(replace(given, retained=Recalled(retained)), given.x)
    return given, retained, found


def test_neighbours_are_the_largest_weights() -> None:
    given, retained, found = redirected(PLAIN(neighbours=5))
    for x, r, row in zip(given.x, given.ratio, found, strict=True):
        square = (x - retained).square().sum(1)
        near = square.argsort()[:5]
        weight = torch.softmax(-square[near] / (2 * r**2), 0)
        torch.testing.assert_close(row, weight @ retained[near])
    exact = exact_denoiser(given.x, given.ratio, retained)
    for term in (PLAIN(), PLAIN(neighbours=40), PLAIN(subset=40), PLAIN(neighbours=1000, subset=1000)):
        torch.testing.assert_close(redirected(term)[2], exact)


def test_neighbours_of_the_image_do_not_depend_on_its_noise() -> None:
    """ReTrack: the nearest to the clean forget image, weighted by how well they explain the noised point."""
    given, retained, found = redirected(PLAIN(neighbours=3, near="image"))
    images = normal(6, 3, seed=1)
    others = redirected(PLAIN(neighbours=3))[2]
    for x0, x, r, row in zip(images, given.x, given.ratio, found, strict=True):
        near = (x0 - retained).square().sum(1).argsort()[:3]
        weight = torch.softmax(-(x - retained[near]).square().sum(1) / (2 * r**2), 0)
        torch.testing.assert_close(row, weight @ retained[near])
    assert float((found - others).abs().max()) > 0.1


def test_a_subset_is_drawn_anew_from_the_generator() -> None:
    term = PLAIN(subset=4)
    first, again, other = redirected(term)[2], redirected(term)[2], redirected(term, seed=1)[2]
    assert torch.equal(first, again) and not torch.equal(first, other)
    given, retained, _ = redirected(term)
    chosen = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:4]
    torch.testing.assert_close(first, exact_denoiser(given.x, given.ratio, retained[chosen]))


def test_retrack_is_the_error_of_the_noise() -> None:
    given, retained, _ = redirected(PLAIN())
    given = replace(given, predicted=normal(6, 3, seed=5))
    expected = (given.predicted - brute_target(given, retained)).square().mean()
    close(PLAIN(weighting="noise")(replace(given, retained=Recalled(retained))), expected)
    assert methods.retrack().forget == PLAIN(weighting="noise", neighbours=10, near="image")
    assert methods.retrack().combine == Weighted(alpha=0.98, every=1)
    with pytest.raises(UserError, match="contrast must be 0 or more"):
        Redirect(contrast=-0.1)
    with pytest.raises(UserError, match="neighbours"):
        methods.retrack(neighbours=-1)


def test_the_experts_target_is_away_from_what_it_learned() -> None:
    """A model that says one vector learns the mean noise, 0; the target is eps_0 - eta (eps_f - eps_0)."""
    theta = torch.tensor([2.0, -1.0])
    model = ScoreModel(Shift(theta), VESDE(), shape=(2,), precondition=Noise())
    term = Expert(eta=1.5, steps=400, lr=0.05, low=0.2).prepare(start(model))
    assert torch.equal(model.network.theta, theta) and term.low == 0.2  # the given model is as it was
    learned = term.expert.network.theta.detach()
    assert float(learned.abs().max()) < 0.5
    target = theta - 1.5 * (learned - theta)
    given = start(model).noised(model, PLANE.forget.rows(), 4)
    torch.testing.assert_close(replace(term, low=0.0)(given), (theta - target).square().mean())
    with pytest.raises(UserError, match="prepared"):
        Expert()(given)


def test_the_uniform_target_still_counts_each_image_alike() -> None:
    given = replace(redirected(PLAIN())[0], generator=torch.Generator().manual_seed(1))
    u = torch.rand(given.predicted.shape, generator=torch.Generator().manual_seed(1)).to(given.predicted)
    close(UniformTarget()(given), (given.predicted - u).square().mean())


@pytest.mark.parametrize("name", ["erasediff", "munba", "siss", "esd", "redirect", "deflect"])
def test_the_average_is_not_the_parent_and_says_what_the_live_weights_say(name: str, monkeypatch) -> None:
    parent, live = plane_model(SDES["ve"]), []
    follow = training.follow
    monkeypatch.setattr(training, "follow", lambda a, m, d: (follow(a, m, d), live.append(m))[0])
    method = METHODS[name](**({"steps": 10} if name == "esd" else {}))
    settings = UnlearnSettings(steps=60, batch=32, lr=1e-2, ema=0.8)
    average = unlearn(parent, PLANE, method=method, settings=settings, run=quiet())
    given, last = start(parent, batch=256), copy.deepcopy(average)
    flatten(last).copy_(live[-1])

    def error(model: ScoreModel) -> float:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(4)
            return float(Denoising()(replace(given, generator=generator).noised(model, given.retain, 256)))

    before, now, averaged = error(parent), error(last), error(average)
    assert abs(now - before) > 0.05 * before
    assert abs(averaged - now) < 0.3 * abs(now - before)
