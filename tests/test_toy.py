"""The toy experiment: its measures against closed forms, its plan, and all of it once with the smallest budget."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import msgm.cli.main as cli
from msgm.errors import UserError
from msgm.experiments.exact.mixture import GaussianMixture
from msgm.experiments.toy import main, reproduce
from msgm.experiments.toy.claims import PAPERS_MSGM, UNIT, claims
from msgm.experiments.toy.measure import (
    bound,
    bound_terms,
    measure,
    outlier_limit,
    samples_summary,
    sliced_wasserstein,
    test_points,
)
from msgm.experiments.toy.report import in_papers_unit, over_seeds, rows_of, sheets
from msgm.experiments.toy.runs import Run, execute, fresh, plan, settings_of, trained
from msgm.experiments.toy.setup import BUDGETS, OBJECTIVES, PROCESS, TOYS, Budget, Setting
from msgm.model.precondition import Noise
from msgm.model.score import ScoreModel
from msgm.status import FINISHED, diverged

ROOT = Path(__file__).parents[1]
OVERLAPPING, SEPARATED = TOYS["overlapping"], TOYS["separated"]
TINY = Budget(steps=3, tuning=2, batch=32, seeds=1, study_seeds=1, test=20, nll_steps=2, samples=40)
test_points.__test__ = False  # type: ignore[attr-defined]  # not a test


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The toys and what is measured.


def test_the_toys_are_the_papers_and_one_three_times_as_wide() -> None:
    assert OVERLAPPING.data.weights.tolist() == pytest.approx([0.4, 0.2, 0.4])
    assert OVERLAPPING.data.means.tolist() == [[-2, -2], [0, 0], [2, 2]]
    assert SEPARATED.data.means.tolist() == [[-6, -6], [0, 0], [6, 6]]
    points = OVERLAPPING.points(3)
    assert points.columns["label"].bincount().tolist() == [40_000, 20_000, 40_000]
    for k, mean in enumerate(OVERLAPPING.data.means):
        x = points.rows(points.columns["label"] == k).double()
        assert float((x.mean(0) - mean).abs().max()) < 5 / math.sqrt(len(x))
        assert float((x.std(0) - 1).abs().max()) < 5 / math.sqrt(2 * len(x))


def test_exact_likelihoods_through_the_same_code() -> None:
    """p_g as a model: its measured NLL is its density's, its samples lie where its own do."""
    budget = Budget(test=100, samples=1000)
    found = measure(OVERLAPPING.retain.as_model(PROCESS), OVERLAPPING, budget, seed=0, tests=[4, 5])
    pairs = [test_points(OVERLAPPING, 100, test) for test in (4, 5)]
    retain, forget = (torch.cat(points) for points in zip(*pairs, strict=True))
    for name, x in (("retain", retain), ("forget", forget)):
        nats = -OVERLAPPING.retain.log_density(x)
        assert found["nll"][name]["nats"] == pytest.approx(float(nats.mean()), abs=0.01)
        assert found["nll"][name]["median"] == pytest.approx(float(nats.median()), abs=0.02)
        assert found["nll"][name]["maximum"] == pytest.approx(float(nats.max()), abs=0.05)
        assert found["nll"][name]["reliable"]
        assert found["nll"][name]["by_seed"] == pytest.approx([float(part.mean()) for part in nats.chunk(2)], abs=0.01)
    assert not torch.equal(*[retain for retain, _ in pairs])
    outside = ~OVERLAPPING.nearest_forgotten(retain)
    expected = -float(OVERLAPPING.retain.log_density(retain[outside]).mean())
    assert found["nll"]["outside"]["nats"] == pytest.approx(expected, abs=0.01)
    for kind in ("ode", "sde"):
        # 1,000 samples: 5 standard errors.
        assert abs(found[kind]["share"] - 0.0783) < 5 * math.sqrt(0.0783 / 1000)
        assert found[kind]["outliers"] < 0.008
        assert found[kind]["distance"] < 0.35


def test_outliers_are_one_in_a_thousand_of_p_g() -> None:
    x = OVERLAPPING.retain.sample(400_000, generator(5))
    share = float((-OVERLAPPING.retain.log_density(x) > outlier_limit(OVERLAPPING)).double().mean())
    assert share == pytest.approx(0.001, rel=0.2)
    scattered = torch.tensor([[9.0, 4.0], [0.0, 0.0], [2.0, 2.0], [math.nan, 0.0]], dtype=torch.float64)
    found = samples_summary(scattered[:3], OVERLAPPING, scattered[:3], outlier_limit(OVERLAPPING))
    assert found == {"share": pytest.approx(1 / 3), "outliers": pytest.approx(1 / 3), "distance": 0}
    broken = samples_summary(scattered[1:], OVERLAPPING, scattered[1:], outlier_limit(OVERLAPPING))
    assert broken["outliers"] == pytest.approx(1 / 3) and broken["distance"] is None


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection() -> None:
    x = torch.randn(500, 2, generator=generator(), dtype=torch.float64)
    shift = torch.tensor([0.6, 0.8], dtype=torch.float64)
    # The mean of |cos| over directions is 2 / pi.
    assert float(sliced_wasserstein(x, x + shift)) == pytest.approx(2 / math.pi, rel=1e-3)
    assert float(sliced_wasserstein(x, x[torch.randperm(500, generator=generator())])) < 1e-12


# The bound.


def test_terms_of_the_bound() -> None:
    b, q_log_q = bound_terms(OVERLAPPING)
    assert b == pytest.approx(math.exp(-4), rel=1e-12)
    # b is the least ratio of the densities; q = (p_g - b p_f) / (1 - b) has that entropy by simulation too.
    grid = torch.cartesian_prod(*2 * [torch.linspace(-6, 6, 241, dtype=torch.float64)])
    ratio = (OVERLAPPING.retain.log_density(grid) - OVERLAPPING.forget.log_density(grid)).exp()
    assert float(ratio.min()) == pytest.approx(b, rel=1e-9)
    x = OVERLAPPING.retain.sample(400_000, generator(1))
    p_g = OVERLAPPING.retain.log_density(x)
    share = 1 - b * (OVERLAPPING.forget.log_density(x) - p_g).exp()  # (1 - b) q / p_g
    log_q = p_g + (share / (1 - b)).log()
    values = share / (1 - b) * log_q
    error = float(values.std()) / math.sqrt(len(x))
    assert abs(float(values.mean()) - q_log_q) < 5 * error


@pytest.mark.parametrize("name", ["p_g", "p_data", "broad", "one mode", "hole"])
def test_every_density_obeys_the_bound(name: str) -> None:
    density = {
        "p_g": OVERLAPPING.retain,
        "p_data": OVERLAPPING.data,
        "broad": GaussianMixture([1.0], [[0.0, 0.0]], 3.0),
        "one mode": GaussianMixture([0.999, 0.001], [[2.0, 2.0], [-2.0, -2.0]]),
        "hole": GaussianMixture([0.5, 0.5], [[-3.0, -3.0], [3.0, 3.0]], 0.8),
    }[name]
    retain, forget = OVERLAPPING.retain.sample(400_000, generator(2)), OVERLAPPING.forget.sample(400_000, generator(3))
    d_g, d_f = (-float(density.log_density(x).mean()) for x in (retain, forget))
    assert d_f < bound(OVERLAPPING, d_g)


def test_q_itself_makes_the_bound_an_equation() -> None:
    b, _ = bound_terms(OVERLAPPING)
    axis = torch.linspace(-10, 10, 1201, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    p_g, p_f = OVERLAPPING.retain.log_density(x).exp(), OVERLAPPING.forget.log_density(x).exp()
    q = (p_g - b * p_f).clamp(min=0) / (1 - b)
    minus_log_q, cell = -q.clamp(min=1e-300).log(), float(axis[1] - axis[0]) ** 2
    d_g, d_f = (float((p * minus_log_q).sum()) * cell for p in (p_g, p_f))
    # q vanishes on a line, where -log q is integrable: the grid is coarse there.
    assert d_f == pytest.approx(bound(OVERLAPPING, d_g), abs=0.05)


def test_the_papers_column_cannot_be_a_densitys() -> None:
    retain, forget = PAPERS_MSGM
    most = in_papers_unit(bound(OVERLAPPING, (retain - 8) * UNIT))
    assert 17 < most < 17.5 < forget


# Runs.


def test_the_plan_has_what_the_experiment_promises() -> None:
    runs = plan(BUDGETS["small"])
    assert len({run.key for run in runs}) == len(runs)
    main_runs = [run for run in runs if "main" in run.studies]
    for toy in TOYS:
        for objective in OBJECTIVES:
            for mode in ("retrain", "fine-tune"):
                seeds = [
                    r.seed for r in main_runs if (r.setting.toy, r.setting.objective, r.mode) == (toy, objective, mode)
                ]
                assert seeds == ([] if (objective, mode) == ("standard", "fine-tune") else [0, 1, 2, 3, 4])
    schedules = {(r.setting.every, r.setting.separate) for r in runs if "schedule" in r.studies}
    assert schedules == {(1, False), (4, False), (4, True)}
    assert {r.setting.alpha for r in runs if "alpha" in r.studies} == {0.5, 0.7, 0.9, 0.99}
    keys = [run.key for run in runs]
    assert all(keys.index(run.parent.key) < keys.index(run.key) for run in runs if run.mode == "fine-tune")


@pytest.mark.parametrize("objective", ["obtuse-literal", "obtuse"])
def test_the_guard_stops_literal_obtuse_on_separated_modes_only(objective: str, tmp_path: Path) -> None:
    budget = replace(BUDGETS["small"], steps=450, batch=128)
    run = Run(setting=Setting(toy="separated", objective=objective), mode="retrain", seed=1)
    model = trained(run, budget, 0, tmp_path)
    stopped = model.record["status"]["kind"] == "diverged"
    assert stopped == (objective == "obtuse-literal")
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_trained_network_comes_to_its_exact_optimum() -> None:
    """Orthogonal's optimum is far from p_g's score on the forgotten points, and training comes to it."""
    setting = Setting(toy="overlapping", objective="orthogonal", alpha=0.5)
    budget = replace(BUDGETS["small"], steps=500)
    run = Run(setting=setting, mode="retrain", seed=2)
    model = trained(run, budget, 0, Path("unused"))
    exact, unseen = setting.optimum(), OVERLAPPING.retain.as_model(PROCESS)
    assert exact is not None
    x0, eps = (torch.randn(2000, 2, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    for sigma in (0.3, 1.0):
        t = PROCESS.time(torch.tensor(sigma, dtype=torch.float64).log())
        x = x0 + sigma * eps
        with torch.no_grad():
            noise = model.noise(x.float(), t).double()
            gap = float((noise - exact.noise(x, t)).square().mean())
            apart = float((unseen.noise(x, t) - exact.noise(x, t)).square().mean())
        assert gap < 0.1 * apart, sigma


class Diverging(torch.nn.Module):
    """A network that ran away: the exact noise prediction, many times too large and of the wrong sign."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.exact, self.factor = OVERLAPPING.retain.as_model(PROCESS).network, factor

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return self.factor * self.exact(x, label)


@pytest.mark.parametrize(("factor", "grids"), [(-8.0, (12,)), (-64.0, None), (40.0, None)])
def test_the_likelihood_of_a_diverged_network_is_flagged_not_reported(
    factor: float, grids: tuple[int, ...] | None
) -> None:
    model = ScoreModel(Diverging(factor), PROCESS, shape=(2,), precondition=Noise())
    found = measure(model, OVERLAPPING, Budget(test=40, samples=40), seed=0, tests=[0], grids=grids)
    assert not found["nll"]["retain"]["reliable"] and not found["nll"]["forget"]["reliable"]
    run = Run(setting=Setting(toy="overlapping", objective="obtuse-literal"), mode="retrain", seed=0)
    given = {**found, "status": diverged(9).to_dict(), "seconds": 1.0}
    (row,) = rows_of([(run, given)], {})
    for name in ("retain", "forget"):
        nll = row["nll"][name]
        assert [nll[key] for key in ("nats", "low", "high", "median", "maximum")] == [None] * 5
        assert nll["failed_doubling"] == 1
    assert row["diverged"] == [9] and row["bound"] is None


def test_a_likelihood_that_fails_its_check_is_measured_on_a_finer_grid() -> None:
    model = ScoreModel(Diverging(-8.0), PROCESS, shape=(2,), precondition=Noise())
    budget = Budget(test=40, samples=40)
    found, finer = (measure(model, OVERLAPPING, budget, seed=0, tests=[0], grids=g)["nll"] for g in (None, (48,)))
    assert found == finer and found["retain"]["reliable"]


def test_one_seed_that_fails_withholds_the_mean() -> None:
    # Student's quantile for two degrees of freedom is 4.303.
    half = 4.3027 * math.sqrt(7 / 3)
    assert over_seeds([1.0, 2.0, 6.0]) == pytest.approx({"value": 3.0, "low": 3 - half, "high": 3 + half}, rel=1e-4)
    assert over_seeds([5.0]) == {"value": 5.0, "low": None, "high": None}
    assert over_seeds([1.0, None]) == {"value": None, "low": None, "high": None}


def test_gaps_are_of_the_same_points() -> None:
    """Two seeds whose points differ by far more than the model from its optimum: the gap is that of the model."""
    setting = Setting(toy="overlapping", objective="orthogonal")
    samples = {key: {"share": 0.1, "outliers": 0.0, "distance": 0.1} for key in ("ode", "sde")}

    def found(values: list[float]) -> dict[str, object]:
        each = {"stderr": 0.1, "median": 4.0, "maximum": 9.0, "doubling": 0.0, "reliable": True}
        nll = {name: {"nats": sum(values) / len(values), "by_seed": values, **each} for name in ("retain", "forget")}
        return {"nll": {**nll, "outside": nll["retain"]}, **samples}

    runs = [
        (
            Run(setting=setting, mode="retrain", seed=seed),
            {**found([nats]), "status": FINISHED.to_dict(), "seconds": 1.0},
        )
        for seed, nats in enumerate([4.11, 5.13])
    ]
    (row,) = rows_of(runs, {setting.key: found([4.0, 5.0, 9.0])})
    half = 12.7062 * 0.01
    assert row["gap"]["retain"] == pytest.approx({"value": 0.12, "low": 0.12 - half, "high": 0.12 + half}, rel=1e-3)
    assert row["optimum"]["nll"]["retain"]["nats"] == pytest.approx(4.5)
    assert row["inside"]["nll.retain"] and row["inside"]["ode.share"]


def test_runs_of_one_seed_are_repeatable(tmp_path: Path) -> None:
    run = Run(setting=Setting(toy="overlapping", objective="erasediff"), mode="fine-tune", seed=0)
    with pytest.raises(UserError, match="Standard models are trained first"):
        execute(run, TINY, 0, tmp_path)
    execute(run.parent, TINY, 0, tmp_path)
    first, second = (execute(run, TINY, 0, tmp_path) for _ in range(2))
    timed = ("seconds", "cpu_seconds")
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}
    other = execute(run, TINY, 1, tmp_path)
    assert other["nll"] != first["nll"]


# All of it.


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The whole experiment with the smallest budget: its numbers mean nothing, its files are complete."""
    folder: Path = tmp_path_factory.mktemp("toy") / "toy"
    patch = pytest.MonkeyPatch()
    patch.setattr(main, "plan", lambda budget: [r for r in plan(budget) if "main" in r.studies])
    try:
        reproduce(folder, budget=TINY, seed=0, workers=1, command="msgm reproduce toy")
    finally:
        patch.undo()
    return folder


@pytest.mark.slow
def test_what_the_experiment_leaves(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["command"] == "msgm reproduce toy" and results["seed"] == 0 and results["budget"] == asdict(TINY)
    wanted = {(toy, objective) for toy in TOYS for objective in OBJECTIVES}
    assert {(row["toy"], row["objective"]) for row in results["rows"]} == wanted
    row = results["rows"][0]
    assert row["method"] == "standard" and row["toy"] == "overlapping" and row["mode"] == "retrain"
    assert {"nats", "low", "high"} <= set(row["nll"]["retain"]) and {"nats", "low", "high"} <= set(row["nll"]["forget"])
    assert results["claims"] and all(set(c) == {"claim", "holds", "evidence"} for c in results["claims"])
    figures = sorted(path.name for path in (finished / "figures").iterdir())
    assert len(figures) == 12 and {path.rsplit(".")[1] for path in figures} == {"png", "svg"}
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6 and not re.search(r"://(?!www\.w3\.org)", page)
    assert all(sheet.title in page.replace("&#39;", "'") for sheet in sheets(results))


def test_a_stopped_experiment_makes_only_what_is_missing(tmp_path: Path, monkeypatch) -> None:
    tuned = Run(setting=Setting(toy="overlapping", objective="unseen"), mode="fine-tune", seed=0)
    monkeypatch.setattr(main, "plan", lambda budget: [tuned.parent, tuned])
    monkeypatch.setattr(main, "claims", lambda results: [])
    monkeypatch.setattr(main, "draw", lambda out, budget: [])
    made: list[str] = []
    real = main._make
    monkeypatch.setattr(main, "_make", lambda *a: (made.append(a[-2]), real(*a))[1])
    options = {"budget": TINY, "seed": 0, "workers": 1, "command": "msgm reproduce toy"}
    first = reproduce(tmp_path / "toy", **options)
    assert len(made) == 4 and made[0] == tuned.parent.key
    (tmp_path / "toy" / "runs" / tuned.key / "row.json").unlink()
    made.clear()
    second = reproduce(tmp_path / "toy", resume=True, **options)
    assert made == [tuned.key]
    assert [row["nll"] for row in second["rows"]] == [row["nll"] for row in first["rows"]]
    with pytest.raises(UserError, match="begun with other settings"):
        reproduce(tmp_path / "toy", resume=True, **{**options, "seed": 1})
    with pytest.raises(UserError, match="already exists"):
        reproduce(tmp_path / "toy", **options)


@pytest.mark.parametrize("name", ["toy", "toy-fresh"])
def test_the_committed_results_are_whole(name: str) -> None:
    """Their claims are those that their own rows make; every objective is there, on both toys, both ways."""
    results = json.loads((ROOT / f"docs/results/{name}.json").read_text())
    assert results["claims"] == json.loads(json.dumps(claims(results)))
    found = {(row["toy"], row["objective"], row["mode"]) for row in results["rows"] if row["seeds"] >= 5}
    assert found == {
        (toy, objective, mode)
        for toy in TOYS
        for objective in OBJECTIVES
        for mode in ("retrain", "fine-tune")
        if (objective, mode) != ("standard", "fine-tune")
    }
    assert all({"nats", "low", "high"} <= set(row["nll"][k]) for row in results["rows"] for k in ("retain", "forget"))
    must = {c["claim"]: c["holds"] for c in results["claims"] if "enclose" not in c["claim"]}
    assert all(must.values()), must


def test_one_seed_makes_no_interval_and_no_claim_about_one() -> None:
    results = json.loads((ROOT / "docs/results/toy.json").read_text())
    for row in results["rows"]:
        row["inside"] = row["inside"] and dict.fromkeys(row["inside"])
        for name in ("retain", "forget"):
            row["nll"][name] |= {"low": None, "high": None}
            if row["gap"] is not None:
                row["gap"][name] |= {"low": None, "high": None}
    about = [c for c in claims(results) if "enclose" in c["claim"] or "generalises" in c["claim"]]
    assert len(about) > 1 and not any(c["holds"] for c in about)


def test_score_fields_and_samples_are_drawn() -> None:
    from msgm.experiments.toy.figures import samples, scores

    exact = OVERLAPPING.retain.as_model(PROCESS)
    models = dict.fromkeys(("Standard", "Unseen", "Obtuse, windowed"), (exact, exact))
    fields = scores(OVERLAPPING, models, PROCESS.time(torch.tensor(0.5, dtype=torch.float64).log()))
    assert len(fields.axes) == 6 and all(axes.get_aspect() == 1 for axes in fields.axes)
    # Trained and exact are the same model here, and so are their arrows.
    arrows = [axes.collections[-1] for axes in fields.axes]
    assert (arrows[0].U == arrows[3].U).all() and (arrows[0].V == arrows[3].V).all()
    assert len(samples(OVERLAPPING, models, TINY).axes) == 6


@pytest.mark.parametrize(
    ("argv", "named"),
    [(["chess"], "chess"), (["toy", "--threads", "0"], "--threads"), (["toy", "--seeds", "0"], "--seeds")],
)
def test_wrong_words_are_refused(argv: list[str], named: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["reproduce", *argv, "--out", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and named in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_training_settings_differ_by_seed_and_mode() -> None:
    run = Run(setting=Setting(toy="overlapping", objective="unseen"), mode="retrain", seed=3)
    assert settings_of(run, BUDGETS["small"], 2).seed == 2003
    assert settings_of(replace(run, mode="fine-tune"), BUDGETS["small"], 2).steps == BUDGETS["small"].tuning
    a, b = fresh(OVERLAPPING, 1), fresh(OVERLAPPING, 2)
    assert not torch.equal(a.network.leave.weight, b.network.leave.weight)  # type: ignore[union-attr]
