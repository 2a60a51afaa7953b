"""Recipes and the combiner: what they are made of, their record, and that each trains on every process."""

import json
import math
from inspect import signature

import pytest
import torch
from oracle import SDES
from tiny import tiny_model, tiny_split

from msgm.errors import UserError
from msgm.forgetting import methods
from msgm.forgetting.combine import Weighted
from msgm.forgetting.methods import DEFAULT, METHODS
from msgm.forgetting.terms import Obtuse, Orthogonal, Redirect
from msgm.runs import read_log
from msgm.training import UnlearnSettings, train, unlearn


def test_every_recipe_builds_under_its_own_name() -> None:
    built = [recipe() for recipe in METHODS.values()]
    assert [m.name for m in built] == list(METHODS) == ["standard", "unseen", "orthogonal", "obtuse", "redirect"]
    assert DEFAULT in METHODS
    assert all(recipe.__doc__ for recipe in METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_records_are_json_and_tell_settings_apart(name: str) -> None:
    recipe = METHODS[name]
    record = json.loads(json.dumps(recipe().to_dict(), allow_nan=False))
    assert record["name"] == name and record == recipe().to_dict()
    options = {"alpha": 0.123, "every": 9, "form": "literal", "window": 7.0, "clamp": 7.0, "low": 0.5, "high": 9.0}
    for key in signature(recipe).parameters:
        assert recipe(**{key: options[key]}).to_dict() != record, key


def test_parts_of_the_recipes() -> None:
    """METHOD.md: alpha = 0.99 and the forget loss on every 4th step are the paper's."""
    assert methods.standard().forget is None and methods.standard().sees_forget
    assert methods.unseen().forget is None and not methods.unseen().sees_forget
    assert methods.orthogonal().forget == Orthogonal(form="elementwise")
    assert methods.obtuse().forget == Obtuse(form="windowed")
    assert methods.redirect().forget == Redirect(low=0.15)
    for recipe in (methods.orthogonal, methods.obtuse):
        assert recipe().combine == Weighted(alpha=0.99, every=4)


def test_weighted_is_equation_9_on_every_nth_step() -> None:
    combine = Weighted(alpha=0.8, every=3)
    assert [k for k in range(10) if combine.due(k)] == [0, 3, 6, 9]
    assert all(Weighted(every=1).due(k) for k in range(5))
    retain, forget = torch.tensor(2.0), torch.tensor(-3.0)
    assert combine(retain, forget).item() == pytest.approx(0.8 * 2 - 0.2 * 3)
    assert combine(retain, None).item() == pytest.approx(0.8 * 2)
    assert Weighted(alpha=1.0)(retain, forget).item() == 2


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match="alpha"):
        methods.redirect(alpha=alpha)


def test_every_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="every"):
        Weighted(every=0)


@pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
@pytest.mark.parametrize("name", METHODS)
def test_every_recipe_trains_on_every_process(name: str, sde, tmp_path) -> None:
    prediction = "noise" if name == "orthogonal" else "edm"
    child = unlearn(
        tiny_model(sde, prediction=prediction),
        tiny_split(),
        method=METHODS[name](),
        settings=UnlearnSettings(steps=5, batch=8),
        out=tmp_path / "m",
        device="cpu",
        progress=False,
    )
    log = read_log(tmp_path / "m")
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(line["retain"]) and math.isfinite(line["norm"]) for line in log)
    every = {"standard": 0, "unseen": 0, "redirect": 1}.get(name, 4)
    assert [line["forget"] is not None for line in log] == [every > 0 and k % every == 0 for k in range(5)]
    assert all(math.isfinite(line["forget"]) for line in log if line["forget"] is not None)
    assert all(bool(torch.isfinite(p).all()) for p in child.parameters())


@pytest.mark.parametrize("form", ["inner", "literal", "released_sign", "windowed"])
def test_other_forms_train(form: str) -> None:
    recipe = methods.orthogonal if form == "inner" else methods.obtuse
    settings = UnlearnSettings(steps=3, batch=8)
    unlearn(tiny_model(), tiny_split(), method=recipe(form=form), settings=settings, progress=False)  # type: ignore[operator]


def test_what_a_recipe_needs_to_know() -> None:
    """Plain data are for the standard method; the others ask what to forget."""
    for name in METHODS:
        if name != "standard":
            with pytest.raises(UserError, match="what to forget"):
                train(tiny_model(), tiny_split().retain, method=METHODS[name](), progress=False)
