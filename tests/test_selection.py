"""Watched runs: the stated rule, images that are never trained on, the same choice after an interruption."""

import json
import signal
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import forked, quiet, sampled_only, tiny_data, tiny_judge, tiny_model, tiny_split
from torch import Tensor

from msgm.data import ForgetRequest
from msgm.errors import UserError
from msgm.experiments.core import selection
from msgm.experiments.core.selection import Selection, SelectSettings, best
from msgm.forgetting import methods
from msgm.forgetting.terms import Denoising
from msgm.formats import load
from msgm.formats.native import RECORD, WEIGHTS
from msgm.formats.tensors import weights_sha256
from msgm.metrics import quantities
from msgm.metrics.judge import Judge
from msgm.model.score import ScoreModel
from msgm.report.results import Result
from msgm.status import FINISHED, diverged
from msgm.training.batches import Pixels
from msgm.training.loop import Diverged, unlearn
from msgm.training.settings import UnlearnSettings

SHORT = UnlearnSettings(steps=7, batch=8, warmup=3, save_every=2, seed=5)
WATCH = SelectSettings(select_every=3, select_n=4, select_images=2, select_share=0.2)
LIMITS = SelectSettings(select_junk=0.02, select_nll=0.1, select_stop=0.3)


def row(ur: float, junk: float, nll: float | None) -> Result:
    retain, forget = quantities.NLL.values()
    found = [
        quantities.UR.share(round(1000 * ur), 1000), quantities.JUNK.share(round(1000 * junk), 1000),
        retain.missing("it failed its check") if nll is None else retain.of(nll, stderr=0.01),
        forget.of(5.0, stderr=0.1), quantities.FRECHET.of(1.0),
    ]  # fmt: skip
    return Result(model="", method="", measured={each.name: each for each in found})


PARENT = row(0.2, 0.01, 2.7)


@pytest.mark.parametrize(
    ("watched", "kept"),
    [
        ({10: row(0.10, 0.01, 2.75), 20: row(0.02, 0.03, 2.8), 30: row(0.05, 0.0, 2.71)}, 20),  # the lowest UR
        ({10: row(0.10, 0.01, 2.75), 20: row(0.0, 0.031, 2.75), 30: row(0.0, 0.0, 2.81)}, 10),  # junk, NLL over limits
        ({10: row(0.02, 0.02, 2.79), 20: row(0.02, 0.02, 2.71), 30: row(0.02, 0.02, 2.75)}, 20),  # ties: the lowest NLL
        ({10: row(0.02, 0.0, 2.75), 20: row(0.02, 0.0, 2.75)}, 10),  # then the first
        ({10: row(0.01, 0.5, 2.95), 20: row(0.05, 0.5, 2.9)}, 20),  # none keeps the limits: the lowest NLL
        ({10: row(0.0, 0.0, None), 20: row(0.19, 0.0, 2.7)}, 20),  # a failed check is over every limit
    ],
)
def test_the_rule(watched: dict[int, Result], kept: int) -> None:
    assert best({0: PARENT, **watched}, LIMITS) == kept
    backwards = dict(reversed(watched.items()))
    assert best({0: PARENT, **backwards}, LIMITS) == kept


@pytest.mark.parametrize(
    "options",
    [
        {"select_every": 0},
        {"select_n": 1},
        {"select_images": 1},
        {"select_share": 0.0},
        {"select_share": 1.0},
        {"select_junk": -0.1},
        {"select_nll": 0.2, "select_stop": 0.1},
    ],
)
def test_settings_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        SelectSettings(**options)


def images(data: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in data}


def test_held_out_images_are_a_seeded_share_of_both_sets() -> None:
    data = tiny_data(n=60)
    split = ForgetRequest("label == 1").split(data)
    part, held = split.hold_out(0.2, seed=3)
    assert (len(part.retain), len(part.forget), len(held)) == (24, 24, 12)
    assert held.columns["label"].tolist() == [0] * 6 + [1] * 6
    kept = images(part.retain.rows()) | images(part.forget.rows())
    assert not kept & images(held.rows())
    assert kept | images(held.rows()) == images(data.rows())
    assert part.request == split.request and part.digest == split.digest
    assert torch.equal(split.hold_out(0.2, seed=3)[1].rows(), held.rows())
    assert not torch.equal(split.hold_out(0.2, seed=4)[1].rows(), held.rows())
    assert len(split.hold_out(0.001)[1]) == 4  # two of each at least
    with pytest.raises(UserError, match="too few"):
        split.hold_out(0.99)
    with pytest.raises(UserError, match="between 0 and 1"):
        split.hold_out(1.0)


def scripted(monkeypatch: pytest.MonkeyPatch, rows: dict[int, Result]) -> list[int]:
    """What each watched step is said to measure, in the place of a real audit; the steps asked for."""
    asked: list[int] = []

    def evaluate(model: ScoreModel, *, name: str, **_: Any) -> tuple[Result, None]:
        step = int(name.split()[1])
        asked.append(step)
        return replace(rows[step], model=name), None

    monkeypatch.setattr(selection, "evaluate", evaluate)
    return asked


def run(out: Path | None, settings: UnlearnSettings = SHORT, watch: SelectSettings = WATCH, **options: Any):
    torch.manual_seed(0)
    judge, parent = options.pop("judge", tiny_judge()), tiny_model()
    options = {"method": methods.redirect()} | options
    ways = {key: options.pop(key) for key in ("resume", "overwrite") if key in options}
    with Selection(watch, split=tiny_split(), judge=judge, parent=parent, steps=settings.steps, out=out) as watcher:
        child = unlearn(parent, watcher.split, settings=settings, run=quiet(out, **ways), watch=watcher, **options)
    return child, watcher


STORY = {0: PARENT, 3: row(0.05, 0.01, 2.8), 6: row(0.1, 0.01, 2.75), 7: row(0.0, 0.5, 2.8)}


def test_the_best_checkpoint_is_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    draw = Pixels.draw

    def drawn(data: Pixels, index: Tensor, *rest: Any) -> Tensor:
        seen.extend(image.numpy().tobytes() for image in data.images.rows(index))
        return draw(data, index, *rest)

    monkeypatch.setattr(Pixels, "draw", drawn)
    asked = scripted(monkeypatch, STORY)
    child, watcher = run(tmp_path / "m", replace(SHORT, steps=7))
    assert asked == [0, 3, 6, 7]
    # Nothing that was held out was ever drawn, and all else was.
    assert not set(seen) & images(watcher.held_out.rows())
    assert set(seen) == images(tiny_data().rows()) - images(watcher.held_out.rows())

    chosen = json.loads((tmp_path / "m" / RECORD).read_text())["selection"]
    assert (chosen["step"], chosen["within_limits"], chosen["stopped_early"]) == (3, True, False)
    assert chosen["held_out"] == {"retain": 4, "forget": 4, "seed": selection.SEED}
    assert chosen["judge"]["sha256"] == weights_sha256(tiny_judge()) and chosen["judge"]["recall"]["value"] == 1
    assert [w["step"] for w in chosen["watched"]] == [0, 3, 6, 7]
    assert chosen["watched"][2]["unlearning_ratio"]["value"] == 0.1
    assert chosen["settings"]["select_every"] == 3 and "lowest UR" in chosen["rule"]
    assert [v.method for v in watcher.verdicts()] == ["the parent", "kept", "", "over a limit"]
    # The weights of step 3 are those of the same run that nobody watched, as they were after 3 of its 7 steps.
    averages: dict[int, str] = {}

    class Look:
        def __call__(self, step: int, average: ScoreModel) -> bool:
            averages[step] = weights_sha256(average.network)
            return False

        def ship(self, average: ScoreModel) -> dict[str, Any]:
            return {}

    last = unlearn(
        tiny_model(), watcher.split, method=methods.redirect(), settings=SHORT, run=quiet(),
        watch=Look(),
    )  # fmt: skip
    assert list(averages) == list(range(8)) and len(set(averages.values())) == 8
    assert weights_sha256(load(tmp_path / "m").network) == weights_sha256(child.network) == averages[3]
    assert weights_sha256(last.network) == averages[7]
    left = {p.name for p in (tmp_path / "m").iterdir()}
    assert left == {"log.jsonl", RECORD, "run.json", "score.json", "unet", "watched.json"}


def test_the_run_ends_when_the_retained_suffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch, {**STORY, 3: row(0.1, 0.0, 2.8), 6: row(0.0, 0.0, 3.21)})
    child, watcher = run(tmp_path / "m")
    assert asked == [0, 3, 6] and watcher.stopped
    assert child.record["selection"]["step"] == 3 and child.record["selection"]["stopped_early"]
    assert len((tmp_path / "m" / "log.jsonl").read_text().splitlines()) == 6
    assert child.record["status"] == FINISHED.to_dict()


def test_without_a_folder_and_without_a_good_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {3: row(0.0, 0.9, 2.8), 6: row(0.0, 0.9, None), 7: row(0.1, 0.9, 2.75)}
    scripted(monkeypatch, {0: PARENT, **bad})
    child, _ = run(None)
    assert child.record["selection"]["step"] == 7 and not child.record["selection"]["within_limits"]


def test_a_parent_whose_likelihood_fails_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {0: row(0.2, 0.0, None)})
    with pytest.raises(UserError, match="nothing to select by"):
        run(None)


def test_divergence_keeps_the_best_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, STORY)
    calls = []

    def explode(self: Denoising, half: Any) -> Tensor:
        calls.append(None)
        return (half.predicted - half.eps).square().mean() * (float("nan") if len(calls) >= 5 else 1)

    monkeypatch.setattr(Denoising, "__call__", explode)
    with pytest.raises(Diverged, match="step 5"):
        run(tmp_path / "m")
    record = json.loads((tmp_path / "m" / RECORD).read_text())
    assert record["status"] == diverged(5).to_dict() and record["selection"]["step"] == 3
    assert not (tmp_path / "m" / selection.WEIGHTS).exists()


def outcome(folder: Path) -> tuple[bytes, dict[str, Any]]:
    return (folder / "unet" / WEIGHTS).read_bytes(), json.loads((folder / RECORD).read_text())


@pytest.fixture(scope="module")
def sampled() -> Iterator[None]:
    """Checkpoints are sampled and judged in earnest; their likelihood is not measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "evaluate", sampled_only)
        yield


@pytest.fixture(scope="module")
def uninterrupted(sampled: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole") / "m"
    run(folder, watch=GENEROUS)
    return outcome(folder)


GENEROUS = replace(WATCH, select_junk=1.0, select_nll=500.0, select_stop=600.0)


@pytest.mark.parametrize(
    ("at", "number"), [(4, signal.SIGINT), (7, signal.SIGINT), (2, signal.SIGKILL), (7, signal.SIGKILL)]
)
def test_an_interrupted_run_chooses_the_same(at: int, number: int, uninterrupted, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    ended = forked(lambda: run(folder, watch=GENEROUS), step=at, number=number)
    assert ended == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert not (folder / RECORD).exists()
    if (folder / "resume.safetensors").exists():
        with pytest.raises(UserError, match="other settings of the selection"):
            run(folder, watch=replace(GENEROUS, select_junk=0.5), resume=True)
        other = deepcopy(tiny_judge())
        with torch.no_grad():
            next(other.parameters()).mul_(1.001)
        with pytest.raises(UserError, match="another judge of the selection"):
            run(folder, watch=GENEROUS, judge=other, resume=True)
    run(folder, watch=GENEROUS, resume=True)
    assert outcome(folder) == uninterrupted
    watched = uninterrupted[1]["selection"]["watched"]
    assert [w["step"] for w in watched] == [0, 3, 6, 7]
    assert all(w["unlearning_ratio"]["n"] == 4 for w in watched)
    assert len({w["nll"]["retain"]["bits_per_dim"] for w in watched}) == 4


def test_a_blind_judge_watches_nothing() -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match="cannot tell what is to be forgotten"):
        Selection(WATCH, split=tiny_split(), judge=Judge((0, 1), (1, 8, 8), width=2), parent=tiny_model(), steps=3)
