"""The classifier that sees through noise against the exact odds of mixtures, and the composition of two terms."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from oracle import RETAIN, SDES, gaussian_model
from tiny import PLANE, plane_model, quiet, tiny_model, tiny_split
from torch import Tensor

from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.forgetting import methods
from msgm.forgetting.batch import Noised, Start
from msgm.forgetting.classifier import LEVELS, ClassifierSettings, NoisyClassifier, fit_classifier, measured
from msgm.forgetting.deflect import Deflect
from msgm.forgetting.pairs import PairedAscent
from msgm.forgetting.steer import Steer
from msgm.forgetting.terms import Ascent, ForgetTerm, Obtuse, Orthogonal, UniformTarget
from msgm.forgetting.windows import Windows
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE, VESDE
from msgm.process.times import LogNormalClock
from msgm.training.loop import unlearn
from msgm.training.settings import UnlearnSettings

FORGET = GaussianMixture([1.0], [[0.0, 0.0]])
COUNTS = (6000, 1500)
BOTH = GaussianMixture([0.4, 0.4, 0.2], torch.cat([RETAIN.means, FORGET.means]))


def start(sde: SDE, seed: int = 0) -> Start:
    generator = torch.Generator().manual_seed(7)
    sets = [m.sample(n, generator).float() for m, n in zip((RETAIN, FORGET), COUNTS, strict=True)]
    model = ScoreModel(torch.nn.Identity(), sde, shape=(2,), precondition=Noise(sigma_data=1.9))
    generator = torch.Generator().manual_seed(seed)
    return Start(
        model=model, retain=sets[0], forget=sets[1], clock=LogNormalClock(), batch=64, generator=generator
    )  # fmt: skip


def exact_odds(y: Tensor, ratio: float) -> Tensor:
    sde = VESDE()
    t = sde.time(torch.tensor(math.log(ratio), dtype=torch.float64))
    odds = FORGET.log_density(y.double(), sde, t) - RETAIN.log_density(y.double(), sde, t)
    return odds + math.log(COUNTS[1] / COUNTS[0])


@pytest.fixture(scope="module")
def fitted() -> tuple[NoisyClassifier, list[dict[str, float]]]:
    return fit_classifier(start(VESDE()), ClassifierSettings(steps=800))


def test_the_classifier_comes_to_the_exact_posterior(fitted) -> None:
    """P(forget | x_t) with the share of each set, and its slope, which is what steering follows."""
    classifier, _ = fitted
    sde = VESDE()
    for ratio in (0.5, 1.0, 2.0, 6.0):
        t = sde.time(torch.tensor(math.log(ratio), dtype=torch.float64))
        generator = torch.Generator().manual_seed(1)
        y = BOTH.sample(4000, generator)
        y = (y + ratio * torch.randn(y.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        odds = classifier(y, torch.full((len(y),), ratio, dtype=torch.float64))
        exact = exact_odds(y, ratio)
        gap = (odds.sigmoid() - exact.sigmoid()).abs().mean()
        assert float(gap.detach()) < 0.02, ratio
        slopes = [torch.autograd.grad(torch.nn.functional.logsigmoid(-v).sum(), y)[0] for v in (odds, exact)]
        # What is left of the retained score's distance from the model's own: 1 would be no classifier at all.
        left = (slopes[0] - slopes[1]).square().mean() / slopes[1].square().mean()
        assert float(left) < 0.15, ratio
        expected = RETAIN.noise(y, sde, t) - BOTH.noise(y, sde, t)
        torch.testing.assert_close(-ratio * slopes[1], expected, rtol=1e-6, atol=1e-8)


def test_what_is_measured_on_held_out_images_is_the_classifiers_error(fitted) -> None:
    _, found = fitted
    assert [line["noise"] for line in found] == list(LEVELS)
    generator = torch.Generator().manual_seed(5)
    for line in found:
        wrong, entropy = [], []
        for mixture, truth in ((RETAIN, 0.0), (FORGET, 1.0)):
            y = mixture.sample(20_000, generator)
            y = y + line["noise"] * torch.randn(y.shape, generator=generator, dtype=torch.float64)
            odds = exact_odds(y, line["noise"]) - math.log(COUNTS[1] / COUNTS[0])
            wrong.append(float(((odds > 0).double() != truth).double().mean()))
            target = torch.full_like(odds, truth)
            entropy.append(float(torch.nn.functional.binary_cross_entropy_with_logits(odds, target)))
        # 500 and 150 images were held out: standard errors of 2 and 4 %.
        assert line["error"] == pytest.approx(sum(wrong) / 2, abs=0.08)
        assert line["cross_entropy"] == pytest.approx(sum(entropy) / 2, abs=0.12)
        assert line["calibration"] < 0.15


def test_calibration_sees_a_classifier_that_is_too_sure(fitted) -> None:
    classifier, _ = fitted

    class Sure(torch.nn.Module):
        prior = 0.0

        def forward(self, y: Tensor, ratio: Tensor) -> Tensor:
            return 8 * (classifier(y, ratio) - classifier.prior)

    generator = torch.Generator().manual_seed(2)
    sets = [m.sample(500, generator).float() for m in (RETAIN, FORGET)]
    sure = measured(Sure(), sets[0], sets[1], generator)  # type: ignore[arg-type]
    plain = measured(classifier, sets[0], sets[1], generator)
    assert all(a["calibration"] > b["calibration"] + 0.05 for a, b in zip(sure[1:], plain[1:], strict=True))


def test_one_seed_makes_one_classifier() -> None:
    few = ClassifierSettings(steps=5, batch=4)
    y, ratio = torch.randn(6, 2, generator=torch.Generator().manual_seed(3)), torch.full((6,), 0.7)
    torch.manual_seed(11)
    odds = [fit_classifier(start(VESDE(), seed=seed), few)[0](y, ratio) for seed in (0, 0, 1)]
    assert torch.equal(odds[0], odds[1]) and not torch.equal(odds[0], odds[2])
    state = torch.random.get_rng_state()
    fit_classifier(start(VESDE()), few)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's random numbers are used


def test_a_classifier_says_the_same_of_every_process() -> None:
    """It sees y = x / alpha and r, so what it steers by does not depend on how a process scales the image."""
    classifier, _ = fit_classifier(start(VESDE()), ClassifierSettings(steps=5, batch=4))
    y, ratio = torch.randn(6, 2, generator=torch.Generator().manual_seed(3)), torch.full((6,), 0.7)
    away = {}
    for name, sde in SDES.items():
        term, t = Steer(log_odds=classifier).prepare(start(sde)), sde.time(ratio.log())
        given = Noised(x=sde.alpha(t)[:, None] * y, t=t, eps=y, predicted=y, model=start(sde).model)
        away[name] = term.away(given)
    for name in SDES:
        torch.testing.assert_close(away[name], away["ve"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 64, 48), (2, 15, 15), (5,)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    classifier = NoisyClassifier(shape, sigma_data=0.5, prior=-1.0)
    y = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    odds = classifier(y, torch.tensor([0.01, 1.0, 50.0]))
    assert odds.shape == (3,) and bool(odds.isfinite().all())
    assert classifier(y.double(), torch.ones(3, dtype=torch.float64)).dtype == torch.float64


def test_shapes_that_are_neither_are_refused() -> None:
    with pytest.raises(UserError, match=r"images .* or vectors"):
        NoisyClassifier((4, 4), sigma_data=0.5)


def test_a_known_classifier_is_used_as_it_is() -> None:
    calls = []

    def log_odds(y: Tensor, ratio: Tensor) -> Tensor:
        calls.append(len(y))
        return y.sum(1)

    method = replace(methods.steer(), forget=Steer(log_odds=log_odds))
    assert method.needs == ["forget set", "a copy of the model"]
    child = unlearn(
        plane_model(VESDE()), PLANE, method=method, settings=UnlearnSettings(steps=2, batch=8), run=quiet(),
    )  # fmt: skip
    assert calls == [8, 8] and "prepared" not in child.record


def test_the_record_says_how_good_the_classifier_is() -> None:
    child = unlearn(
        tiny_model(), tiny_split(), method=methods.steer(steps=40), settings=UnlearnSettings(steps=1, batch=4),
        run=quiet(),
    )  # fmt: skip
    found = child.record["prepared"]["classifier"]
    assert [line["noise"] for line in found] == list(LEVELS)
    assert found[0]["error"] < 0.3  # bright left halves against bright right halves


@dataclass(frozen=True, kw_only=True)
class Constant(ForgetTerm):
    """A loss of ``value`` for each image."""

    value: float

    def each(self, batch: Noised) -> Tensor:
        return self.value * batch.predicted.flatten(1).mean(1)


def noised(ratios: list[float]) -> Noised:
    sde, n = VESDE(), len(ratios)
    generator = torch.Generator().manual_seed(0)
    x, eps, predicted = (torch.randn(n, 1, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    t = sde.time(torch.tensor(ratios, dtype=torch.float64).log())
    return Noised(x=x, t=t, eps=eps, predicted=predicted.requires_grad_(), model=gaussian_model(sde, (1, 3, 3)))


def test_each_image_counts_by_the_term_of_its_noise_level() -> None:
    batch = noised([0.1, 3.0, 0.4, 0.6])
    above, below = Constant(value=2.0), Constant(value=-1.0, low=0.2)
    loss = Windows(above=above, below=below, at=0.5, share=3.0)(batch)
    mean = batch.predicted.flatten(1).mean(1)
    torch.testing.assert_close(loss, (2 * mean[1] + 2 * mean[3] - 3 * mean[2]) / 4)
    (gradient,) = torch.autograd.grad(loss, batch.predicted)
    assert gradient.flatten(1).mean(1).tolist() == pytest.approx([v / 36 for v in (0, 2, -3, 2)])


@pytest.mark.parametrize("pair", [(Orthogonal(), Obtuse()), (UniformTarget(), Ascent())])
def test_a_composition_is_its_two_terms_cut_at_the_boundary(pair: tuple[ForgetTerm, ForgetTerm]) -> None:
    batch, at = noised([0.02, 0.1, 0.49, 0.51, 2.0, 20.0]), 0.5

    def drawn() -> Noised:
        return replace(batch, generator=torch.Generator().manual_seed(1))

    found = Windows(above=pair[0], below=pair[1], at=at)(drawn())
    high, low = (term.weight(batch.ratio) * term.each(drawn()) for term in pair)
    torch.testing.assert_close(found, torch.cat([low[:3], high[3:]]).mean())


def test_the_lower_term_counts_what_the_upper_one_is_sure_of() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Knowing(Obtuse):
        def certain(self, batch: Noised) -> Tensor:
            return torch.linspace(0, 1, len(batch.t)).to(batch.x)

    batch = noised([0.02, 0.1, 0.49, 0.51, 2.0, 20.0])
    below, above = Orthogonal(), Knowing()
    found = Windows(above=above, below=below, at=0.5, share=3.0, sure=2.0)(batch)
    low = 3 * above.certain(batch) ** 2 * below.weight(batch.ratio) * below.each(batch)
    high = above.weight(batch.ratio) * above.each(batch)
    torch.testing.assert_close(found, torch.cat([low[:3], high[3:]]).mean())
    # A term that cannot tell leaves the lower one as it is.
    plain = Windows(above=Obtuse(), below=below, at=0.5, sure=2.0)(batch)
    torch.testing.assert_close(plain, Windows(above=Obtuse(), below=below, at=0.5)(batch))
    exact = Steer(log_odds=lambda y, ratio: exact_odds(y, float(ratio[0]))).prepare(start(VESDE()))
    points, ratio = BOTH.sample(9, torch.Generator().manual_seed(2)), torch.full((9,), 0.4, dtype=torch.float64)
    one = Noised(x=points, t=VESDE().time(ratio.log()), eps=points, predicted=points, model=start(VESDE()).model)
    torch.testing.assert_close(exact.certain(one), exact_odds(points, 0.4).sigmoid())
    with pytest.raises(UserError, match="sure"):
        Windows(above=Orthogonal(), below=Obtuse(), sure=-1.0)


def test_a_composition_asks_for_what_its_terms_ask_for() -> None:
    composed = Windows(above=Steer(), below=PairedAscent(), at=1.0)
    assert composed.pairs and not composed.bounded and composed.needs == Steer().needs
    both = Windows(above=Steer(), below=Deflect())
    assert both.needs == "a copy of the model, a classifier of it"
    assert not Windows(above=Orthogonal(), below=Obtuse()).needs
    for wrong in ({"at": 0.0}, {"at": math.inf}, {"share": -1.0}):
        with pytest.raises(UserError, match="noise level"):
            Windows(above=Orthogonal(), below=Obtuse(), **wrong)
    with pytest.raises(UserError, match="margin"):
        Steer(margin=-1.0)
    with pytest.raises(UserError, match="steps"):
        ClassifierSettings(steps=0)
