"""Distances of kept samples from real images in the features of a network that is named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import msgm
from msgm.data import ForgetRequest, Source
from msgm.experiments.core.evaluate import EvaluateSettings, evaluate
from msgm.formats.native import EMBEDDED
from msgm.metrics import likeness
from msgm.metrics.distances import bootstrap, frechet_distance, kernel_distance
from msgm.metrics.features import features_of
from msgm.metrics.judge import Judge
from msgm.metrics.likeness import DRAWS, Likeness
from msgm.metrics.manifold import density_coverage, precision_recall
from msgm.metrics.subject import Subject


def subject(pixels: Tensor) -> Subject:
    test = Source(EMBEDDED).open("test")
    request = ForgetRequest("label in [3, 7]")
    mask = request.mask(test)
    found = Subject(
        name="digits", sampler=None, n=len(pixels), seed=0, retained=test.select(~mask).select(slice(300)),  # type: ignore[arg-type]
        forgotten=test.select(mask), judge=Judge.load(EMBEDDED), forget={3, 7}, request=request,
        progress=False,
    )  # fmt: skip
    found.__dict__["pixels"] = pixels
    return found


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return Source(EMBEDDED).open("train").rows(slice(400))


def test_forgotten_samples_are_left_out_and_the_rest_is_as_the_functions_say(digits: Tensor) -> None:
    of = subject(digits)
    found = Likeness(EMBEDDED).measure(of)
    judge = Judge.load(EMBEDDED)
    verdicts = judge.predict(digits)
    ours = judge.features(digits[(verdicts != 3) & (verdicts != 7)]).double()
    real = judge.features(of.retained.rows()).double()
    assert found["FD"].value == pytest.approx(frechet_distance(ours, real), rel=1e-4)
    assert found["KD"].value == pytest.approx(1000 * kernel_distance(ours, real), rel=1e-3, abs=1e-3)
    assert found["FD"].n == len(ours) < len(digits)
    generator = torch.Generator().manual_seed(0)
    ours = ours[torch.randperm(len(ours), generator=generator)[: len(real)]]
    real = real[torch.randperm(len(real), generator=generator)]
    precision, recall = precision_recall(real, ours, k=5)
    density, coverage = density_coverage(real, ours, k=5)
    values = {name: found[name].value for name in ("precision", "recall", "density", "coverage")}
    assert values == pytest.approx(
        {"precision": precision, "recall": recall, "density": density, "coverage": coverage}, abs=1e-3
    )
    for name in ("FD", "KD", "precision"):
        assert found[name].low <= found[name].value <= found[name].high, name


def test_what_is_no_digit_is_far_away(digits: Tensor) -> None:
    near = Likeness(EMBEDDED).measure(subject(digits))
    noise = torch.randint(256, digits.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    far = Likeness(EMBEDDED).measure(subject(noise))
    assert far["FD"].low > near["FD"].high and far["KD"].low > near["KD"].high
    assert far["precision"].high < 0.1 < near["precision"].low
    assert far["coverage"].high < near["coverage"].low


def test_too_few_kept_samples_have_no_number_but_a_reason(digits: Tensor) -> None:
    threes = Source(EMBEDDED).open("train")
    found = Likeness(EMBEDDED).measure(subject(threes.rows(threes.labels == 3)[:20]))
    assert all(each.value is None and "too few" in each.reason for each in found.values())


def test_real_images_are_looked_at_once_for_all_models(digits: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        likeness,
        "features_of",
        lambda images, *given, **how: seen.append(len(images)) or features_of(images, *given, **how),
    )
    shared = EvaluateSettings(features=EMBEDDED).likeness
    first, second = subject(digits[:200]), subject(digits[200:])
    together = [shared.measure(each) for each in (first, second)]
    assert seen == [len(first.retained)]
    assert together == [Likeness(EMBEDDED).measure(each) for each in (first, second)]
    fewer = replace(first, retained=first.retained.select(slice(100)))
    fewer.__dict__["pixels"] = digits[:200]
    assert shared.measure(fewer) == Likeness(EMBEDDED).measure(fewer) != together[0]


def test_intervals_of_distances_cover_what_many_draws_give() -> None:
    generator = torch.Generator().manual_seed(0)
    hits, truth = 0, 4 * 0.25  # two Gaussians of unit covariance, means half a unit apart in each of four directions

    for _ in range(40):
        a, b = (torch.randn(300, 4, generator=generator, dtype=torch.double) + shift for shift in (0.0, 0.5))
        _, low, high = bootstrap(frechet_distance, a, b, draws=DRAWS)
        hits += low <= truth <= high
    assert hits >= 33  # 95 % of 40 are 38; fewer than 33 have a chance of 1 in 1,000 at 91 %


def test_evaluate_measures_it_where_a_network_is_named(tmp_path: Path) -> None:
    test = Source(EMBEDDED).open("test").select(slice(200))
    settings = EvaluateSettings(n=12, nll_images=0, features=EMBEDDED)
    result, _ = evaluate(
        msgm.load(EMBEDDED), name="demo", method="standard", judge=Judge.load(EMBEDDED),
        request=ForgetRequest("label in [3, 7]"), test=test, settings=settings, progress=False,
    )  # fmt: skip
    assert {"FD", "KD", "precision", "recall", "density", "coverage"} <= set(result.measured)
    plain, _ = evaluate(
        msgm.load(EMBEDDED), name="demo", method="standard", judge=Judge.load(EMBEDDED),
        request=ForgetRequest("label in [3, 7]"), test=test, settings=EvaluateSettings(n=4, nll_images=0),
        progress=False,
    )  # fmt: skip
    assert "FD" not in plain.measured
