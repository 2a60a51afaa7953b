"""Figures 1 and 2 of the paper, with the exact answer beside each trained model; as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...formats import load
from ...model.score import ScoreModel
from ...report.pictures import write_figure
from ...sampling import Heun
from .runs import Run
from .setup import PROCESS, TOYS, Budget, Setting, Toy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind eyes.
RETAIN, FORGET, TRAINED, EXACT = "#0072B2", "#D55E00", "#0072B2", "#222222"
PANELS = {
    "Standard": "standard",
    "Unseen": "unseen",
    "Orthogonal": "orthogonal",
    "Obtuse, windowed": "obtuse",
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
}


def draw(out: Path, budget: Budget) -> list[tuple[str, bytes]]:
    """Write ``figures/*.png`` and ``*.svg`` from the models in ``out``; (caption, PNG) of each, for the report."""
    from matplotlib import rc_context

    made = []
    with rc_context(STYLE):
        for toy in TOYS.values():
            models = {title: _model(out, toy, objective) for title, objective in PANELS.items()}
            for name, label, t in (("small-noise", "t = 0.08", 0.08), ("sigma-half", "σ = 0.5", _time(0.5))):
                sigma = float(PROCESS.sigma(torch.tensor(t, dtype=torch.float64)))
                caption = (
                    f"Figure 1, {toy.name} modes, {label} (σ = {sigma:.2g}): the score of each model, trained (blue) "
                    "and as its objective's exact optimum has it (black). Grey: p_g; orange: one and two standard "
                    "deviations of the forgotten mode. Arrows are shortened where they are long."
                )
                figure = scores(toy, models, torch.tensor(t, dtype=torch.float64))
                made.append((caption, write_figure(figure, out / "figures" / f"figure1-{toy.name}-{name}")))
            caption = (
                f"Figure 2, {toy.name} modes: training data (top) and as many samples by ODE (bottom). Orange: "
                "forgotten data, and samples nearest the forgotten mode."
            )
            made.append((caption, write_figure(samples(toy, models, budget), out / "figures" / f"figure2-{toy.name}")))
    return made


def _time(sigma: float) -> float:
    return float(PROCESS.time(torch.tensor(sigma, dtype=torch.float64).log()))


def _model(out: Path, toy: Toy, objective: str) -> tuple[ScoreModel, ScoreModel]:
    """The trained model of the first seed and the exact optimum."""
    setting = Setting(toy=toy.name, objective=objective)
    exact = setting.optimum()
    assert exact is not None
    return load(out / "runs" / Run(setting=setting, mode="retrain", seed=0).key), exact


def scores(toy: Toy, models: dict[str, tuple[ScoreModel, ScoreModel]], t: Tensor) -> Figure:
    """Two rows of score fields at time t: trained, exact optimum."""
    from matplotlib.figure import Figure

    reach = toy.a + 2.5
    axis = torch.linspace(-reach, reach, 19, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    figure = Figure(figsize=(3.0 * len(models), 6.4), layout="constrained")
    panels = figure.subplots(2, len(models), sharex=True, sharey=True, squeeze=False)
    # Lengths saturate: the arrow of a score as long as the width of the picture's quarter is half of the longest.
    scale, cell = reach / 2, float(axis[1] - axis[0])
    for column, (title, pair) in enumerate(models.items()):
        for row, (model, colour, kind) in enumerate(
            zip(pair, (TRAINED, EXACT), ("trained", "exact optimum"), strict=True)
        ):
            axes = panels[row, column]
            _backdrop(axes, toy, reach)
            with torch.no_grad():
                score = model.score(grid.to(next(model.parameters()).dtype), t.expand(len(grid))).double()
            length = score.norm(dim=1, keepdim=True)
            arrow = score / (length + scale) * 1.15 * cell
            axes.quiver(
                *grid.T, *arrow.T, color=colour, angles="xy", scale_units="xy", scale=1, width=0.006, headwidth=4,
                headlength=4.5, headaxislength=4, pivot="mid",
            )  # fmt: skip
            axes.set_title(f"{title}: {kind}")
            axes.set(xlim=(-reach - cell / 2, reach + cell / 2), ylim=(-reach - cell / 2, reach + cell / 2))
            axes.set_aspect("equal")
    return figure


def _backdrop(axes: Any, toy: Toy, reach: float) -> None:
    """Where p_g and the forgotten mode are: one and two standard deviations."""
    axis = torch.linspace(-reach, reach, 121, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    density = toy.retain.log_density(points).exp().reshape(121, 121).T
    axes.contourf(
        axis,
        axis,
        density,
        levels=[v * float(density.max()) for v in (0.1, 0.4, 0.8, 1.01)],
        colors=["#e8e8e8", "#d2d2d2", "#bcbcbc"],
    )
    from matplotlib.patches import Circle

    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=FORGET, linewidth=1.2, linestyle="--", alpha=0.9))


def samples(toy: Toy, models: dict[str, tuple[ScoreModel, ScoreModel]], budget: Budget) -> Figure:
    """Six panels as in the paper: for Standard, Unseen and windowed Obtuse what was trained on, and samples."""
    from matplotlib.figure import Figure

    shown, reach = min(1500, budget.samples), toy.a + 4
    names = ("Standard", "Unseen", "Obtuse, windowed")
    data = toy.points(0)
    some = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:shown]
    x, middle = data.rows(some), data.columns["label"][some] == 1
    figure = Figure(figsize=(3.2 * len(names), 6.6), layout="constrained")
    panels = figure.subplots(2, len(names), sharex=True, sharey=True)
    for column, name in enumerate(names):
        drawn = Heun(models[name][0]).sample(shown, seed=0, batch=shown)
        zone = toy.nearest_forgotten(drawn)
        uses = ~middle if name == "Unseen" else torch.ones_like(middle)
        share = float(zone.double().mean())
        for axes, points, orange, title in (
            (panels[0, column], x[uses], middle[uses], f"({'abc'[column]}) {name}: data"),
            (panels[1, column], drawn, zone, f"samples, {share:.1%} nearest the forgotten mode"),
        ):
            for chosen, colour in ((~orange, RETAIN), (orange, FORGET)):
                axes.scatter(*points[chosen].T, s=5, color=colour, alpha=0.55, linewidths=0, rasterized=True)
            axes.set_title(title)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
            axes.set_aspect("equal")
    return figure
