"""Methods, samplers and measures of another package, by its metadata alone."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import quiet, tiny_model, tiny_split

from msgm.choice import Choice
from msgm.cli.main import main
from msgm.errors import UserError
from msgm.experiments.core import evaluate
from msgm.experiments.core.evaluate import EvaluateSettings
from msgm.forgetting.methods import METHODS
from msgm.formats import load, save
from msgm.installed import Known
from msgm.sampling import Heun
from msgm.sampling.table import SAMPLERS
from msgm.training.loop import unlearn
from msgm.training.settings import UnlearnSettings

MODULE = """
from dataclasses import dataclass
from msgm.forgetting.methods import Method
from msgm.forgetting.terms import Negated
from msgm.metrics.measured import Quantity
from msgm.sampling import Heun

def mirrored(*, window: float = 2.0) -> Method:
    "The noise mirrored."
    return Method(name="mirrored", forget=Negated(window=window))

class TwoSteps(Heun):
    def __init__(self, model, *, steps: int = 2) -> None:
        super().__init__(model, steps=steps)

BRIGHTNESS = Quantity(name="brightness", about="brightness: the mean pixel", better="higher")

class Brightness:
    names = ("brightness",)
    def measure(self, subject):
        return {"brightness": BRIGHTNESS.of(float(subject.pixels.float().mean()))}
"""
METADATA = "Metadata-Version: 2.1\nName: another-package\nVersion: 1\n"
POINTS = """
[msgm.methods]
mirrored = another_package:mirrored
broken = another_package.missing:thing

[msgm.samplers]
two-steps = another_package:TwoSteps

[msgm.measures]
brightness = another_package:Brightness
"""


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside the path, as an installer would leave it."""
    place = tmp_path / "site"
    (place / "another_package-1.0.dist-info").mkdir(parents=True)
    (place / "another_package.py").write_text(MODULE)
    (place / "another_package-1.0.dist-info/METADATA").write_text(METADATA)
    (place / "another_package-1.0.dist-info/entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(place))
    for known in (METHODS, SAMPLERS, evaluate.OTHERS):
        monkeypatch.setitem(known.__dict__, "others", Known(known.group, known.own).others)
    yield place
    sys.modules.pop("another_package", None)


def test_what_another_package_names_is_there_by_name(another: Path, tmp_path: Path, capsys) -> None:
    assert (
        list(METHODS)[-2:] == ["broken", "mirrored"]
        and "two-steps" in SAMPLERS
        and len(SAMPLERS) == len(list(SAMPLERS))
    )
    assert "another_package" not in sys.modules  # names alone import nothing
    method = METHODS["mirrored"](window=3.0)
    child = unlearn(
        tiny_model(), tiny_split(), method=method, settings=UnlearnSettings(steps=2, batch=4), run=quiet(tmp_path / "m")
    )
    assert load(tmp_path / "m").record["method"]["name"] == "mirrored"
    drawn = Choice("two-steps").maker("sampler", SAMPLERS)(child).sample(3, seed=0)
    assert torch.equal(drawn, Heun(child, steps=2).sample(3, seed=0))
    assert [type(each).__name__ for each in EvaluateSettings().measures(judged=True)][-1] == "Brightness"
    save(child, tmp_path / "s")
    main(["sample", str(tmp_path / "s"), "-n", "2", "--sampler", "two-steps", "--out", str(tmp_path / "o")])
    assert "saved 2 images" in capsys.readouterr().out


def test_a_broken_one_is_named_where_it_is_asked_for(another: Path) -> None:
    with pytest.raises(UserError, match=r"another-package names another_package\.missing:thing as 'broken' in msgm"):
        METHODS["broken"]
    assert METHODS["unseen"]().name == "unseen"
    with pytest.raises(UserError, match=r"another-package names 'mirrored' in msgm.methods, which msgm has"):
        list(Known("msgm.methods", {"mirrored": 1}))
