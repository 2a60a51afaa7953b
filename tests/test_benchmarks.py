"""The benchmarks run from end to end on a tiny network, and the arithmetic of their headline numbers is right."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from oracle import SDES, gaussian_model, scalar

import msgm
from msgm.errors import UserError
from msgm.model.networks import UNetPreset
from msgm.model.score import ScoreModel
from msgm.process.sde import SDE, VESDE

ROOT = Path(__file__).parents[1]
TINY = {
    "nll": "--images 2 --truth-steps 4 --truth-repeats 2 --reference-repeats 2 --steps 1 --fine 2 --tolerances .1 "
    "--rounds 1",
    "sampling": "--n 40 --rounds 2 --reference-steps 2 --nfe 5 --other-nfe 5 --blocks 1",
    "training": "--batches 4 --steps 2 --rounds 1",
    "processes": "--batches 2 --steps 1 --rounds 1",
    "determinism": "--steps 2 --classifier 2 --n 2",
    "unlearning": "--recipes unseen siss reweight deflect --steps 3 --batch 4 --every 2 --n 8 --nfe 3 --confirm 8",
    "sequential": "--steps 2 --batch 4 --classifier 2 --seeds 1 --n 8",
    "memory": "--few 30 --many 40 --steps 1 --batch 2",
    "soak": "--minutes .05 --settle .005 --every .05",
    "scaling": "--rounds 1 --sizes 16 20 --widths 8 16 --batches 1 2 --steps 2 3 --images 1 2 --cores 1",
}


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import each other as programs do: from their own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of the demo's size."""
    torch.manual_seed(0)
    network = UNetPreset(size=28, patch=4, channels=(8,), attention=(), head_dim=4, groups=4).build(1)
    tiny = ScoreModel(network, VESDE(), shape=(1, 28, 28), patch=4)
    tiny.record = {"data": {"name": "demo"}}
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    msgm.save(tiny, folder)
    return folder


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_writes_its_report(name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script("scaling"), "BATCH", 2)
    # The same in this process: another takes its time to start.
    here = script("memory")
    monkeypatch.setattr(here, "apart", lambda at, method, cache, of: here.one(str(at), method, of.steps, of.batch))
    given = [*TINY[name].split(), "--quick", "--model", str(model), "--out", str(tmp_path)]
    path = script(name).run(given)
    found = json.loads(path.read_text())
    assert path.name.startswith(f"{name}-tiny-quick-20")
    assert {"date", "commit", "command", "seed", "machine", "seconds", "tables"} <= set(found)
    assert found["command"].startswith("python benchmarks/")
    assert found["machine"]["threads"] == 1
    assert all(rows for rows in found["tables"].values())
    assert name in ("scaling", "determinism") or "ratio" in found
    assert name != "nll" or "rmse_bits_per_dim" in found
    text = path.with_suffix(".md").read_text()
    assert text.startswith(f"# {name}: ")
    assert all(f"## {title}" in text for title in found["tables"])


ROBUST = {
    "faults": ("--writes 2 --instants 1 --only sample", "kills", 3),
    "hostile": ("--most 1 --random 2 --started 1", "inputs", 20),
}


def forking(name: str, given: str, out: Path) -> dict[str, Any]:
    """The report of a benchmark, run by itself: it forks, which these tests with their threads are not for."""
    words = [sys.executable, f"benchmarks/{name}.py", "--quick", *given.split(), "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("name", ROBUST)
def test_kills_and_hostile_inputs_are_survived(name: str, tmp_path: Path) -> None:
    given, what, least = ROBUST[name]
    found = forking(name, given, tmp_path)
    assert found["faults"] == 0, found["notes"]
    assert found[what] >= least


@pytest.mark.slow
def test_one_step_of_each_network_of_the_papers_budget(tmp_path: Path) -> None:
    rows = forking("paper", "--cases 5", tmp_path)["tables"]["A step of each"]
    assert [row["process"] for row in rows] == ["ve", "vp", "ddpm", "vp", "vp"]
    assert all(row["parameters, M"] > 20 for row in rows)


def test_committed_reports_say_what_their_numbers_say() -> None:
    reports = sorted((ROOT / "benchmarks/results").glob("*.json"))
    assert reports
    for path in reports:
        assert path.with_suffix(".md").read_text() == script("common").markdown(json.loads(path.read_text())), path.name


def test_the_throughput_is_that_of_the_committed_tables() -> None:
    (path,) = (ROOT / "benchmarks/results").glob("throughput-*.json")
    results = json.loads((ROOT / "docs/results/cifar10-gpu.json").read_text())
    assert script("throughput").report(results) == json.loads(path.read_text())


def test_a_report_replaces_no_other(tmp_path: Path) -> None:
    common = script("common")
    report = common.Report(name="nll", claim="", options=common.arguments("", ["--out", str(tmp_path)]))
    report.write()
    with pytest.raises(UserError, match="already exists"):
        report.write()


def test_repeats_needed_follow_from_scatter_and_bias() -> None:
    # Errors are 0.003 + 0.08 z: 0.02^2 = 0.003^2 + 0.08^2 / R gives R = 16.4.
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, generator=generator)
    runs = truth + 0.003 + 0.08 * torch.randn(8, 4000, generator=generator)
    repeats, scatter, left = script("nll").needed(runs, truth)
    assert repeats in (16, 17)
    assert math.isclose(scatter, 0.08, rel_tol=0.02)
    assert left < 0.006
    # A bias above the goal is not cured by repeating.
    assert script("nll").needed(runs + 0.03, truth)[0] is None


EACH_SDE = pytest.mark.parametrize("sde", [SDES["ve"], SDES["vp"]], ids=["ve", "vp"])


@EACH_SDE
def test_the_reference_likelihood_is_right(sde: SDE) -> None:
    # For a Gaussian the Jacobian is a multiple of the identity: any probe gives the exact trace. Its mean is 0 here, as
    # that of the prior.
    model = gaussian_model(sde, (1, 4, 4), mean=0.0)
    x = 0.5 * torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nats, nfe = script("reference").log_likelihood(model, x, torch.Generator())
    alpha, sigma = sde.alpha(scalar(sde.t_min)), sde.sigma(scalar(sde.t_min))
    normal = torch.distributions.Normal(0.0, ((alpha * 0.5).square() + sigma.square()).sqrt())
    torch.testing.assert_close(nats, normal.log_prob(x).flatten(1).sum(1), rtol=0, atol=5e-3)
    assert nfe % 6 == 2  # RK45: six a step, and two to begin


@EACH_SDE
def test_the_reference_sampler_draws_the_law(sde: SDE) -> None:
    model = gaussian_model(sde, (1, 4, 4))
    x = script("reference").sample(model, 500, torch.Generator().manual_seed(0), steps=400)
    assert abs(float(x.mean()) - 0.2) < 0.03
    assert abs(float(x.std()) - 0.5) < 0.03


@EACH_SDE
@pytest.mark.parametrize("library", ["diffusers", "azula"])
def test_other_libraries_draw_the_law(sde: SDE, library: str) -> None:
    model, outside = gaussian_model(sde, (1, 4, 4), std=0.2), script("outside")
    if library == "azula":
        pytest.importorskip("azula.sample")
        draws = outside.azula_samplers(model)
    else:
        draws = outside.diffusers_pipelines(model)
    for name, draw in draws.items():
        x = draw(200, 300, 0)
        assert abs(float(x.mean()) - 0.2) < 0.02, name
        assert abs(float(x.std()) - 0.2) < 0.02, name


def test_growth_is_the_power() -> None:
    assert math.isclose(script("common").growth([1, 2, 4], [3.0, 12.0, 48.0]), 2.0)


def test_interleaved_rounds_alternate() -> None:
    seen: list[str] = []

    def task(name: str) -> Any:
        return lambda: float(len(seen.append(name) or seen))

    seconds = script("common").interleaved("", {"a": task("a"), "b": task("b")}, 2)
    assert seen == ["a", "b", "b", "a", "a", "b"]
    assert {k: len(v) for k, v in seconds.items()} == {"a": 2, "b": 2}
    assert script("common").ratio([4.0, 9.0, 2.0], [2.0, 3.0, 2.0], scale=2.0) == {"ratio": 4, "least": 2, "most": 6}
