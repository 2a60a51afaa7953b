"""Which results no other beats: Pareto dominance over what a moderated model is judged by, and its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics import quantities
from ..metrics.measured import Measured
from .results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = Sequence[float | None]
"""Costs, the lower the better; None for what was not measured, which is worse than any number."""

# Okabe and Ito's colours, which the colour-blind can tell apart; with a shape each, 56 combinations.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = "osD^vPX*"


def criteria(rows: Sequence[Result]) -> list[str]:
    """The names of all that was measured of any of the rows and can be better or worse, in order."""
    found = [name for row in rows for name, each in row.measured.items() if each.better is not None]
    return list(dict.fromkeys(found))


def point(row: Result, names: Sequence[str]) -> Point:
    """The costs of a row, in the order of ``names``."""
    return [row.measured[name].cost if name in row.measured else None for name in names]


def dominates(a: Point, b: Point) -> bool:
    """Whether a is nowhere worse than b and somewhere better. Errors of the numbers play no part."""
    x, y = ([math.inf if v is None else v for v in p] for p in (a, b))
    return all(i <= j for i, j in zip(x, y, strict=True)) and x != y


def front(points: Sequence[Point]) -> list[bool]:
    """Which of the points no other dominates; equal points do not dominate each other."""
    return [not any(dominates(other, mine) for other in points) for mine in points]


def undominated(rows: Sequence[Result]) -> list[bool]:
    """Which rows no other dominates in all `criteria`; one that is not ``whole`` never is, and dominates none."""
    sound = [row for row in rows if row.whole]
    names = criteria(sound)
    best = {id(row) for row, good in zip(sound, front([point(row, names) for row in sound]), strict=True) if good}
    return [id(row) in best for row in rows]


def pareto_figure(rows: Sequence[Result], reference: Result | None = None) -> Figure:
    """UR + junk (%) against the NLL of retained images, the front of these two drawn, every row labelled.

    Rows that are not whole are no part of that front. Filled marks are the rows that no other dominates in all
    `criteria`; bars are standard errors of the NLL and the interval of UR. ``reference`` (the model that all started
    from) is a line at its NLL, around which the axis is stretched: what matters are hundredths, what fails is far off.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    across, up = quantities.NLL["retain"], (quantities.UR, quantities.JUNK)
    shown = [
        (row, good, row.measured[across.name], row.measured[quantities.UR.name], sum(row.value(q) or 0 for q in up))
        for row, good in zip(rows, undominated(rows), strict=True)
        if None not in (row.value(across), *map(row.value, up))
    ]
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        axes = figure.subplots()
        methods = list(dict.fromkeys(row.method for row in rows))
        labels, sound = [], []
        for row, good, likelihood, ur, share in shown:
            nll, error, y = likelihood.value or 0.0, likelihood.stderr, 100 * share
            place = methods.index(row.method)
            colour, shape = COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)]
            labels.append((row.model, nll, y, colour))
            sound += [(nll, y)] if row.whole else []
            axes.errorbar(
                nll, y, xerr=error or 0,
                yerr=[[100 * below] for below in _reach(ur)], fmt=shape, color=colour, markersize=8,
                markerfacecolor=colour if good else "white", markeredgewidth=1.5, elinewidth=0.8, alpha=0.9,
            )  # fmt: skip
        steps = sorted(c for c, good in zip(sound, front(sound), strict=True) if good)
        if steps:
            axes.step(*zip(*steps, strict=True), where="post", color="#7f7f7f", linewidth=1.2, zorder=0)
        centre = None if reference is None else reference.value(across)
        if reference is not None and centre is not None:
            axes.axvline(centre, color="#7f7f7f", linestyle=":", linewidth=1)
            _stretch(axes, centre)
            axes.text(
                centre, 0.99, f" {reference.model}", transform=axes.get_xaxis_transform(), va="top",
                color="#5b6470", fontsize=8,
            )  # fmt: skip
        # Linear up to 1 %, so that nothing at all has a place.
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(
            xlabel="NLL of retained test images, bits/dim (lower is better)", ylabel="UR + junk, % (lower is better)"
        )
        axes.spines[["top", "right"]].set_visible(False)
        _label(figure, axes, labels)
    return figure


def _reach(measured: Measured) -> tuple[float, float]:
    """How far the interval reaches below and above the value."""
    value, ends = measured.value or 0.0, measured.interval
    return (value - ends[0], ends[1] - value) if ends else (0.0, 0.0)


def _stretch(axes: Any, centre: float, width: float = 0.05) -> None:
    """An x axis that is linear within ``width`` of the centre and logarithmic beyond."""
    axes.set_xscale(
        "function",
        functions=(lambda x: np.arcsinh((x - centre) / width), lambda u: centre + width * np.sinh(u)),
    )
    axes.autoscale_view()
    low, high = axes.get_xlim()
    apart = [side * step for step in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) for side in (-1, 1)]
    ticks = [centre + shift for shift in sorted([0.0, *apart]) if low <= centre + shift <= high]
    axes.set_xticks(ticks, [f"{tick:.2f}" for tick in ticks])


def _label(figure: Figure, axes: Any, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Names beside their points, each at the first of several places that no other name or point has taken."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    points = [tuple(axes.transData.transform((x, y))) for _, x, y, _ in labels]
    frame = axes.get_window_extent(renderer)
    taken: list[Any] = []
    for name, x, y, colour in labels:
        spots = [(dx, dy, side) for dy in (0, 9, -9, 18, -18, 27, -27, 36) for dx, side in ((9, "left"), (-9, "right"))]
        for dx, dy, side in spots:
            text = axes.annotate(
                name, (x, y), xytext=(dx, dy), textcoords="offset points", ha=side, va="center", fontsize=8,
                color=colour, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5} if dy else None,
            )  # fmt: skip
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # of the name without its line
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if (inside and not any(box.overlaps(b) or b.overlaps(box) for b in taken)
                    and not any(box.contains(*p) for p in points)):  # fmt: skip
                break
            if (dx, dy, side) != spots[-1]:
                text.remove()
        taken.append(box)
