"""One image learnt by heart and forgotten, at a hundredth of the steps; its numbers against those of the functions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import msgm
from msgm.cli.main import main
from msgm.data import Source
from msgm.errors import UserError
from msgm.experiments.memorised.evidence import CLOSE, EvidenceSettings, evidence
from msgm.experiments.memorised.main import Budget, reproduce
from msgm.metrics.judge import Judge
from msgm.training.settings import TrainSettings, UnlearnSettings

BUDGET = Budget(
    copies=4,
    learn=TrainSettings(steps=2, batch=4),
    forget=UnlearnSettings(steps=2, batch=4),
    methods=("unseen", "deflect"),
    seeds=2,
    evidence=EvidenceSettings(n=6, renoise=3, nll_images=2, nll_steps=2, nll_check=1),
)


@pytest.fixture(scope="module")
def shirt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey block, which no digit is."""
    path = tmp_path_factory.mktemp("shirt") / "shirt.png"
    picture = Image.new("L", (28, 28), 0)
    picture.paste(200, (4, 4, 24, 26))
    picture.save(path)
    return path


def test_each_recipe_forgets_the_one_image_from_a_model_that_saw_it(shirt: Path, tmp_path: Path) -> None:
    results = reproduce(tmp_path / "out", shirt, budget=BUDGET, progress=False)
    assert [row.model for row in results.rows] == ["never-saw-it", "parent", "unseen", "deflect"]
    assert [len(row.runs) for row in results.rows] == [0, 0, 2, 2]
    names = {"drawn", "closest", "junk", "again r=0.5", "again r=1", "again r=2", "Fréchet"}
    assert all(names <= set(row.measured) for row in results.rows)
    parent = msgm.load(tmp_path / "out/runs/parent/model")
    child = msgm.load(tmp_path / "out/runs/deflect/seed-1/model").record
    assert parent.record["data"]["name"] == "digits and one image"
    assert (child["request"]["index"], child["request"]["forget"]) == ([8000], 1)
    assert (tmp_path / "out/report.html").exists() and (tmp_path / "out/runs/unseen/seed-0/nearest.png").exists()
    before = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    (tmp_path / "out/runs/deflect/seed-1/row.json").unlink()
    again = reproduce(tmp_path / "out", shirt, budget=BUDGET, progress=False, resume=True)
    assert json.loads(json.dumps([row.to_dict() for row in again.rows])) == before
    with pytest.raises(UserError, match=r"learn\.steps was 2, is 3"):
        other = replace(BUDGET, learn=replace(BUDGET.learn, steps=3))
        reproduce(tmp_path / "out", shirt, budget=other, progress=False, resume=True)


def test_a_sample_counts_where_it_is_as_close_as_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = msgm.load("demo"), Source("demo").open("train").rows([3])
    settings = replace(BUDGET.evidence, n=4, nll_images=2)
    far = (image.int() + torch.tensor([0, 40, 50, 90])[:, None, None, None]).clamp(0, 255).to(torch.uint8)
    distance = (far.double() - image.double()).square().mean((1, 2, 3)).sqrt()
    real = type(model.space).to_pixels
    monkeypatch.setattr(type(model.space), "to_pixels", lambda self, x: far if len(x) == 4 else real(self, x))
    found, near = evidence(model, image, test=Source("demo").open("test"), judge=Judge.load("demo"), settings=settings)
    assert found["drawn"].value == int((distance <= CLOSE).sum()) / 4 == 0.5
    assert found["closest"].value == 0 and torch.equal(near[0], image[0])


def test_another_size_or_no_image_is_refused_before_any_work(
    shirt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    for words, said in (
        (["t-shirt"], "28 x 28 pixels"),
        (["t-shirt", "--image", str(tmp_path / "wide.png")], "30 x 28 pixels, and the digits are 28 x 28"),
        (["toy", "--image", str(shirt)], "of nothing else"),
        (["t-shirt", "--image", str(shirt), "--budget", "paper"], "one budget"),
        (["t-shirt", "--image", str(shirt), "--seeds", "0"], "1 or more"),
    ):
        with pytest.raises(SystemExit):
            main(["reproduce", *words, "--out", str(tmp_path / "out")])
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
