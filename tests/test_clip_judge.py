"""A judge by CLIP: its words decide, it is measured as any judge, saved, read, and used by the commands."""

import json
from pathlib import Path

import pytest
import torch
from tiny_clip import tiny_clip

from msgm.cli.main import main
from msgm.data import Images, Source
from msgm.errors import UserError
from msgm.metrics.clip import Clip, ClipNetwork
from msgm.metrics.judge import JUNK, Judge
from msgm.metrics.judge_training import zero_shot

pytest.importorskip("transformers", reason="the extra clip is not installed")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def sets() -> tuple[Images, Images]:
    train, test = Source("demo").open("train"), Source("demo").open("test")
    return train.select(slice(300)), test.select(slice(100))


@pytest.fixture(scope="module")
def judge(clip: Path, sets: tuple[Images, Images]) -> Judge:
    return zero_shot(*sets, clip=str(clip), prompt="the digit {}", names=list("abcdefghij"))


def test_a_verdict_is_that_of_the_nearest_words(judge: Judge, clip: Path, sets: tuple[Images, Images]) -> None:
    pixels = sets[1].rows(slice(20))
    own = Clip(str(clip))
    seen = own.images(pixels.float() / 255)
    words = [own.words(f"the digit {name}") for name in "abcdefghij"]
    junk = [own.words(text) for text in ("random noise", "a blurry picture of nothing", "a broken image")]
    cosines = torch.stack([*words, *junk]) @ seen.T
    nearest = cosines.argmax(0)
    expected = torch.where(nearest < 10, nearest, JUNK)
    assert torch.equal(judge.predict(pixels), expected)
    logits = own.network.logit_scale.exp() * torch.cat([cosines[:10], cosines[10:].amax(0, keepdim=True)]).T
    assert torch.allclose(judge.probabilities(pixels), logits.softmax(1), atol=1e-5)
    assert torch.allclose(judge.features(pixels), seen, atol=1e-5)


def test_it_is_measured_on_test_images_and_on_junk(judge: Judge, sets: tuple[Images, Images]) -> None:
    said, truth = judge.predict(sets[1].rows()), sets[1].labels
    assert judge.accuracy == pytest.approx(float((said == truth).float().mean()))
    assert judge.confusion[:-1].sum() == len(truth) and judge.junk_recall


def test_it_is_saved_by_its_words_and_read_again(judge: Judge, tmp_path: Path, sets: tuple[Images, Images]) -> None:
    judge.save(tmp_path / "judge", half=True)
    again = Judge.load(tmp_path / "judge")
    assert (tmp_path / "judge/model.safetensors").stat().st_size < 2000
    assert torch.equal(again.predict(sets[1].rows()), judge.predict(sets[1].rows()))
    assert again.names == judge.names and torch.equal(again.confusion, judge.confusion)


def test_another_model_in_its_place_is_noticed(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path / "judge")
    config = json.loads((tmp_path / "judge/config.json").read_text())
    other = tiny_clip(tmp_path / "other", seed=1)
    config["network"]["clip"] = str(other)
    (tmp_path / "judge/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is not the CLIP that .* was measured with"):
        Judge.load(tmp_path / "judge")
    config["network"]["clip"] = 3
    (tmp_path / "judge/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="clip and prompt are words"):
        Judge.load(tmp_path / "judge")


def test_its_verdict_has_a_gradient_and_moves_with_it(judge: Judge, sets: tuple[Images, Images]) -> None:
    x = judge.space.to_model(sets[1].rows(slice(3))).requires_grad_()
    judge.log_retain({3, 7})(x).sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    wide = zero_shot(*sets, clip=str(judge.network.config["clip"]), names=list("abcdefghij")).double()
    assert isinstance(wide.network, ClipNetwork)
    assert next(wide.network.clip.network.parameters()).dtype == torch.float64


def test_commands_take_it(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train-judge", "--clip", str(clip), "--prompt", "digit {}", "--out", str(tmp_path / "judge")])
    assert "of test images right" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["train-judge", "--clip", str(clip), "--prompt", "digit", "--out", str(tmp_path / "other")])
    assert "where the name of a class is to stand" in capsys.readouterr().err
    # It cannot tell digits apart, and no rate is reported by such a judge.
    with pytest.raises(SystemExit):
        main(
            ["evaluate", "demo", "--forget", "label == 3", "--judge", str(tmp_path / "judge"), "-n", "4",
             "--nll-images", "0", "--out", str(tmp_path / "evidence")]
        )  # fmt: skip
    assert "judge" in capsys.readouterr().err
