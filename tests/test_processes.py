"""Two processes do what one does: the same losses, samples, likelihoods and tables; one may be killed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import several
import torch
from PIL import Image
from tiny import quiet, tiny_files, tiny_model, tiny_split

from msgm.cli import auditing, making
from msgm.cli.main import TOGETHER, main
from msgm.errors import UserError
from msgm.formats import save
from msgm.processes import Processes, Share, launched
from msgm.training import loop, runtime
from msgm.training.loop import unlearn
from msgm.training.runs import STATE, read_log
from msgm.training.runtime import Runtime
from msgm.training.settings import UnlearnSettings

HERE = Path(__file__).parent
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
"""Sums of 32-bit numbers in another order."""


def two(out: Path, *what: str) -> subprocess.CompletedProcess[str]:
    words = ["--standalone", "--nproc_per_node=2", str(HERE / "several.py"), str(out), str(out.parent), *what]
    given = [sys.executable, "-m", "torch.distributed.run", *words]
    return subprocess.run(given, cwd=HERE, env=os.environ, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``one`` and ``two``: what each number of processes wrote; ``killed.txt``: what the two said of one's end."""
    root, threads = tmp_path_factory.mktemp("processes"), torch.get_num_threads()
    for name in ("one", "two"):
        (root / name).mkdir()
    tiny_files(root)
    save(tiny_model(seed=1), root / "fresh")
    dead = two(root / "two", "killed")
    (root / "killed.txt").write_text(f"{dead.returncode}\n{dead.stderr}")
    (root / "state").write_bytes((root / "two/killed" / STATE).read_bytes())
    alive = two(root / "two", "library", "commands", "rest")
    assert alive.returncode == 0, alive.stderr[-3000:]
    (root / "two.txt").write_text(alive.stdout)
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auditing, "BUDGETS", auditing.BUDGETS)
        for do in (several.library, several.commands, several.rest):
            do(root / "one", root)
    torch.set_num_threads(threads)
    yield root


def same_curves(one: Path, two: Path) -> None:
    for a, b in zip(read_log(one), read_log(two), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert (value is None) == (b[key] is None), key
            if value is not None:
                torch.testing.assert_close(torch.tensor(b[key]), torch.tensor(value), **CLOSE, msg=f"{key}: {a} {b}")


@pytest.mark.parametrize("name", [*several.RUNS, "standard", "made"])
def test_the_losses_are_those_of_one_process(name: str, root: Path) -> None:
    same_curves(root / "one" / name, root / "two" / name)


def test_how_many_there_were_is_on_record(root: Path) -> None:
    for name, size in (("one", 1), ("two", 2)):
        record = json.loads((root / name / "siss/moderation.json").read_text())
        assert record["runtime"]["processes"] == size


def test_samples_and_likelihoods_are_those_of_one_process(root: Path) -> None:
    (one, first, second) = (torch.load(root / name) for name in ("one/found-0.pt", "two/found-0.pt", "two/found-1.pt"))
    for name, values in one.items():
        assert torch.equal(first[name], second[name]), name
        if name.startswith("few"):  # fewer batches than processes: smaller ones
            torch.testing.assert_close(first[name], values, **CLOSE)
        else:
            assert torch.equal(first[name], values), name


def test_commands_write_what_one_process_writes(root: Path) -> None:
    def pictures(name: str) -> torch.Tensor:
        files = sorted((root / name / "samples").glob("[0-9]*.png"))
        return torch.stack([torch.tensor(list(Image.open(path).tobytes())) for path in files])

    assert pictures("one").shape[0] == 10
    assert (pictures("one") - pictures("two")).abs().max() <= 1
    for file in ("nll.json", "evaluation/results.json", "audit/audit.json", "made/watched.json"):
        one, two = (numbers(json.loads((root / name / file).read_text())) for name in ("one", "two"))
        assert one.keys() == two.keys() and len(one) > 5
        for key, value in one.items():
            assert two[key] == pytest.approx(value, rel=2e-3, abs=1e-4), (file, key)


def numbers(value: Any, name: str = "") -> dict[str, float]:
    """The numbers in a JSON value by their places, but for times."""
    if isinstance(value, dict | list):
        each = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in each for k, v in numbers(inner, f"{name}.{key}").items() if "seconds" not in k}
    return {name: value} if isinstance(value, int | float) else {}


def test_one_of_them_speaks(root: Path) -> None:
    said = (root / "two.txt").read_text()
    assert said.count(f"saved {root / 'two/made'}") == said.count("saved 10 images") == 1


def test_one_that_is_killed_leaves_the_last_whole_step(root: Path) -> None:
    status, said = (root / "killed.txt").read_text().split("\n", 1)
    assert status != "0"
    ended = f"another process has ended after step {several.KILLED} of {2 * several.KILLED}; its state is in"
    (line,) = [line for line in said.splitlines() if line.startswith("msgm: ")]
    assert ended in line and line.endswith("the same command with --resume goes on")
    assert (root / "state").stat().st_size > 1000 and not (root / "two/killed" / STATE).exists()
    same_curves(root / "one/killed", root / "two/killed")


# ------------------------------------------------------------------------------------------------- without a launcher


def test_each_row_is_of_one_process() -> None:
    for size, rows in ((1, 5), (2, 5), (3, 10), (4, 4)):
        shares = [Processes(rank=rank, size=size).share(rows) for rank in range(size)]
        assert [k for share in shares for k in range(rows)[share.rows]] == list(range(rows))
        assert sum(share.part for share in shares) == pytest.approx(1)
        assert max(s.end - s.first for s in shares) - min(s.end - s.first for s in shares) <= 1


@pytest.mark.parametrize(("rows", "batch", "size", "lengths"), [(9, 3, 2, {3}), (9, 9, 2, {5, 4}), (2, 5, 3, {1})])
def test_each_batch_is_of_one_process(rows: int, batch: int, size: int, lengths: set[int]) -> None:
    found = [part for rank in range(size) for part in Processes(rank=rank, size=size).batches(range(rows), batch)]
    assert sorted(k for part in found for k in part) == list(range(rows))
    assert {len(part) for part in found} == lengths
    assert [list(p) for p in Processes().batches(range(rows), batch)] == [
        list(range(k, min(k + batch, rows))) for k in range(0, rows, batch)
    ]


def test_one_process_asks_nobody() -> None:
    alone, x = Processes(), torch.randn(3)
    assert alone.summed(x) is x and alone.mean(x, Share(first=0, end=3, of=3)) is x
    assert alone.most(-3) == -3 and alone.told(lambda: "so") == "so" and alone.says("a") and alone.says("a")


def test_what_several_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    several_of = Processes(size=8)
    for room in (loop, runtime, making, auditing):
        monkeypatch.setattr(room, "here", lambda: several_of)
    with pytest.raises(UserError, match="batch of 4 is less than an image for each of 8"):
        unlearn(tiny_model(), tiny_split(), settings=UnlearnSettings(batch=4), run=quiet())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="compile is for one process"):
        Runtime.choose("cuda", compile=True)
    with pytest.raises(UserError, match="more processes here than GPUs"):
        Runtime.choose("cuda")
    assert Runtime.choose("cpu").identity["processes"] == 8
    for words in ("unlearn demo --out x --seeds 2 --device cpu", "audit demo --against demo --out x --workers 2"):
        with pytest.raises(SystemExit):
            main(words.split())
        assert "there are several already" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["x", "0", "-1", "1.5"])
def test_a_launcher_says_how_many(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", said)
    with pytest.raises(UserError, match=f"WORLD_SIZE .* got {said}"):
        launched()


def test_other_commands_are_for_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as end:
        main(["methods"])
    assert end.value.code == 2
    assert f"for one process, and WORLD_SIZE is 2; several do {', '.join(TOGETHER)}" in capsys.readouterr().err
