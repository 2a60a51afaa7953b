"""The commands that compare: unlearn --select and --seeds, sweep; at the smallest budget."""

import json
from pathlib import Path

import pytest
from tiny import FEW_STEPS, sampled_only, tiny_files

from msgm.cli.main import main
from msgm.experiments.core import selection
from msgm.formats import load
from msgm.formats.native import RECORD

RULE = "label == 1"
TINY = ["--steps", "4", "--batch", "4", "--seed", "1", "--threads", "1", "--device", "cpu", "--workers", "1"]
WATCH = ["--select", "--select-every", "2", "--select-n", "4", "--select-images", "2", "--select-share", "0.2",
         "--select-junk", "1", "--select-nll", "300", "--select-stop", "300"]  # fmt: skip
LOOK = ["-n", "4", "--nll-images", "2"]
QUICK = [*LOOK, "--sampler.steps", "2", "--nll-steps", "4", "--nll-check", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    tiny_files(root)
    return root


def words(command: str, files: Path, out: Path, *options: str) -> list[str]:
    given = ["--data", str(files / "data"), "--judge", str(files / "judge"), "--forget", RULE, "--out", str(out)]
    return [command, str(files / "model"), *given, *TINY, *options]


def test_the_best_watched_checkpoint_is_kept(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selection, "evaluate", sampled_only)
    out = tmp_path / "m"
    main(words("unlearn", files, out, *FEW_STEPS, *WATCH))
    chosen = load(out).record["selection"]
    assert chosen["step"] in (2, 4) and [w["step"] for w in chosen["watched"]] == [0, 2, 4]
    assert chosen["held_out"]["retain"] == chosen["held_out"]["forget"] == 4
    said = capsys.readouterr().out
    assert "the parent" in said and "kept" in said and f"saved {out}: step {chosen['step']}" in said


def test_several_seeds_are_audited_and_averaged(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    main(words("unlearn", files, out, *FEW_STEPS, "--seeds", "2", *LOOK))
    _, first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("2 runs on 1 process, about ")
    results = json.loads((out / "results.json").read_text())
    assert [row["model"] for row in results["rows"]] == ["seed 1", "seed 2", "mean of 2"]
    assert results["rows"][2]["unlearning_ratio"]["n"] == 8
    assert load(out / "seed-2").record["seed"] == 2
    assert results["command"].endswith("--seeds 2 -n 4 --nll-images 2")


def test_a_sweep_of_a_few_methods(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s"
    chosen = ["--method", "standard", "--method", "unseen", "--method", "reweight", "--seeds", "1", *QUICK]
    chosen += ["--method", "redirect", "--method.alpha", "[0.4]"]
    main(words("sweep", files, out, *chosen))
    _, first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("4 runs on 1 process, about ") and f"look at {out / 'report.html'}" in rest[-1]
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["parent", "unseen", "reweight", "redirect alpha=0.4"]
    assert rows[0]["method"] == "standard" and not (out / "runs" / "parent" / RECORD).exists()
    assert rows[2]["status"].startswith("refused: method reweight weighs images")
    assert f"reweight: {rows[2]['status']}" in rest
    # With a judge for it the refused one is made, and nothing else again.
    main([*words("sweep", files, out, *chosen), "--confidence", str(files / "judge"), "--resume"])
    assert capsys.readouterr().out.splitlines()[1].startswith("1 run on 1 process")
    weighed = json.loads((out / "results.json").read_text())["rows"][2]
    assert "refused" not in weighed["status"] and weighed["images"] == 4 * 8
    assert "its rates flatter" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("unlearn", ["--seeds", "0"], "--seeds must be 1 or more"),
        ("unlearn", ["-n", "5"], "belong to --seeds"),
        ("unlearn", ["--seeds", "2", "--workers", "0"], "workers must be 1"),
        ("unlearn", ["--select", "--select-share", "2"], "select_share"),
        ("unlearn", [], "--judge is used by --select, --seeds and --retain-samples; leave it out"),
        ("sweep", ["--method.alpha", "1"], "say first of which: --method NAME"),
        ("sweep", ["--method", "redirect", "--method.combine", "sum"], "no combine 'sum'; known: weighted"),
        ("sweep", ["--method", "exorcise"], "no method 'exorcise'"),
        ("sweep", ["--method", "standard"], "nothing to compare"),
        (
            "sweep",
            ["--method", "redirect", "--method.depth", "1"],
            "no option --method.depth; of method there are --method.al",
        ),
        (
            "sweep",
            ["--method", "redirect", "--method.alpha", "[0.4, big]"],
            "--method.alpha: expected a number; got [0.4, 'big']",
        ),
        (
            "sweep",
            ["--method", "redirect", "--method.every", "1.5"],
            "--method.every: expected a whole number or a list; got 1.5",
        ),
        ("sweep", ["--seeds", "0"], "seeds must be 1"),
        ("sweep", ["--workers", "0"], "workers must be 1"),
        ("sweep", ["--forget", "label == 7"], "selects none"),
        ("sweep", ["--confidence", "nowhere", "--method", "reweight"], "nowhere"),
    ],
)
def test_refused_in_one_line_before_any_work(
    command: str, options: list[str], said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words(command, files, tmp_path / "out", *options))
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "out").exists()


def test_a_method_that_weighs_needs_its_judge_for_several_seeds(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(files / "data"), "--forget", RULE, "--out", str(tmp_path / "out"), "--method", "reweight"]
    with pytest.raises(SystemExit):
        main(["unlearn", str(files / "model"), *given, "--seeds", "2", *TINY])
    assert "name the judge: --confidence" in capsys.readouterr().err and not (tmp_path / "out").exists()
