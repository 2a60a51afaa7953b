"""The audit: its rule, its planted failures on mixtures, and all of it on a tiny model."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import test_attacks as mixtures
import torch
from tiny import tiny_data, tiny_files, tiny_model
from torch import Tensor

from msgm.attacks.table import ATTACKS
from msgm.attacks.target import Budget
from msgm.cli import auditing
from msgm.cli.main import main
from msgm.data import ForgetRequest
from msgm.errors import UserError
from msgm.experiments.audit import attacking
from msgm.experiments.audit import main as auditor
from msgm.experiments.audit.main import audit
from msgm.experiments.audit.outcome import Audit, Outcome
from msgm.experiments.audit.verdict import decide, harmonic, joined, together
from msgm.formats import load, save
from msgm.formats.tensors import weights_sha256
from msgm.metrics.judge import Judge
from msgm.metrics.measured import Measured, Quantity
from msgm.model.score import ScoreModel

SHARE = Quantity(name="UR", about="", unit="%")


# ------------------------------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("model", "retrained", "verdict"),
    [
        (SHARE.share(50, 1000), [SHARE.share(40, 1000)], "held"),
        (SHARE.share(300, 1000), [SHARE.share(40, 1000)], "leaked"),
        (SHARE.share(40, 1000), [SHARE.share(300, 1000)], "leaked"),
        (SHARE.share(150, 1000), [SHARE.share(50, 1000)], "not decided"),
        (SHARE.share(1, 10), [SHARE.share(1, 10)], "not decided"),
        (SHARE.share(250, 1000), [SHARE.share(40, 1000), SHARE.share(300, 1000)], "not decided"),
        (SHARE.missing("no judge"), [SHARE.share(1, 10)], "not decided"),
    ],
    ids=["like it", "more", "less", "at the margin", "too few", "several", "missing"],
)
def test_verdicts_come_from_intervals(model: Measured, retrained: list[Measured], verdict: str) -> None:
    assert decide(model, retrained).verdict == verdict


def test_to_give_back_less_than_a_stand_in_is_no_leak() -> None:
    much, little, some = (SHARE.share(k, 1000) for k in (500, 10, 300))
    assert decide(little, [some], stand_in=True).verdict == "held"
    assert decide(much, [some], stand_in=True).verdict == "leaked"
    area = Quantity(name="AUC", about="", unit="AUC")
    low, chance = area.of(0.1, low=0.05, high=0.15), area.of(0.5, low=0.45, high=0.55)
    assert decide(low, [chance], stand_in=True).verdict == "leaked"


def test_why_there_is_no_decision() -> None:
    assert decide(SHARE.missing("no judge"), [SHARE.share(1, 10)]).reason == "no judge"


def test_several_retrained_models_are_joined() -> None:
    both = joined([SHARE.share(10, 100), SHARE.share(30, 100)])
    assert both.value == pytest.approx(0.2)
    assert both.interval == (SHARE.share(10, 100).low, SHARE.share(30, 100).high)


def test_an_attack_is_leaked_by_one_number_and_held_by_all() -> None:
    held, leaked = (decide(SHARE.share(k, 1000), [SHARE.share(40, 1000)]) for k in (40, 500))
    open_ = decide(SHARE.share(1, 10), [SHARE.share(1, 10)])
    assert together([held, held]) == "held"
    assert together([held, open_]) == "not decided"
    assert together([held, open_, leaked]) == "leaked"


def test_the_harmonic_mean() -> None:
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(0.5, 0.0, 1.0) == 0.0


# ---------------------------------------------------------------------------------------------- planted failures

APART = 3.0
"""Modes three times as far apart: the retained ones leave nothing between them."""
SMALLER = replace(
    mixtures.BUDGET, images=400, samples=700, sampling_steps=16, checkpoints=(2, 6), lr=0.1, shown=(1, 10, 100),
    rounds=100,
)  # fmt: skip
PARENT, RETRAINED = mixtures.weighing(0.2, APART), mixtures.weighing(1e-6, APART)


def verdicts(attack: str, model: ScoreModel) -> set[str]:
    """About a model of the toy, beside one whose weight of the forgotten mode is nought."""
    target, what = mixtures.aim(SMALLER, PARENT, APART), ATTACKS[attack]
    found = [what.measure(what.prepare(each, target), target) for each in (model, RETRAINED)]
    told = [key for key, each in found[0].items() if not each.detail]
    exact = {key: Measured(name=key, value=value, low=value, high=value) for key, value in what.known.items()}
    return {decide(found[0][key], [exact.get(key, found[1][key])]).verdict for key in told}


# All but membership: a law has no members, and the toy's parent is one. `test_attacks` has a model that memorised.
CATCH_THE_PARENT = [attack for attack in ATTACKS if attack != "member"]


@pytest.mark.parametrize("attack", CATCH_THE_PARENT)
def test_the_parent_is_caught(attack: str) -> None:
    assert "leaked" in verdicts(attack, PARENT)


@pytest.mark.parametrize("attack", ["ask", "renoise", "complete", "reconstruct", "compare", "revive"])
def test_a_retrained_model_is_not(attack: str) -> None:
    assert verdicts(attack, mixtures.weighing(1e-6, APART)) == {"held"}


# ------------------------------------------------------------------------------------------------------ all of it

SHAPE = (1, 8, 8)
TINY = Budget(
    images=6, samples=6, sampling_steps=4, checkpoints=(1, 2), shown=(1, 10, 100), batch=4, draws=4, nll_steps=2,
    flow_steps=4, searched=2, rounds=2,
)  # fmt: skip


class Halves(Judge):
    """Says which half is brighter, without training."""

    def __init__(self) -> None:
        super().__init__((0, 1), SHAPE, width=2)

    def predict(self, x: Tensor, batch: int = 500) -> Tensor:
        x = x.float()  # pixels or points
        return (x[..., 4:].flatten(1).mean(1) > x[..., :4].flatten(1).mean(1)).long()


def run(out: Path, **options: object) -> dict[str, object]:
    request = ForgetRequest("label == 1")
    torch.manual_seed(0)
    audit(
        out=out, budget=TINY, workers=1, progress=False,
        **{"split": request.split(tiny_data(60)), "held": request.split(tiny_data(60, seed=1)),
           "model": tiny_model(seed=1), "against": tiny_model(), "judge": Halves(), "guide": Halves(),
           "retrained": {"again": tiny_model(seed=2)}, "name": "tiny", **options},
    )  # fmt: skip
    found: dict[str, object] = json.loads((out / "audit.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("audit") / "a"
    return out, run(out, show_recovered=True)


def test_every_attack_has_a_verdict_and_every_models_numbers(whole: tuple[Path, dict]) -> None:
    _, found = whole
    assert list(found["attacks"]) == list(ATTACKS)
    assert sorted(found["held"] + found["leaked"] + found["not decided"]) == sorted(ATTACKS)
    for name, attack in found["attacks"].items():
        assert list(attack["numbers"]) == ["model", "parent", "again"]
        told = {key for key, each in attack["numbers"]["model"].items() if not each.get("detail")}
        assert set(attack["decisions"]) == told and told, name
    assert set(found["summary"]) == {"forgetting", "quality", "robustness", "harmonic mean"}
    assert set(found["weights_sha256"]) == {"model", "parent", "again"}
    assert found["facts"]["judge"] == found["judge"]["sha256"]
    assert not found["stand_in"]
    shares = {
        name: max(attack["numbers"]["model"][key]["value"] or 0 for key in attack["decisions"])
        for name, attack in found["attacks"].items()
        if attack["numbers"]["model"][next(iter(attack["decisions"]))].get("unit") == "%"
    }
    first = found["verdict"].partition("Most comes back by ")[2].partition(" ")[0]
    assert shares[first] == max(shares.values())


def test_a_model_of_junk_is_called_so() -> None:
    def asked(junk: int) -> Audit:
        numbers = {"UR": SHARE.share(1, 100), "junk": SHARE.share(junk, 100), "Fréchet": SHARE.of(3.0)}
        outcome = Outcome(
            attack=ATTACKS["ask"], numbers={"model": numbers, "parent": numbers}, seconds=0.0,
            decisions={"UR": decide(numbers["UR"], [numbers["UR"]])},
        )  # fmt: skip
        return Audit(name="m", outcomes=[outcome], retrained=["r"], stand_in=False, about={})

    assert asked(70).junk and "This model makes junk" in asked(70).sentence
    # Of a hundred 55 are more than half, but the interval does not say so.
    assert not asked(55).junk and "junk" not in asked(55).sentence


def test_the_page_answers_first(whole: tuple[Path, dict]) -> None:
    out, found = whole
    page = (out / "audit.html").read_text()
    assert page.index(found["verdict"]) < page.index("<table>") < page.index("How this was made")
    assert "data:image/png" not in page


def test_pictures_are_kept_when_asked_for(whole: tuple[Path, dict]) -> None:
    out, _ = whole
    assert (out / "recovered" / "complete" / "forget.png").is_file()
    assert not list((out / "recovered").rglob("*latent*"))


def test_an_audit_goes_on_where_it_was_stopped(whole: tuple[Path, dict], tmp_path: Path) -> None:
    out, found = whole
    shutil.copytree(out, tmp_path / "b")
    (tmp_path / "b" / "pieces" / "renoise" / "model" / "row.json").unlink()
    kept = (tmp_path / "b" / "pieces" / "relearn" / "model" / "row.json").stat().st_mtime_ns
    again = run(tmp_path / "b", show_recovered=True, resume=True)
    assert (tmp_path / "b" / "pieces" / "relearn" / "model" / "row.json").stat().st_mtime_ns == kept
    for name in ATTACKS:
        assert again["attacks"][name]["numbers"] == found["attacks"][name]["numbers"]
    with pytest.raises(UserError, match=r"other settings, data or parent: budget\.samples was 6, is 7"):
        request = ForgetRequest("label == 1")
        audit(
            tiny_model(seed=1), against=tiny_model(), split=request.split(tiny_data(60)),
            held=request.split(tiny_data(60, seed=1)), judge=Halves(), guide=Halves(), out=tmp_path / "b",
            budget=replace(TINY, samples=7), workers=1, progress=False, resume=True, show_recovered=True,
            retrained={"again": tiny_model(seed=2)},
        )  # fmt: skip


def test_what_another_audit_measured_of_the_same_models_is_taken_over(
    whole: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = whole
    shutil.copytree(out / "pieces", tmp_path / "a" / "pieces")
    (tmp_path / "a" / "pieces" / "renoise" / "parent" / "job.json").write_text('{"attack": "renoise"}')
    done: list[str] = []
    attacked = attacking.attacked
    monkeypatch.setattr(attacking, "attacked", lambda attack, *rest: done.append(attack) or attacked(attack, *rest))
    for other, expected in ((out, []), (tmp_path / "a", ["renoise"])):
        done.clear()
        again = run(tmp_path / "b", show_recovered=True, reuse=other, overwrite=True)
        assert done == expected
        for name in ATTACKS:
            assert again["attacks"][name]["numbers"] == found["attacks"][name]["numbers"]
    with pytest.raises(UserError, match="is not the folder of an audit"):
        run(tmp_path / "d", reuse=tmp_path)
    assert not (tmp_path / "d").exists()


def test_without_a_retrained_model_a_stand_in_is_made_and_named(tmp_path: Path) -> None:
    from msgm.training.settings import UnlearnSettings

    found = run(tmp_path / "a", retrained=None, attacks=("locate",), stand_in=UnlearnSettings(steps=2, batch=4))
    assert found["stand_in"]
    assert found["retrained"] == ["unseen"]
    assert "unseen (stand-in)" in (tmp_path / "a" / "audit.html").read_text()
    assert not (tmp_path / "a" / "recovered").exists()


class Swapped(Halves):
    """Right about nothing."""

    def predict(self, x: Tensor, batch: int = 500) -> Tensor:
        return 1 - super().predict(x, batch)


def test_the_guide_is_checked_as_the_judge_is(tmp_path: Path) -> None:
    judge = Halves()
    guides = [
        (Judge((0, 1), (1, 9, 9), width=2), r"guide knows images of shape \(1, 9, 9\)"),
        (Judge((0, 1, 2), SHAPE, width=2), r"label 0 \(0\), 1 \(1\), 2 \(2\), the judge"),
        (Judge((0, 1), SHAPE, names=("a", "b"), width=2), r"label 0 \(a\), 1 \(b\)"),
        (Swapped(), "the guide cannot tell what is to be forgotten in these data: it finds 0% of 30"),
        (judge, "the guide is the judge"),
    ]
    for guide, said in guides:
        with pytest.raises(UserError, match=said) as refused:
            run(tmp_path / "a", judge=judge, guide=guide)
        assert refused.value.option == "guide"
    assert not (tmp_path / "a").exists()


def test_the_judges_own_numbers_of_the_classes_count(tmp_path: Path) -> None:
    """The same audit by a judge that numbers the same names the other way round."""
    request = ForgetRequest("label == 'right'")
    data = [replace(tiny_data(60, seed=seed), label_names={0: "left", 1: "right"}) for seed in (0, 1)]
    given = {"split": request.split(data[0]), "held": request.split(data[1]), "attacks": ("complete", "reconstruct")}
    found = []
    for kind, names in ((Halves, ("left", "right")), (Swapped, ("right", "left"))):
        judge, guide = kind(), kind()
        judge.names = guide.names = names
        found.append(run(tmp_path / names[0], judge=judge, guide=guide, **given)["attacks"])
    for attack in ("complete", "reconstruct"):
        assert found[0][attack]["numbers"] == found[1][attack]["numbers"]
    assert torch.equal(auditor._labelled(data[0], judge).labels, 1 - data[0].labels)


def test_images_that_lack_a_class_of_the_judge_train_no_guide(tmp_path: Path) -> None:
    three = Judge((0, 1, 2), SHAPE, width=2)
    three.predict = Halves().predict  # type: ignore[method-assign]
    with pytest.raises(UserError, match="halves has no images of the judge's classes 2 to train a guide with"):
        run(tmp_path / "a", judge=three, guide=None)
    assert not (tmp_path / "a").exists()


def test_what_the_guide_is_worth_is_told(whole: tuple[Path, dict]) -> None:
    out, found = whole
    assert found["guide"]["sha256"] == found["facts"]["guide"] and found["guide"]["recall"]["value"] == 1.0
    page = (out / "audit.html").read_text()
    assert found["guide"]["text"] in page and found["guide"]["text"].startswith("Guide ")


def test_a_worthless_guide_that_was_trained_gives_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "_guide", lambda *_: Swapped())
    found = run(tmp_path / "a", guide=None, attacks=("guide",))
    assert "guide" in found["not decided"]
    reasons = {each["reason"] for each in found["attacks"]["guide"]["decisions"].values()}
    assert reasons == {auditor.UNGUIDED}
    assert found["guide"]["recall"]["value"] == 0.0 and found["facts"]["guide"] is None
    assert auditor.UNGUIDED in (tmp_path / "a" / "audit.html").read_text()


def test_neither_the_model_nor_its_parent_is_a_retrained_model(tmp_path: Path) -> None:
    for seed, same in ((1, "model"), (0, "parent")):
        with pytest.raises(UserError, match=f"retrained model again has the weights of the {same}"):
            run(tmp_path / "a", retrained={"again": tiny_model(seed=seed)})
    assert not (tmp_path / "a").exists()


def test_another_parent_than_the_records_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = tiny_model(seed=1)
    for recorded, told in (({}, False), (weights_sha256(tiny_model().network), False), ("0" * 64, True)):
        child.record = {"parent": {"weights_sha256": recorded} if recorded else None}
        found = run(tmp_path / "a", model=child, attacks=("locate",), overwrite=True)
        assert bool(found["notes"]) == told
        said = "is not the model that this one was made from by its record (000000000000)"
        assert (said in capsys.readouterr().err) == told
        assert (said in (tmp_path / "a" / "audit.html").read_text()) == told
    found = run(tmp_path / "a", model=child, against=child, attacks=("locate",), overwrite=True)
    assert not found["notes"]


def test_what_is_to_be_written_is_not_reused(tmp_path: Path) -> None:
    kept = tmp_path / "a" / "pieces" / "ask.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(UserError, match="to be written and reused"):
        run(tmp_path / "a", reuse=tmp_path / "b" / ".." / "a", overwrite=True)
    assert kept.exists()


def test_what_cannot_be_audited_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no attack bribe"):
        run(tmp_path / "a", attacks=("bribe",))
    assert not (tmp_path / "a").exists()


# ------------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_files(tmp_path)
    save(tiny_model(seed=1), tmp_path / "child")
    monkeypatch.setattr(auditing, "Judge", type("Judges", (), {"load": staticmethod(lambda name: Halves())}))
    monkeypatch.setattr(auditing, "BUDGETS", {"small": TINY})
    return tmp_path


def words(files: Path, *more: str) -> list[str]:
    named = ["audit", str(files / "child"), "--against", str(files / "model"), "--data", str(files / "data")]
    return [*named, "--attacks", "locate,renoise", "--out", str(files / "a"), "--workers", "1", *more]


def test_the_command_attacks_and_the_record_names_the_audit(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = str(files / "other" / "model")
    save(tiny_model(seed=2), again)
    main(words(files, "--forget", "label == 1", "--retrained", again, "--guide", "any"))
    found = json.loads((files / "a" / "audit.json").read_text())
    assert list(found["attacks"]) == ["ask", "renoise", "locate"]
    assert found["model"] == "child" and found["retrained"] == ["model-again"]
    told = load(files / "child").record["audit"]
    said = [line for line in capsys.readouterr().out.splitlines() if "; predicts " not in line]  # how models were read
    assert told["verdict"] == found["verdict"] == said[0]
    assert told["sha256"] == hashlib.sha256((files / "a" / "audit.json").read_bytes()).hexdigest()


def test_of_rules_and_lists_the_rule_to_ask_by_is_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = tiny_model(seed=1)
    child.record = {"request": {"any": [{"rule": "label == 1"}, {"index": [0]}, {"rule": "label > 3"}]}}
    save(child, files / "both")
    words = ["audit", str(files / "both"), "--against", str(files / "model"), "--data", str(files / "data")]
    with pytest.raises(SystemExit):
        main([*words, "--out", str(files / "a")])
    assert 'ask by a rule alone: --forget "label == 1 or label > 3"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "holds no request"),
        (("--forget-index", "0"), "ask by a rule alone: --forget RULE"),
        (("--forget", "label == 1", "--attacks", "bribe"), "no attack bribe"),
        (("--forget", "label == 1", "--retrained", "nowhere"), "nowhere"),
    ],
    ids=["rule", "list", "attack", "retrained"],
)
def test_bad_words_end_before_anything_is_written(
    files: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words(files, *more))
    assert end.value.code == 2
    assert said in capsys.readouterr().err
    assert not (files / "a").exists()
