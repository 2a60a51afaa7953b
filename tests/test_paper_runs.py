"""Grids of the paper's tables on several processes: killed, gone on with, and at the paper's full size."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from msgm.cli.main import main as cli
from msgm.data import Source
from msgm.experiments.paper.budgets import AuditSettings, Budget, Draw, Kind
from msgm.experiments.paper.main import reproduce
from msgm.metrics.judge_training import JudgeSettings
from msgm.training.settings import TrainSettings, UnlearnSettings

BUDGET = Budget(
    image_size=16,
    network="small-16",
    kinds={
        "ve": Kind(
            prediction="edm",
            train=TrainSettings(steps=30, batch=4, warmup=1, save_every=2),
            tune=UnlearnSettings(steps=12, batch=4, warmup=1, save_every=2),
        ),
    },
    retrain=("unseen",),
    judge=JudgeSettings(epochs=6, batch=16, lr=0.01, width=8),
    audit=AuditSettings(draws=(Draw(sampler="heun", steps=2, n=6, batch=3),), nll_images=2, nll_steps=1, nll_check=2),
)
NAMES = ("table7", "figure3")
"""Fine-tuned with three weights of the forget loss and with none, over one seed; Unseen from scratch."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of noise, each with a bright row of its own; 3 and 7 are to be forgotten."""
    root, generator = tmp_path_factory.mktemp("rows"), torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
            for index in range(8):
                image = torch.randint(0, 60, (16, 16), generator=generator, dtype=torch.uint8)
                image[label + 3] += 190
                Image.fromarray(image.numpy()).save(root / split / str(label) / f"{index}.png")
    return root


def go(out: Path, data: Path, workers: int) -> bool:
    return reproduce(
        NAMES, out=out, data=Source(str(data), size=16), budget=BUDGET, device="cpu", workers=workers,
        say=lambda line: None, progress=False,
    )  # fmt: skip


def numbers(out: Path) -> dict[str, list]:
    found = json.loads((out / "results.json").read_text())
    return {
        f"{row['origin']} {row['method']}": [
            *(row["draws"]["heun-2"][key] for key in ("counts", "frechet", "flagged")),
            *(side["bits_per_dim"] for side in row["nll"].values()),
        ]
        for row in found["rows"]
    }


@pytest.fixture
def one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_grid_killed_twice_ends_with_the_same_numbers(workers: int, tmp_path: Path, data: Path) -> None:
    assert go(tmp_path / "whole", data, 1)
    here = f"t.go(Path({str(tmp_path / 'parts')!r}), "
    words = f"from pathlib import Path; import torch, test_paper_runs as t; torch.set_num_threads(1); {here}"
    for place in ("ve/standard/model/resume.safetensors", "ve/tuned/*/seed-0/model/resume.safetensors"):
        run = subprocess.Popen([sys.executable, "-c", f"{words}Path({str(data)!r}), 1)"], cwd=Path(__file__).parent)
        while not any((tmp_path / "parts").glob(place)):
            assert run.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        run.kill()
        assert run.wait() == -signal.SIGKILL
    there = sorted((tmp_path / "parts").rglob("row.json"))
    made = {path: path.stat().st_mtime_ns for path in there}
    assert go(tmp_path / "parts", data, workers)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert len(numbers(tmp_path / "whole")) == 6
    assert len(made) >= 2 and {path: path.stat().st_mtime_ns for path in there} == made
    assert "Orthogonal, alpha 0.7" in (tmp_path / "whole/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("table7", "give it with --data"),
        ("toy --workers 2", "leave out --workers"),
        ("table7 --data demo --workers 0", "--workers must be 1 or more"),
        ("table7 --data demo --workers 2 --threads 2", "leave out --threads"),
        ("all --data {here}", "no folder mnist, cifar10, celeba;"),
        ("table7 --data {here}/nowhere", "no such data"),
    ],
)
def test_words_that_cannot_be_are_refused(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        cli(["reproduce", *words.format(here=tmp_path).split(), "--out", str(out)])
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert not out.exists()
