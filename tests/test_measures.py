"""Measured numbers and the measures that make them: closed forms, simulated coverage, nothing measured twice."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import tiny_data, tiny_judge, tiny_model

from msgm.choice import Choice
from msgm.data import ForgetRequest, IndexRequest, together
from msgm.errors import UserError
from msgm.experiments.core.evaluate import EvaluateSettings, evaluate
from msgm.metrics import bent, quantities
from msgm.metrics.bent import bent_shares, total_variation
from msgm.metrics.judge import JUNK, Judge
from msgm.metrics.measured import Measured
from msgm.metrics.rates import wilson
from msgm.metrics.worth import Worth, worth_for

REQUEST = ForgetRequest("label == 1")


# --------------------------------------------------------------------------------------------------------- a number


def test_a_number_as_text() -> None:
    assert quantities.UR.share(3, 1000).text() == "0.3 [0.1, 0.9]"
    assert quantities.UR.share(3, 1000).number() == "0.3"
    assert quantities.NLL["retain"].of(2.4713, stderr=0.0402).text() == "2.471 ± 0.040"
    assert quantities.SECONDS.of(9.96).text() == "10.0" and quantities.SECONDS.of(61.4).text() == "61"
    assert quantities.STEPS.of(300).text() == "300" and quantities.UR.missing("no judge").text() == "–"


def test_a_number_is_finite_and_its_errors_are_or_are_not_there() -> None:
    with pytest.raises(UserError, match="a is nan"):
        Measured(name="a", value=math.nan)
    lonely = Measured(name="a", value=1.0, stderr=math.nan, low=-math.inf, high=2.0)
    assert lonely.stderr is None and lonely.interval is None
    assert Measured(name="a", value=2.0, better="higher").cost == -2 and Measured(name="a", value=2.0).cost is None


@pytest.mark.parametrize("found", [quantities.UR.share(0, 7), quantities.FRECHET.of(3.0), quantities.UR.missing("x")])
def test_a_number_in_json(found: Measured) -> None:
    assert Measured.from_dict(json.loads(json.dumps(found.to_dict()))) == found


# ------------------------------------------------------------------------------------------------------- bent shares


def test_total_variation_by_hand() -> None:
    assert bent_shares([30, 70], [50, 50])[0] == pytest.approx(0.2)
    assert bent_shares([0, 10], [10, 0])[0] == 1
    assert bent_shares([1, 2, 3], [10, 20, 30])[0] == pytest.approx(0, abs=1e-12)
    for bad in (([0, 0], [1, 1]), ([1, 1], [1, 1, 1])):
        with pytest.raises(UserError, match="of the same classes"):
            bent_shares(*bad)


@pytest.mark.parametrize("weights", [[1.0, 1, 1, 1, 1], [0.5, 1.5, 1, 1, 1], [0, 2, 1, 1, 1]], ids=str)
def test_the_interval_of_bent_shares_covers(weights: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bent, "DRAWS", 200)
    draw = torch.Generator().manual_seed(0)
    p, q = (each / each.sum() for each in (torch.tensor(weights), torch.ones(5)))
    exact, inside = float(total_variation(p, q)), 0
    for seed in range(150):
        counts = [
            torch.bincount(law.multinomial(n, True, generator=draw), minlength=5) for law, n in ((p, 200), (q, 400))
        ]
        _, low, high = bent_shares(*(each.tolist() for each in counts), seed=seed)
        inside += low <= exact <= high
    assert inside >= 0.9 * 150


# -------------------------------------------------------------------------------------------------- the judge's worth


def worth_of(found: tuple[int, int], false: tuple[int, int]) -> Worth:
    return Worth(
        sha256="0" * 64, trained_on=None, accuracy=None, recall=wilson(*found), false_positives=wilson(*false),
        called_junk=wilson(0, false[1]), junk_recall={},
    )  # fmt: skip


def test_ur_without_the_judges_errors() -> None:
    # 90 of 100 found, 5 of 100 false: a UR of 22 % is 17 of 85.
    value, low, high = worth_of((90, 100), (5, 100)).corrected(220, 1000)
    assert value == pytest.approx(0.2) and low < 0.2 < high
    # The errors of a judge that was asked about many images add little.
    sure = worth_of((90_000, 100_000), (5_000, 100_000)).corrected(220, 1000)
    assert low < sure[1] and sure[2] < high
    assert sure[2] - sure[1] == pytest.approx((wilson(220, 1000).high - wilson(220, 1000).low) / 0.85, rel=0.02)
    # False positives alone are no forgotten content.
    assert worth_of((90, 100), (5, 100)).corrected(50, 1000)[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("true", [0.0, 0.01, 0.3])
def test_the_interval_of_corrected_ur_covers(true: float) -> None:
    draw = torch.Generator().manual_seed(1)
    recall, false = 0.97, 0.01

    def hits(p: float, n: int) -> int:
        return int((torch.rand(n, generator=draw) < p).sum())

    inside = 0
    for _ in range(400):
        judge = worth_of((hits(recall, 200), 200), (hits(false, 800), 800))
        seen = true * recall + (1 - true) * false
        _, low, high = judge.corrected(hits(seen, 1000), 1000)
        inside += low <= true <= high
    assert inside >= 0.93 * 400


def test_what_a_judge_is_worth_is_counted_on_the_test_images() -> None:
    data, judge = tiny_data(40, seed=2), tiny_judge()
    found = worth_for(judge, REQUEST, data)
    assert found.recall == wilson(20, 20) and found.false_positives == wilson(0, 20)
    assert found.accuracy == 1 and found.trained_on == "halves" and set(found.junk_recall) >= {"noise", "blank"}
    assert Worth.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    found.check()


def test_images_that_are_named_one_by_one_are_no_errors_of_the_judge() -> None:
    data, judge = tiny_data(40, seed=2), tiny_judge()
    lists = IndexRequest(tuple(range(0, 30, 2)))
    both = together(REQUEST, lists)
    found = worth_for(judge, both, data)
    assert found.recall == wilson(20, 20) and found.false_positives == wilson(0, 5)
    settings = EvaluateSettings(n=4, sampler=Choice.of("dpm++", steps=2), nll_images=0, renoise_images=0)
    _, subject = evaluate(
        tiny_model(), name="a", method="", judge=judge, request=both, test=data, settings=settings, progress=False
    )
    assert subject.worth == found
    with pytest.raises(UserError, match="select none of halves"):
        worth_for(judge, both, data.select(data.labels == 0))


@pytest.mark.parametrize(("found", "false"), [((9, 20), (0, 20)), ((20, 20), (15, 20)), ((0, 3), (0, 27))])
def test_a_judge_that_cannot_tell_is_refused(found: tuple[int, int], false: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"cannot tell what is to be forgotten.*trained on such data"):
        worth_of(found, false).check()


def test_classes_of_one_name_and_one_called_junk_are_counted_apart() -> None:
    seen = torch.tensor([0, 0, 1, 2, 2, 2, JUNK])
    twice = Judge((0, 1, 2), (1, 8, 8), names=("cat", "cat", "junk"), width=2).counts(seen)
    assert twice == {"cat (0)": 2, "cat (1)": 1, "junk (2)": 3, "junk": 1}
    plain = Judge((0, 1, 2), (1, 8, 8), names=("a", "b", "c"), width=2).counts(seen)
    assert plain == {"a": 2, "b": 1, "c": 3, "junk": 1}


# ------------------------------------------------------------------------------------------------------------ storing


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    look = EvaluateSettings(n=4, sampler=Choice.of("dpm++", steps=2), nll_images=2, nll_steps=4, nll_check=1)
    options = dict(
        name="m", method="standard", judge=tiny_judge(), request=REQUEST, test=tiny_data(20, seed=1), settings=look,
        progress=False,
    )  # fmt: skip
    stored = tmp_path / "measured.json"
    whole, _ = evaluate(tiny_model(), stored=stored, **options)  # type: ignore[arg-type]
    part = json.loads(stored.read_text())
    assert set(part["measured"]) == set(whole.measured) - {"evaluation seconds"}
    # Without the likelihoods, as an interrupted audit leaves it; a false number shows that it is not asked for again.
    part["measured"] = {k: v for k, v in part["measured"].items() if not k.startswith(("NLL", "doubling"))}
    part["measured"]["Fréchet"]["value"] = 123.0
    stored.write_text(json.dumps(part))
    again, _ = evaluate(tiny_model(), stored=stored, **options)  # type: ignore[arg-type]
    assert again.value(quantities.FRECHET) == 123 and again.judged == whole.judged
    for quantity in (*quantities.NLL.values(), quantities.UR, quantities.BENT):
        assert again.get(quantity) == whole.get(quantity)
