"""Recipes and the combiner: what they are made of, their record, and that each trains on every process."""

import json
import math
from dataclasses import dataclass, replace
from inspect import signature

import pytest
import torch
from oracle import SDES
from tiny import PLANE, plane_model, quiet, tiny_model, tiny_split

from msgm.errors import UserError
from msgm.forgetting import methods
from msgm.forgetting.batch import Noised
from msgm.forgetting.combine import Adaptive, Weighted
from msgm.forgetting.methods import AUTHORS, DEFAULT, METHODS, PARTS
from msgm.forgetting.terms import Obtuse, Orthogonal, Redirect, UniformTarget
from msgm.formats import load
from msgm.formats.tensors import weights_sha256
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE
from msgm.training import loop as training
from msgm.training.loop import Diverged, train, unlearn
from msgm.training.runs import read_log
from msgm.training.settings import TrainSettings, UnlearnSettings


def test_every_recipe_builds_under_its_own_name() -> None:
    built = [recipe() for recipe in METHODS.values()]
    names = ["standard", "unseen", "orthogonal", "obtuse", "erasediff", "neggrad", "neggrad-plus", "salun", "sfron"]
    names += ["selective-amnesia", "siss", "munba", "retrack", "esd", "vdu", "reweight", "redirect", "deflect", "steer"]
    names += ["moderate"]
    assert [m.name for m in built] == list(METHODS) == names
    assert DEFAULT in METHODS
    assert all(recipe.__doc__ for recipe in METHODS.values()) and all(m.paper for m in built)


def test_the_authors_settings_are_others_than_ours() -> None:
    for name, options in AUTHORS.items():
        assert METHODS[name](**options).to_dict() != METHODS[name]().to_dict()


@pytest.mark.parametrize("name", METHODS)
def test_records_are_json_and_tell_settings_apart(name: str) -> None:
    recipe = METHODS[name]
    record = json.loads(json.dumps(recipe().to_dict(), allow_nan=False))
    assert record["name"] == name and record == recipe().to_dict()
    counts = dict.fromkeys(("every", "samples", "neighbours", "subset", "steps", "checkpoints", "gap", "inner"), 9)
    shares = dict.fromkeys(("alpha", "low", "keep", "mix", "share", "at", "recall"), 0.123)
    numbers = dict.fromkeys(
        (
            "window",
            "clamp",
            "high",
            "strength",
            "threshold",
            "weight",
            "eta",
            "power",
            "rate",
            "contrast",
            "margin",
            "reach",
        ),
        7.0,
    )  # fmt: skip
    for key, parameter in signature(recipe).parameters.items():
        options = {**counts, **shares, **numbers}
        if key == "form":
            options["form"] = (
                next(
                    f
                    for f in ("literal", "bounded", "redirect")
                    if f in str(parameter.annotation) and f != parameter.default
                )
                if parameter.annotation != "Target"
                else "redirect"
            )
        assert recipe(**{key: options[key]}).to_dict() != record, key


@pytest.mark.parametrize(
    ("recipe", "role", "name"),
    [("deflect", "forget", "deflect"), ("deflect", "combine", "weighted"), ("redirect", "forget", "redirect"),
     ("redirect", "combine", "weighted"), ("esd", "forget", "expert"), ("obtuse", "forget", "obtuse"),
     ("orthogonal", "forget", "orthogonal"), ("erasediff", "combine", "adaptive"), ("siss", "combine", "norm-fixed"),
     ("neggrad", "forget", "ascent"), ("salun", "regularise", "saliency"), ("sfron", "regularise", "fisher-ratio"),
     ("selective-amnesia", "regularise", "elastic"), ("vdu", "regularise", "posterior")],
)  # fmt: skip
def test_a_part_by_name_has_the_defaults_of_the_recipe_that_is_made_of_it(recipe: str, role: str, name: str) -> None:
    assert PARTS[role][name]() == getattr(METHODS[recipe](), role)


def test_what_each_recipe_needs_is_said() -> None:
    unbounded = {name for name, recipe in METHODS.items() if not recipe().bounded}
    assert unbounded == {"neggrad", "neggrad-plus", "sfron", "siss", "vdu"}
    assert methods.neggrad(form="bounded").bounded and not methods.obtuse(form="literal").bounded
    fine_tunes = {name for name, recipe in METHODS.items() if recipe().fine_tunes}
    assert fine_tunes == {"salun", "sfron", "selective-amnesia", "esd", "vdu", "deflect", "steer", "moderate"}
    assert methods.siss().needs == ["forget set", "pairs"] and methods.reweight().needs == ["a judge"]
    assert methods.vdu().needs == ["forget set", "several checkpoints"] and methods.unseen().needs == []


def test_parts_of_the_recipes() -> None:
    """docs/method.md: alpha = 0.99 and the forget loss on every 4th step are the paper's."""
    assert methods.standard().forget is None and methods.standard().sees_forget
    assert methods.unseen().forget is None and not methods.unseen().sees_forget
    assert methods.orthogonal().forget == Orthogonal(form="elementwise")
    assert methods.obtuse().forget == Obtuse(form="windowed")
    assert methods.redirect().forget == Redirect(contrast=0.7, low=0.3)
    assert methods.erasediff().forget == UniformTarget() and methods.erasediff().combine == Adaptive()
    assert methods.erasediff(alpha=0.9).combine == Weighted(alpha=0.9, every=1)
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


def test_separate_optimisers_are_given_the_two_terms() -> None:
    retain, forget = torch.tensor(2.0), torch.tensor(-3.0)
    assert [v.item() for v in Weighted(alpha=0.75).parts(retain, forget)] == [0.75]
    assert [v.item() for v in Weighted(alpha=0.75, separate=True).parts(retain, forget)] == [1.5, -0.75]
    assert [v.item() for v in Weighted(alpha=0.75, separate=True).parts(retain, None)] == [1.5]


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match="alpha"):
        methods.redirect(alpha=alpha)


def test_every_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="every"):
        Weighted(every=0)


QUICK = {
    "sfron": {"samples": 4},
    "selective-amnesia": {"samples": 4},
    "esd": {"steps": 3},
    "steer": {"steps": 3},
    "moderate": {"steps": 3},
    "vdu": {"checkpoints": 2, "gap": 2},
}


@pytest.mark.parametrize("sde", SDES.values(), ids=list(SDES))
@pytest.mark.parametrize("name", METHODS)
def test_every_recipe_runs_20_steps_on_every_process(name: str, sde: SDE, tmp_path) -> None:
    method, parent = METHODS[name](**QUICK.get(name, {})), plane_model(sde)
    sure = torch.linspace(0.2, 1, len(PLANE.retain)) if method.power else None
    child = unlearn(
        parent, PLANE, method=method, settings=UnlearnSettings(steps=20, batch=8, ema=0.5), confidence=sure,
        run=quiet(tmp_path / "m"),
    )  # fmt: skip
    log = read_log(tmp_path / "m")
    assert [line["step"] for line in log] == list(range(1, 21))
    assert all(math.isfinite(line["retain"]) and math.isfinite(line["norm"]) for line in log)
    due = [method.forget is not None and method.combine.due(k) for k in range(20)]
    assert [line["forget"] is not None for line in log] == due
    assert all(math.isfinite(line["forget"]) for line in log if line["forget"] is not None)
    moved = [not torch.equal(a, b) for a, b in zip(child.parameters(), parent.parameters(), strict=True)]
    assert all(bool(torch.isfinite(p).all()) for p in child.parameters()) and any(moved)
    assert load(tmp_path / "m").record["method"] == json.loads(json.dumps(method.to_dict()))


@pytest.mark.parametrize("name", ["salun", "selective-amnesia", "siss", "esd", "munba", "steer"])
def test_peers_train_images(name: str) -> None:
    """A U-Net with dropout, whose pixels are dequantised."""
    method = METHODS[name](**QUICK.get(name, {}))
    settings = UnlearnSettings(steps=2, batch=4)
    child = unlearn(tiny_model(), tiny_split(), method=method, settings=settings, run=quiet())
    assert all(bool(torch.isfinite(p).all()) for p in child.parameters())


@pytest.mark.parametrize("name", [n for n, recipe in METHODS.items() if recipe().fine_tunes])
def test_what_was_prepared_is_found_again_by_a_resumed_run(name: str, tmp_path, monkeypatch) -> None:
    def run(folder, **more) -> None:
        settings = UnlearnSettings(steps=6, batch=8, save_every=2, seed=3)
        method = METHODS[name](**QUICK.get(name, {}))
        unlearn(
            plane_model(SDES["ve"]), PLANE, method=method, settings=settings, run=quiet(folder, **more),
        )  # fmt: skip

    run(tmp_path / "whole")
    follow, calls = training.follow, []

    def struck(*arguments) -> None:
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        follow(*arguments)

    monkeypatch.setattr(training, "follow", struck)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halted")
    monkeypatch.undo()
    run(tmp_path / "halted", resume=True)
    whole, halted = (load(tmp_path / k).record["weights_sha256"] for k in ("whole", "halted"))
    assert whole == halted


def test_methods_that_start_from_a_trained_model() -> None:
    with pytest.raises(UserError, match="salun starts from a trained model"):
        train(tiny_model(), tiny_split(), method=methods.salun(), run=quiet())


def test_reweight_weighs_by_the_judges_confidence() -> None:
    """Images of no confidence count nothing; all of the same count as in unseen."""
    settings = UnlearnSettings(steps=3, batch=8)

    def run(method, sure=None, split=PLANE) -> ScoreModel:
        model = plane_model(SDES["ve"])
        return unlearn(model, split, method=method, settings=settings, confidence=sure, run=quiet())

    n = len(PLANE.retain)
    alike = run(methods.reweight(power=2), torch.full((n,), 0.5))
    assert weights_sha256(alike.network) == weights_sha256(run(methods.unseen()).network)
    other = run(methods.reweight(power=2), torch.linspace(0, 1, n))
    assert weights_sha256(other.network) != weights_sha256(alike.network)
    for sure in (None, torch.ones(n - 1), torch.zeros(n), torch.full((n,), 2.0)):
        with pytest.raises(UserError, match="confidence"):
            run(methods.reweight(), sure)


def test_ddpm_times_are_discrete_and_folders_are_diffusers(tmp_path) -> None:
    """From a diffusers folder, at the times and with the alphas of its scheduler, to a diffusers folder."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    scheduler = DDPMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2")
    DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "parent")
    seen: list[Noised] = []

    @dataclass(frozen=True, kw_only=True)
    class Watched(Redirect):
        def each(self, batch: Noised) -> torch.Tensor:
            seen.append(batch)
            return super().each(batch)

    parent = load(tmp_path / "parent")
    unlearn(
        parent, tiny_split(), method=replace(methods.redirect(), forget=Watched(low=0.1)),
        settings=UnlearnSettings(steps=3, batch=8), run=quiet(tmp_path / "child"),
    )  # fmt: skip
    steps = torch.cat([batch.t for batch in seen]) * 49
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    alphas = scheduler.alphas_cumprod[steps.round().long()].sqrt()
    torch.testing.assert_close(parent.sde.alpha(steps.round() / 49), alphas, rtol=1e-5, atol=1e-6)
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "child")
    child = load(tmp_path / "child").network.state_dict()
    assert all(torch.equal(v, child[k]) for k, v in pipeline.unet.state_dict().items())
    assert any(not torch.equal(v, child[k]) for k, v in network.state_dict().items())
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"


def test_literal_ascent_ends_with_the_guards_message_and_good_weights(tmp_path) -> None:
    settings = UnlearnSettings(steps=400, batch=16, lr=1e-2, clip=100.0, cooldown=0.0)
    fitted = TrainSettings(steps=60, batch=16, lr=3e-3, warmup=5)
    parent = train(plane_model(SDES["ve"]), PLANE.retain, settings=fitted, run=quiet())
    with pytest.raises(Diverged, match=r"neggrad diverged at step \d+: .* last good weights"):
        unlearn(
            parent, PLANE, method=methods.neggrad(), settings=settings, run=quiet(tmp_path / "m"),
        )  # fmt: skip
    kept = load(tmp_path / "m")
    assert kept.record["status"]["kind"] == "diverged"
    assert all(bool(torch.isfinite(p).all()) for p in kept.parameters())


@pytest.mark.parametrize("form", ["inner", "literal", "released_sign", "windowed"])
def test_each_form_trains_in_its_own_way(form: str) -> None:
    """From one start, with the same images, times and noise, only the term can tell two runs apart."""

    def run(**options: str) -> ScoreModel:
        settings = UnlearnSettings(steps=3, batch=8)
        method = (methods.orthogonal if form == "inner" else methods.obtuse)(**options)  # type: ignore[operator]
        return unlearn(tiny_model(), tiny_split(), method=method, settings=settings, run=quiet())

    child, other = run(form=form), run(form="elementwise" if form == "inner" else "literal")
    assert child.record["method"]["forget"]["form"] == form
    assert all(bool(torch.isfinite(p).all()) for p in child.parameters())
    same = weights_sha256(child.network) == weights_sha256(other.network)
    assert same == (form == "literal")


def test_what_a_recipe_needs_to_know() -> None:
    """Plain data are for the standard method; the others ask what to forget."""
    for name, recipe in METHODS.items():
        if name != "standard":
            with pytest.raises(UserError, match="a trained model" if recipe().fine_tunes else "what to forget"):
                train(tiny_model(), tiny_split().retain, method=METHODS[name](), run=quiet())
