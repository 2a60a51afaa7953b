"""Sweeps and repeated seeds: what is compared, with which budget, and that an interruption loses nothing."""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import sampled_only, tiny_task

from msgm.choice import Choice
from msgm.data import ForgetRequest, Source
from msgm.errors import UserError
from msgm.experiments.core import jobs, selection
from msgm.experiments.core.estimate import evaluated, looked, trained
from msgm.experiments.core.evaluate import EvaluateSettings, evaluate
from msgm.experiments.core.jobs import Job, Task, inputs
from msgm.experiments.core.pieces import ROW
from msgm.experiments.core.selection import SelectSettings
from msgm.experiments.sweep.main import (
    SweepEvaluation,
    SweepSettings,
    equal_batch,
    folder_of,
    repeat,
    sweep,
    variants,
)
from msgm.folders import IDENTITY
from msgm.forgetting import methods
from msgm.forgetting.methods import DEFAULT, METHODS, Method
from msgm.forgetting.terms import Obtuse
from msgm.formats import load
from msgm.formats.tensors import weights_sha256
from msgm.metrics import quantities
from msgm.metrics.judge import Judge
from msgm.report.results import Results
from msgm.training.settings import UnlearnSettings

ROOT = Path(__file__).parents[1]
SHORT = UnlearnSettings(steps=4, batch=4, warmup=2, save_every=1, seed=3)
LOOK = EvaluateSettings(n=4, sampler=Choice.of("dpm++", steps=2), nll_images=2, nll_steps=4, nll_check=1, seed=3)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A tiny model, an untrained judge and a folder of images."""
    return tiny_task(tmp_path_factory.mktemp("task"), LOOK)


# ------------------------------------------------------------------------------------------------ what is compared


def test_lists_are_values_to_try() -> None:
    # The model that all start from stands for the method that forgets nothing.
    assert [v.name for v in variants([])] == [name for name in METHODS if name != "standard"]
    asked = [
        Choice("unseen"), Choice.of("redirect", alpha=[0.4, 0.5], every=[1, 2]), Choice.of("redirect", low=0.1),
        Choice.of("orthogonal", alpha=0.7, form="inner"), Choice("standard"), Choice("unseen"),
    ]  # fmt: skip
    both = variants(asked)
    assert [str(v) for v in both] == [
        "unseen",
        "redirect alpha=0.4 every=1",
        "redirect alpha=0.4 every=2",
        "redirect alpha=0.5 every=1",
        "redirect alpha=0.5 every=2",
        "redirect low=0.1",
        "orthogonal alpha=0.7 form=inner",
    ]
    assert both[1].options == (("alpha", 0.4), ("every", 1)) and folder_of(both[1]) == "redirect_alpha=0.4_every=1"
    beside = variants([Choice("unseen"), Choice("erasediff"), Choice.of("obtuse", alpha=[0.5, 0.7])], authors=True)
    assert [str(v) for v in beside] == [
        "unseen", "erasediff", "obtuse alpha=0.5", "obtuse alpha=0.7", "erasediff alpha=0.909", "obtuse form=literal"
    ]  # fmt: skip
    with pytest.raises(UserError, match="nothing to compare"):
        variants([Choice("standard")])


@pytest.mark.parametrize("steps", [100, 101])
def test_every_method_sees_as_many_images(steps: int) -> None:
    for method in (methods.unseen(), methods.orthogonal(every=4), methods.redirect(every=1), methods.redirect(every=3)):
        batch = equal_batch(method, 48, steps)
        forget = sum(method.combine.due(k) for k in range(steps)) if method.forget else 0
        # Equal but for the rounding of a batch.
        assert abs(batch * (steps + forget) - 96 * steps) <= 0.5 * (steps + forget)
    assert equal_batch(methods.redirect(), 48, steps) == 48 and equal_batch(methods.unseen(), 48, steps) == 96


# ----------------------------------------------------------------------------------------------------------- a sweep


def chosen() -> dict[Choice, Method]:
    bomb = replace(methods.obtuse(alpha=0.05, every=1), forget=Literal())
    return {
        Choice("unseen"): methods.unseen(),
        Choice("reweight"): methods.reweight(),
        Choice.of("redirect", alpha=0.4): methods.redirect(alpha=0.4),
        Choice.of("obtuse", form="literal"): bomb,
    }


class Literal(Obtuse):
    """A term that is not a number from the first step: it stands for one that diverges."""

    def __call__(self, half: Any) -> Any:
        return super().__call__(half) * float("nan")


class Refusing(Obtuse):
    def __call__(self, half: Any) -> Any:
        raise UserError("needs pairs")


def swept(task: Task, out: Path, **options: Any) -> Results:
    options = {"settings": SHORT, "seeds": 2, "workers": 1, "progress": False} | options
    return sweep(task, options.pop("methods", None) or chosen(), out=out, **options)


def numbers(out: Path) -> dict[str, Any]:
    """results.json without what a clock says."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "evaluation_seconds")}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(json.loads((out / "results.json").read_text()))


@pytest.fixture(scope="module")
def whole(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "s"
    swept(task, out)
    return out


def test_one_row_for_each_variant_over_its_seeds(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    assert set(results) == {"command", "seed", "commit", "budget", "judge", "rows"}
    parent, unseen, reweight, redirect, obtuse = results["rows"]
    names = ["parent", "unseen", "reweight", "redirect alpha=0.4", "obtuse form=literal"]
    assert [r["model"] for r in results["rows"]] == names
    # Standard is the model itself; it is not trained.
    assert parent["method"] == "standard" and {p.name for p in (whole / "runs" / "parent").iterdir()} == {
        "job.json", "row.json", "grid.png"
    }  # fmt: skip
    assert unseen["method"] == "unseen" and redirect["options"] == {"alpha": 0.4}
    for row in (unseen, redirect):
        assert [r["seed"] for r in row["runs"]] == [3, 4]
        assert row["unlearning_ratio"]["n"] == 8
        assert row["steps"] == 4 and row["images"] == 4 * 2 * SHORT.batch
        values = [r["unlearning_ratio"]["value"] for r in row["runs"]]
        assert row["unlearning_ratio"]["value"] == pytest.approx(sum(values) / 2)
        assert row["unlearning_ratio"]["low"] <= min(values) <= max(values) <= row["unlearning_ratio"]["high"]
        assert all(r["status"] == "finished" for r in row["runs"])
    # A method that asks for what is not given is a row, too, and one that diverges; both are on no front.
    assert reweight["status"] == (
        "refused: method reweight weighs images by a judge's confidence, and none is given (2 of 2 seeds)"
    )
    assert reweight["unlearning_ratio"]["value"] is None and reweight["front"] is False
    assert obtuse["status"] == "diverged at step 1 (2 of 2 seeds)"
    assert obtuse["unlearning_ratio"]["value"] is None and obtuse["front"] is False
    assert unseen["status"] == redirect["status"] == "finished" and (unseen["front"] or redirect["front"])
    assert "front" not in parent and parent["unlearning_ratio"]["n"] == 4


def test_what_a_sweep_leaves_behind(whole: Path) -> None:
    there = {"runs", "results.json", "report.html", "pareto.png", "pareto.svg", IDENTITY}
    assert {p.name for p in whole.iterdir()} == there
    assert Image.open(whole / "pareto.png").width > 500
    page, picture = (whole / "report.html").read_text(), (whole / "pareto.svg").read_text()
    assert "redirect alpha=0.4" in page and "diverged at step 1" in page and page.count("data:image/png") == 4
    assert '">front</th>' in page and "weighs images by a judge" in page
    assert "UR + junk" in page and picture.startswith("<?xml")
    child = load(whole / "runs" / "redirect_alpha=0.4" / "seed-4")
    assert child.record["seed"] == 4 and child.record["settings"]["batch"] == SHORT.batch
    assert weights_sha256(child.network) == child.record["weights_sha256"]
    assert load(whole / "runs" / "unseen" / "seed-3").record["settings"]["batch"] == 2 * SHORT.batch


def test_resume_reads_what_is_there_and_adds_to_it(
    task: Task, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s"
    first = {key: method for key, method in chosen().items() if key.name == "redirect"}
    swept(task, out, methods=first, seeds=1)
    stamp = (out / "runs" / "redirect_alpha=0.4" / "seed-3" / ROW).stat().st_mtime_ns
    swept(task, out, resume=True)  # more methods, more seeds
    assert (out / "runs" / "redirect_alpha=0.4" / "seed-3" / ROW).stat().st_mtime_ns == stamp
    assert numbers(out) == numbers(whole)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "perform", lambda *_: pytest.fail("nothing is left to do"))
        few = {key: method for key, method in chosen().items() if key.name != "reweight"}
        swept(task, out, methods=few, resume=True, say=said.append)
    assert said == ["nothing is left to run"]
    # With a judge for it, what was refused is made; the rest stays.
    weighed = swept(replace(task, confidence=task.judge), out, resume=True).rows[2]
    assert weighed.method == "reweight" and weighed.value(quantities.IMAGES) == 4 * 2 * SHORT.batch
    assert (out / "runs" / "redirect_alpha=0.4" / "seed-3" / ROW).stat().st_mtime_ns == stamp
    shutil.rmtree(out / "runs" / "reweight")
    swept(task, out, resume=True)
    for other in ({"settings": replace(SHORT, lr=1e-4)}, {"task": replace(task, evaluation=replace(LOOK, n=5))}):
        with pytest.raises(UserError, match="begun with other settings"):
            swept(**{"task": task, "out": out, "resume": True} | other)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="already exists"):
        swept(task, out)
    assert numbers(out) == numbers(whole)


SCRIPT = """
import signal, sys
from pathlib import Path
import torch
from msgm.data import ForgetRequest, Source
torch.set_num_threads(1)  # as these tests do: more round differently
sys.path.insert(0, sys.argv[1])
import test_sweep
from msgm.experiments.core.jobs import Task
from msgm.experiments.core.evaluate import EvaluateSettings
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background does not have
    task = eval(sys.argv[3])
    test_sweep.swept(task, Path(sys.argv[2]), workers=int(sys.argv[4]), resume="resume" in sys.argv)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_loses_nothing(workers: int, task: Task, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    (tmp_path / "main.py").write_text(SCRIPT)
    started = [sys.executable, str(tmp_path / "main.py"), str(Path(__file__).parent), str(out), repr(task)]
    process = subprocess.Popen([*started, str(workers)], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 900
        while not list(out.glob("runs/*/seed-*/row.json")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # to the one that waits only, as `kill` does
        said = process.communicate(timeout=900)[1]
    finally:
        process.kill()
    stored = {path: path.read_bytes() for path in out.glob("runs/**/row.json")}
    if process.returncode:  # it may have been too late
        assert "what is finished is kept" in said
        assert 1 <= len(stored) < 9 and not (out / "results.json").exists()
    swept(task, out, resume=True)
    assert all(path.read_bytes() == content for path, content in stored.items())
    assert numbers(out) == numbers(whole)


def test_a_method_that_refuses_is_a_row(task: Task, tmp_path: Path) -> None:
    refusing = {Choice("siss"): replace(methods.obtuse(every=1), name="siss", forget=Refusing())}
    results = swept(task, tmp_path / "s", methods=refusing, seeds=1)
    assert results.rows[1].said == "refused: needs pairs (1 of 1 seeds)"


@pytest.mark.parametrize(("options", "said"), [({"seeds": 0}, "seeds must be"), ({"workers": 0}, "workers must be")])
def test_refused_before_any_work(options: dict[str, int], said: str, task: Task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        swept(task, tmp_path / "s", **options)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- estimate


def test_what_a_run_asks_of_the_network_is_counted(task: Task, tmp_path: Path) -> None:
    def job(method: Method | None, **options: Any) -> Job:
        return Job(
            name="a", out=tmp_path, task=replace(task, **options), method=method,
            settings=replace(SHORT, steps=8, batch=4),
        )  # fmt: skip

    model = load(task.model)
    assert trained(job(None)) == 0 and trained(job(methods.unseen())) == 8 * 4
    assert trained(job(methods.redirect())) == 8 * 4 * 2
    assert trained(job(methods.orthogonal(every=4))) == 4 * (8 + 2)
    # Two gradients are two backward passes.
    assert trained(job(methods.munba())) == pytest.approx(8 * 4 * 2 * (1 + 2 / 3))
    calls: list[int] = []
    hook = model.network.register_forward_hook(lambda module, given, made: calls.append(len(given[0])))
    evaluate(
        model, name="a", method="", judge=Judge.load(task.judge), request=task.request,
        test=inputs(task)[2], settings=LOOK, progress=False,
    )  # fmt: skip
    hook.remove()
    # The first call finds how many images fit the memory. The derivative that a likelihood costs beside each of its
    # evaluations (of two sets: two images in 16, one of them again in 32) is no call of the network.
    assert evaluated(LOOK, model) - sum(calls[1:]) == 2 * (2 * (2 * 16 + 1 * 32))
    watch = SelectSettings(select_every=3, select_n=4, select_images=2)
    own, look = evaluated(LOOK, model), evaluated(watch.evaluation, model)
    assert looked(job(methods.unseen(), selection=watch), model) == own + 4 * look  # steps 0, 3, 6 and 8
    assert trained(job(methods.reweight())) == looked(job(methods.reweight()), model) == 0


def test_all_methods_and_seeds_fit_the_time_on_two_cores() -> None:
    """By the rates measured on one thread of a small machine: 110 images a second in training, 330 in evaluation."""
    model, settings, audit = load("demo"), SweepSettings(), SweepEvaluation()
    seconds = evaluated(audit, model) / 330
    for variant in variants([]):
        method = METHODS[variant.name]()
        job = Job(
            name="a", out=Path("unused"), method=method,
            task=Task(
                model="demo", data=Source("demo"), request=ForgetRequest("label == 3"), judge="demo", confidence="demo",
                evaluation=audit,
            ),
            settings=replace(settings, batch=equal_batch(method, settings.batch, settings.steps)),
        )  # fmt: skip
        seconds += 3 * (trained(job) / 110 + looked(job, model) / 330)
    # A tenth of the 90 minutes is left for what is not counted: Fisher information, experts, several checkpoints.
    assert 60 < seconds / 2 / 60 < 81


def test_the_estimate_is_said_before_the_work(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(job: Job, tick: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "perform", perform)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt, match="what is finished is kept"):
        swept(task, tmp_path / "s", say=said.append)
    assert len(said) == 1 and re.match(r"9 runs on 1 process, about \d+ (seconds|minutes)", said[0])


# -------------------------------------------------------------------------------------------------------- the page


def page_of(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    made = importlib.import_module("make_sweep")
    text = (ROOT / "docs/sweep.md").read_text(encoding="utf-8")
    grid = json.loads((made.STORED / "grid.json").read_text())
    blocks = made.blocks("sweep", results) | made.blocks("grid", grid)
    return str(importlib.import_module("blocks").filled(text, blocks))


def test_a_sweep_becomes_a_page(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = json.loads((whole / "results.json").read_text())
    page = page_of(results, monkeypatch)
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:7]] == [
        "| standard (the model itself)", "| unseen", "| reweight", "| redirect alpha=0.4", "| obtuse form=literal"
    ]  # fmt: skip
    assert "diverged at step 1 (2 of 2 seeds)" in rows[6][-1] and "weighs images" in rows[4][-1]
    assert "On the front: " in page and "2 seeds" in page
    # What is asked of the default is answered from its row.
    results["rows"][3]["model"] = DEFAULT
    results["rows"][3] |= {"junk": 0.004, "front": True}
    answered = page_of(results, monkeypatch)
    assert "| junk of at most 0.3 % | **no** | 0.40 |" in answered and f"default, `{DEFAULT}`" in answered


# ----------------------------------------------------------------------------------------------------------- repeats


def test_several_seeds_of_one_method_with_selection(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "evaluate", sampled_only)
    watch = SelectSettings(
        select_every=2, select_n=4, select_images=2, select_share=0.2, select_nll=300, select_stop=300
    )
    watched, out = replace(task, selection=watch), tmp_path / "m"
    results = repeat(watched, methods.redirect(), settings=SHORT, seeds=2, out=out, workers=1, progress=False)
    assert [row.model for row in results.rows] == ["seed 3", "seed 4", "mean of 2"]
    stored = json.loads((out / "results.json").read_text())["rows"]
    values = [row["unlearning_ratio"]["value"] for row in stored]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)
    for seed in (3, 4):
        record = load(out / f"seed-{seed}").record
        assert record["selection"]["step"] in (2, 4) and record["request"]["retain"] == 16
    (out / "seed-4" / ROW).unlink()
    again = repeat(
        watched, methods.redirect(), settings=SHORT, seeds=2, out=out, workers=1, resume=True, progress=False
    )
    assert [r.get(quantities.UR) for r in again.rows] == [r.get(quantities.UR) for r in results.rows]
    assert os.path.exists(out / "seed-4" / ROW)
