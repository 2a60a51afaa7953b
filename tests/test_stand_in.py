"""Where no image is to be retained the model's own samples stand in, and the record says so."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import FEW_STEPS

import msgm
from msgm.cli.main import main
from msgm.data import ForgetRequest, ImageRequest, Images, Source, together
from msgm.errors import UserError
from msgm.experiments.core.stand_in import stand_in
from msgm.metrics.judge import Judge
from msgm.sampling import DPMSolver
from msgm.training.earlier import forgetting


@pytest.fixture
def sevens(tmp_path: Path) -> Path:
    digits = Source("demo").open("train")
    for name, label in (("train", 7), ("test", 7)):
        place = tmp_path / "sevens" / name / "7"
        place.mkdir(parents=True)
        for i, image in enumerate(digits.rows(digits.labels == label)[:12]):
            Image.fromarray(image[0].numpy()).save(place / f"{i}.png")
    return tmp_path / "sevens"


def test_samples_that_the_judge_keeps_are_retained(sevens: Path) -> None:
    model, images = msgm.load("demo"), Source(str(sevens)).open()
    judge = Judge.load("demo")
    split = stand_in(model, images, ForgetRequest("label == 7"), n=60, judge=judge, seed=3, show=False)
    drawn = model.space.to_pixels(DPMSolver(model).sample(60, seed=3))
    kept = drawn[~torch.isin(judge.predict(drawn), torch.tensor([7, -1]))]
    assert torch.equal(split.retain.rows(), kept) and 30 < len(kept) < 60
    assert torch.equal(split.forget.rows(), images.rows())
    assert split.to_dict()["samples"] == {"drawn": 60, "seed": 3, "by": "judge"}
    assert split.digest == images.digest


def test_samples_of_what_was_forgotten_earlier_are_not_retained(sevens: Path) -> None:
    model, images, judge = msgm.load("demo"), Source(str(sevens)).open(), Judge.load("demo")
    asked = {"n": 60, "judge": judge, "seed": 3, "show": False}
    split = stand_in(model, images, ForgetRequest("label == 7"), also=ForgetRequest("label in [0, 3]"), **asked)
    told = judge.predict(split.retain.rows())
    assert not torch.isin(told, torch.tensor([0, 3, 7, -1])).any()
    without = stand_in(model, images, ForgetRequest("label == 7"), **asked)
    assert torch.isin(judge.predict(without.retain.rows()), torch.tensor([0, 3])).any()


def test_without_a_judge_what_looks_like_an_image_to_forget_is_left_out() -> None:
    model = msgm.load("demo")
    drawn = model.space.to_pixels(DPMSolver(model).sample(20, seed=0))
    images = Images.of(drawn[:2], name="two of them")
    split = stand_in(model, images, ImageRequest.of(images), n=20, judge=None, seed=0, show=False)
    assert torch.equal(split.retain.rows(), drawn[2:])


@pytest.mark.parametrize("rule", ["label < 2", "label != 7", "not label == 7"])
def test_an_earlier_rule_means_no_sample(sevens: Path, rule: str) -> None:
    model, images = msgm.load("demo"), Source(str(sevens)).open()
    split = stand_in(model, images, ForgetRequest("label == 7"), n=10, judge=Judge.load("demo"), seed=3, show=False)
    record = {"request": {"rule": rule}, "method": {"name": "unseen"}, "data": images.to_dict()}
    both, _ = forgetting(split, record, "forget")
    assert both.retain is split.retain and len(both.forget) == len(images)
    assert both.request == together(ForgetRequest(rule), ForgetRequest("label == 7"))


def test_what_cannot_be_is_refused(sevens: Path) -> None:
    model, images = msgm.load("demo"), Source(str(sevens)).open()
    some = Source("demo").open().select(slice(50))
    count = int((some.labels == 1).sum())
    with pytest.raises(UserError, match="no samples are needed"):
        stand_in(model, some, ForgetRequest("label == 7"), n=5, judge=None, seed=0)
    with pytest.raises(UserError, match="1 or more"):
        stand_in(model, images, ForgetRequest("label == 7"), n=0, judge=None, seed=0)
    with pytest.raises(UserError, match="shape"):
        stand_in(model, images, ForgetRequest("label == 7"), n=5, judge=Judge([0, 1], (1, 8, 8)), seed=0)
    clothes = Images.of(some.rows(some.labels == 1), columns={"label": torch.full((count,), 7)}, name="clothes")
    with pytest.raises(UserError, match=rf"cannot tell what is to be forgotten: it finds 0% of {count}"):
        stand_in(model, clothes, ForgetRequest("label == 7"), n=5, judge=Judge.load("demo"), seed=0)


def test_unlearn_takes_it_and_its_record_says_so(
    sevens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["unlearn", "demo", "--data", str(sevens), "--data.changed", "ok", "--forget", "label == 7"]
    words += ["--steps", "2", "--batch", "4", *FEW_STEPS, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(words)
    assert "--retain-samples" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--retain-samples", "40", "--select"])
    assert "neither --seeds nor --select" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--retain-samples", "40"])
    assert "the judge of the package knows MNIST" in capsys.readouterr().err and not (tmp_path / "out").exists()
    main([*words, "--retain-samples", "40", "--judge", "demo"])
    request = msgm.load(tmp_path / "out").record["request"]
    assert request["rule"] == "label == 7" and request["forget"] == 12
    assert request["samples"]["drawn"] == 40 and 20 < request["retain"] < 40
    assert "stand in for images to retain" in capsys.readouterr().err
