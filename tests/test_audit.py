"""The evidence about one model: whose classes are forgotten, shares that add up, likelihoods that are checked."""

import math

import pytest
import torch
from torch import Tensor, nn

from msgm.choice import Choice
from msgm.data import ForgetRequest, Images, Source
from msgm.errors import UserError
from msgm.experiments.core.evaluate import EvaluateSettings, check, evaluate
from msgm.likelihood import Likelihood
from msgm.metrics import measures, quantities
from msgm.metrics.judge import JUNK, Judge
from msgm.metrics.shares import forget_classes
from msgm.model.precondition import EDM
from msgm.model.score import ScoreModel
from msgm.model.space import Space
from msgm.process.sde import VESDE
from msgm.sampling import DPMSolver, EulerMaruyama, Heun

SHAPE = (1, 8, 8)
SPREAD = 0.1
QUICK = EvaluateSettings(n=12, sampler=Choice.of("dpm++", steps=12), nll_images=3, nll_steps=32, nll_check=2, seed=5)


class Gaussian(nn.Module):
    """What an "edm" network says that is exact for images x ~ N(mean, SPREAD^2 I) under VE."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        sigma = (label / EDM().per_nat).exp().view(-1, 1, 1, 1)
        return (self.mean * sigma / SPREAD / (sigma**2 + SPREAD**2).sqrt()).expand_as(x)


class Brightness(Judge):
    """A judge that needs no training: dark images are 0, middling ones 1, bright ones junk."""

    def __init__(self) -> None:
        super().__init__((0, 1), SHAPE, names=("night", "day"), width=2)

    def predict(self, x: Tensor, batch: int = 500) -> Tensor:
        level = self.space.to_model(x).flatten(1).mean(1)
        return torch.where(level > 0.5, torch.tensor(JUNK), (level > 0).long())


def gaussian(mean: float) -> ScoreModel:
    return ScoreModel(Gaussian(mean), VESDE(), shape=SHAPE, precondition=EDM(sigma_data=SPREAD))


@pytest.fixture(scope="module")
def skies() -> Images:
    """Six images of each class, drawn from the Gaussian that the model with mean -0.25 is exact for."""
    generator = torch.Generator().manual_seed(0)
    x = -0.25 + SPREAD * torch.randn(12, *SHAPE, generator=generator)
    return Images.of(
        Space().to_pixels(x), columns={"label": torch.arange(12) % 2}, name="skies", label_names=("night", "day")
    )


REQUEST = ForgetRequest("label == 0")


# ---------------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("rule", "classes"),
    [
        ("label == 0", {0}),
        ("label > 0", {1}),
        ("label == 'night'", {0}),
        ("not label == 'night'", {1}),
        ("label in [0, 1]", {0, 1}),
        ("label == 7", set()),
    ],
)
def test_classes_that_a_rule_selects(rule: str, classes: set[int]) -> None:
    assert forget_classes(ForgetRequest(rule), Brightness()) == classes


def test_classes_of_a_judge_of_another_column() -> None:
    judge = Judge((0, 1), SHAPE, column="Bangs", width=2)
    assert forget_classes(ForgetRequest("Bangs == 1"), judge) == {1}
    with pytest.raises(UserError, match=r"does not know what is to be forgotten.*known columns: Bangs"):
        forget_classes(ForgetRequest("label == 1"), judge)


def test_a_class_that_the_judge_does_not_know_is_its_lack_not_the_datas() -> None:
    judge = Judge((0, 1), SHAPE, names=("ant", "cat"), width=2)
    judge.record = {"data": {"train": {"name": "pets"}}}
    said = r"the judge \(trained on pets\) does not know what is to be forgotten: rule .*bee.*0 \(ant\), 1 \(cat\)"
    with pytest.raises(UserError, match=said) as refused:
        forget_classes(ForgetRequest("label == 'bee'"), judge)
    assert refused.value.option == "judge"


def test_classes_need_not_be_numbered_from_nought() -> None:
    judge = Judge((3, 5, 8), SHAPE, width=2)
    assert forget_classes(ForgetRequest("label in [5, 8]"), judge) == {5, 8}


# ----------------------------------------------------------------------------------------------------------- checks


def test_shapes_must_agree(skies: Images) -> None:
    larger = torch.zeros(12, 1, 9, 9, dtype=torch.uint8)
    other = Images.of(larger, columns=skies.columns, name="larger skies")
    with pytest.raises(UserError, match=r"\(1, 8, 8\).*\(1, 9, 9\) must agree"):
        check(gaussian(0.0), Brightness(), REQUEST, other)
    with pytest.raises(UserError, match="must agree"):
        check(gaussian(0.0), Judge((0, 1), (1, 9, 9), width=2), REQUEST, skies)
    with pytest.raises(UserError, match="must agree"):
        evaluate(
            gaussian(0.0), name="m", method="standard", judge=Brightness(), request=REQUEST, test=other, progress=False
        )


@pytest.mark.parametrize(("rule", "said"), [("label >= 0", "selects all"), ("label == 2", "selects none")])
def test_rules_must_divide_the_skies(rule: str, said: str, skies: Images) -> None:
    with pytest.raises(UserError, match=said):
        check(gaussian(0.0), Brightness(), ForgetRequest(rule), skies)


def test_the_judge_must_tell_what_is_forgotten(skies: Images) -> None:
    blind = Judge((1, 2), SHAPE, width=2)
    with pytest.raises(UserError, match=r"none of the judge's classes 1, 2"):
        check(gaussian(0.0), blind, REQUEST, skies)
    with pytest.raises(UserError, match=r"all of the judge's classes 1, 2"):
        check(gaussian(0.0), blind, ForgetRequest("label == 1 or label == 2"), skies)


def test_a_judge_of_some_numbers_is_asked_by_their_names() -> None:
    judge = Judge((2, 10), (1, 8, 8), width=2)
    for rule in ("label == 2", "label == '2'", "label < 10"):
        assert forget_classes(ForgetRequest(rule), judge) == {2}
    assert forget_classes(ForgetRequest("label == 10"), judge) == {10}


def test_a_good_request_gives_classes_and_mask(skies: Images) -> None:
    classes, mask = check(gaussian(0.0), Brightness(), REQUEST, skies)
    assert classes == {0}
    assert torch.equal(mask, skies.labels == 0)


@pytest.mark.parametrize(
    "bad",
    [{"n": 1}, {"nll_images": -1}, {"nll_check": 0}, {"nll_steps": 0}, {"sampler": Choice.of("dpm++", steps=0)}],
    ids=lambda bad: next(iter(bad)),
)
def test_settings_are_checked(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        EvaluateSettings(**bad)  # type: ignore[arg-type]


def test_settings_choose_the_sampler() -> None:
    model = gaussian(0.0)
    for settings, kind, steps in (
        (EvaluateSettings(), DPMSolver, 16),
        (EvaluateSettings(sampler=Choice("euler-maruyama")), EulerMaruyama, 200),
        (EvaluateSettings(sampler=Choice.of("dpm++", steps=7)), DPMSolver, 7),
        (EvaluateSettings(sampler=Choice.of("heun", steps=12)), Heun, 12),
    ):
        sampler = settings.build(model)
        assert type(sampler) is kind
        assert sampler.steps == steps
    assert EvaluateSettings(sampler=Choice.of("dpm++", grid="edm")).build(model).grid == "edm"


# --------------------------------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(-0.25, (1.0, 0.0, 0.0)), (0.25, (0.0, 0.0, 1.0)), (0.75, (0.0, 1.0, 0.0))],
    ids=["all forgotten", "all retained", "all junk"],
)
def test_shares_of_a_model_that_makes_one_thing(mean: float, expected: tuple[float, ...], skies: Images) -> None:
    row, subject = evaluate(
        gaussian(mean),
        name="m",
        method="unseen",
        judge=Brightness(),
        request=REQUEST,
        test=skies,
        settings=EvaluateSettings(n=12, nll_images=0, seed=5),
        seconds=3.0,
        progress=False,
    )
    shown, pixels = row.to_dict(), subject.pixels
    assert (shown["unlearning_ratio"]["value"], shown["junk"], shown["retained"]) == expected
    assert shown["unlearning_ratio"]["n"] == len(pixels) == 12
    assert pixels.dtype == torch.uint8
    assert tuple(pixels.shape[1:]) == SHAPE
    assert float((pixels.float() + 0.5).mean() / 128 - 1) == pytest.approx(mean, abs=0.02)
    seen = shown["judged"]
    assert sum(seen.values()) == 12 and seen["junk"] == round(12 * shown["junk"])
    assert (shown["model"], shown["method"], shown["seconds"]) == ("m", "unseen", 3.0)
    assert shown["nll"] == {key: {"bits_per_dim": None, "stderr": None} for key in ("retain", "forget")}


def test_likelihood_of_an_exact_model(skies: Images) -> None:
    row, subject = evaluate(
        gaussian(-0.25), name="m", method="standard", judge=Brightness(), request=REQUEST, test=skies,
        settings=QUICK, progress=False,
    )  # fmt: skip
    for key, chosen in (("retain", skies.labels == 1), ("forget", skies.labels == 0)):
        x = (skies.rows(chosen)[:3].double() + 0.5) / 128 - 1
        # Read at t_min, where sigma is 0.01; dequantisation adds the variance of a uniform step of 1/128.
        variance = SPREAD**2 + 0.01**2
        squares = float((x + 0.25).square().mean()) + (1 / 128) ** 2 / 12
        exact = (squares / variance + math.log(2 * math.pi * variance)) / 2 / math.log(2) + 7
        assert row.value(quantities.NLL[key]) == pytest.approx(exact, abs=0.05)
        change = row.value(quantities.DOUBLING[key])
        assert change is not None and abs(change) < 0.05
    samples_only = EvaluateSettings(n=12, nll_images=0, sampler=Choice.of("dpm++", steps=12), seed=5)
    _, again = evaluate(
        gaussian(-0.25), name="m", method="standard", judge=Brightness(), request=REQUEST, test=skies,
        settings=samples_only, progress=False,
    )  # fmt: skip
    assert torch.equal(subject.pixels, again.pixels)


def test_an_unreliable_likelihood_is_not_reported(skies: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(model: ScoreModel, images: Tensor, **settings: object) -> Likelihood:
        good = bool(images[0, 0, 0, 0] == skies.rows(skies.labels == 1)[0, 0, 0, 0])
        values = torch.full((len(images),), 2.5, dtype=torch.float64)
        return Likelihood(
            nats=-values,
            bits_per_dim=values,
            stderr=values * math.nan,
            doubling=torch.full((2,), 0.0 if good else 3.0, dtype=torch.float64),
            nfe=torch.full_like(values, 8),
            finished=values > 0,
            dims=64,
        )

    monkeypatch.setattr(measures, "log_likelihood", measured)
    row, _ = evaluate(
        gaussian(-0.25), name="m", method="standard", judge=Brightness(), request=REQUEST, test=skies,
        settings=QUICK, progress=False,
    )  # fmt: skip
    retain, forget = (row.measured[quantity.name] for quantity in quantities.NLL.values())
    assert (retain.value, retain.stderr) == pytest.approx((2.5, 0.0))
    assert forget.value is None and forget.text() == "–"
    assert row.to_dict()["nll_doubling"] == {"retain": 0.0, "forget": 3.0}
    assert "likelihood of forget images fails its check" in row.troubles and not row.whole


def test_the_packages_own_skies_fit() -> None:
    digits, judge = Source("demo").open("test"), Judge(range(10), (1, 28, 28), width=2)
    model = ScoreModel(nn.Identity(), VESDE(), shape=(1, 28, 28))
    classes, mask = check(model, judge, ForgetRequest("label in [3, 7]"), digits)
    assert classes == {3, 7}
    assert 0 < int(mask.sum()) < len(digits) == 2000
