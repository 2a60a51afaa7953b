"""Dominance against brute force, means over seeds against exact values, and the picture of the front."""

import itertools
import math
import random
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from msgm.errors import UserError
from msgm.metrics.shares import wilson
from msgm.report.page import Row
from msgm.report.pareto import CRITERIA, dominates, front, pareto_figure, point, undominated
from msgm.report.repeats import mean, over_seeds, rate, status


def row(name: str = "a", *, hits: int = 1, n: int = 100, junk: float = 0.0, nll: float | None = 2.8, **extra) -> Row:
    forget = extra.pop("forget", 6.0)
    return Row(
        model=name,
        method=name.split()[0],
        unlearning_ratio=wilson(hits, n),
        junk=junk,
        retained=1 - hits / n - junk,
        nll_retain=None if nll is None else (nll, 0.04),
        nll_forget=None if forget is None else (forget, 0.1),
        seconds=10.0,
        extra={"frechet_distance": 30.0, "steps": 100, "images": 9600, "status": "finished", "nll_doubling": {"x": 0}}
        | extra,
    )


def beaten(mine: tuple, other: tuple) -> bool:
    """By the words of the definition, one criterion at a time."""
    better = False
    for i, j in zip(other, mine, strict=True):
        if i is None and j is not None:
            return False
        if j is None and i is not None:
            better = True
        elif i is not None:
            if i > j:
                return False
            better |= i < j
    return better


@pytest.mark.parametrize("criteria", [1, 2, 6])
def test_the_front_is_that_of_brute_force(criteria: int) -> None:
    draw = random.Random(criteria)
    for size in (1, 2, 17, 60):
        values = [0, 1, 2, 3, 4, None]
        points = [tuple(draw.choice(values) for _ in range(criteria)) for _ in range(size)]
        expected = [not any(beaten(mine, other) for other in points) for mine in points]
        assert front(points) == expected
        assert any(expected)


def test_dominance_is_a_strict_order() -> None:
    points = list(itertools.product([0.0, 1.0, None], repeat=3))
    for a, b in itertools.product(points, repeat=2):
        assert not (dominates(a, b) and dominates(b, a))
        assert dominates(a, b) == beaten(b, a)
    assert not any(dominates(a, a) for a in points)


def test_each_criterion_counts_in_its_own_direction() -> None:
    middle = {"hits": 5, "junk": 0.1, "nll": 2.8, "forget": 6.0, "frechet_distance": 30.0, "steps": 100}
    better = {"hits": 4, "junk": 0.05, "nll": 2.7, "forget": 7.0, "frechet_distance": 20.0, "steps": 90}
    assert len(point(row(**middle))) == len(CRITERIA) == len(better)
    for key, value in better.items():
        assert undominated([row(**middle), row(**{**middle, key: value})]) == [False, True], key
    # Equal rows keep each other; a row of which nothing was measured is on no front, even alone.
    assert undominated([row(**middle), row(**middle)]) == [True, True]
    assert undominated([Row(model="a", method="a", extra={"status": "diverged at step 3"})]) == [False]
    # What failed its check is on no front and beats nothing, nor does what diverged with some of its seeds.
    assert undominated([row(nll=99.0), row(nll=None, hits=0), row(hits=0, forget=None)]) == [True, False, False]
    assert undominated([row(nll=None)]) == [False]
    some = over_seeds([row(hits=0), Row(model="a", method="a", extra={"status": "diverged at step 9", "seed": 2})])
    assert some.unlearning_ratio is not None and undominated([row(), some]) == [True, False]


def test_means_have_students_interval() -> None:
    # t at 97.5 % with 2 degrees of freedom is 4.302653, with 1 it is 12.706205 (any table).
    three = mean([1.0, 2.0, 4.0])
    assert three.value == pytest.approx(7 / 3)
    assert three.stderr == pytest.approx(math.sqrt(7 / 3 / 3))
    assert three.high - three.value == pytest.approx(4.302653 * three.stderr, rel=1e-6)
    assert mean([0.0, 2.0]).low == pytest.approx(1 - 12.706205, rel=1e-6)
    assert mean([5.0]).value == 5 and math.isnan(mean([5.0]).low)
    with pytest.raises(UserError, match="at least one"):
        mean([])


def test_a_rate_over_seeds_is_never_surer_than_its_samples() -> None:
    agreed = rate([wilson(0, 200)] * 3)
    assert (agreed.value, agreed.low, agreed.n) == (0, 0, 600)
    assert agreed.high == wilson(0, 600).high > 0
    apart = rate([wilson(k, 200) for k in (0, 10, 80)])
    assert apart.value == pytest.approx(0.15)
    assert (apart.low, apart.high) == (0.0, pytest.approx(0.15 + 4.302653 * math.sqrt(0.0475 / 3), rel=1e-6))
    assert rate([wilson(7, 50)]) == wilson(7, 50)


def test_rows_of_several_seeds() -> None:
    rows = [row(hits=k, junk=j, nll=v, seed=k) for k, j, v in ((1, 0.0, 2.7), (2, 0.02, 2.8), (6, 0.01, 3.0))]
    one = over_seeds(rows)
    assert one.unlearning_ratio == rate([wilson(k, 100) for k in (1, 2, 6)])
    assert one.to_dict()["junk"] == pytest.approx(0.01)
    assert one.to_dict()["retained"] == pytest.approx(0.96)
    assert one.nll_retain == (pytest.approx(8.5 / 3), pytest.approx(mean([2.7, 2.8, 3.0]).stderr))
    assert one.seconds == 10 and one.extra["status"] == "finished" and one.extra["steps"] == 100
    assert one.extra["intervals"]["nll_retain"] == [mean([2.7, 2.8, 3.0]).low, mean([2.7, 2.8, 3.0]).high]
    assert [r["seed"] for r in one.extra["runs"]] == [1, 2, 6]
    # Samples of each class are added up, where all runs have counted them.
    first, second = ({"a": 3, "junk": 1}, {"a": 2, "junk": 0})
    counted = [replace(r, extra={**r.extra, "judged": c}) for r, c in zip(rows, (first, second), strict=False)]
    assert over_seeds(counted).extra["judged"] == {"a": 5, "junk": 1}
    assert over_seeds([*counted, rows[2]]).extra["judged"] == one.extra["judged"] == {}
    # The error of a single run's likelihood is that over its images.
    assert over_seeds(rows[:1]).nll_retain == (2.7, 0.04)
    assert over_seeds(rows[:1]).cells() == rows[0].cells()


def test_what_went_wrong_is_counted() -> None:
    diverged = Row(model="a", method="a", extra={"status": "diverged at step 9", "steps": 8, "seed": 2})
    assert status([row(), diverged, diverged]) == "diverged at step 9 (2 of 3 seeds)"
    mixed = over_seeds([row(), row(nll=None), diverged])
    assert mixed.extra["status"] == "likelihood of retain images fails its check (1 of 3 seeds); " + (
        "diverged at step 9 (1 of 3 seeds)"
    )
    assert mixed.nll_retain is None and mixed.nll_forget is not None and mixed.unlearning_ratio is not None
    nothing = over_seeds([diverged, diverged])
    assert nothing.unlearning_ratio is None and nothing.cells()[2:] == ("–",) * 6


def overlaps(figure: Figure) -> int:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts if text.get_fontsize() == 8]
    return sum(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_picture_names_every_row_and_draws_the_front() -> None:
    rows = [row("redirect alpha=0.4", hits=1, nll=2.9), row("unseen", hits=8, nll=2.75),
            row("redirect alpha=0.5", hits=2, nll=2.9), row("obtuse", hits=2, nll=3.2, junk=0.05),
            row("half", hits=0, nll=2.7, status="diverged at step 9 (1 of 3 seeds)"),
            row("lost", nll=None)]  # fmt: skip
    figure = pareto_figure(rows, row("parent", hits=20, nll=2.7))
    axes = figure.axes[0]
    assert {t.get_text().strip() for t in axes.texts} == {
        "redirect alpha=0.4", "unseen", "redirect alpha=0.5", "obtuse", "half", "parent"
    }  # fmt: skip
    assert overlaps(figure) == 0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2.65", "2.70", "2.75", "2.80", "2.90", "3.20"]
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert [tuple(map(tuple, line.get_xydata())) for line in steps] == [((2.75, 8.0), (2.9, 1.0))]
    # Filled: undominated in all criteria. One that diverged with some seeds is shown, and bounds nothing.
    filled = {
        tuple(line.get_xydata()[0].round(6)): line.get_markerfacecolor() != "white"
        for line in axes.lines
        if line.get_marker() not in ("None", "") and len(line.get_xydata()) == 1 and line.get_markersize() == 8
    }
    assert filled == {(2.9, 1.0): True, (2.75, 8.0): True, (2.9, 2.0): False, (3.2, 7.0): False, (2.7, 0.0): False}


def test_a_crowded_picture_and_an_empty_one() -> None:
    crowd = [row(f"method{k} alpha=0.{k}", hits=k % 4 + 1, nll=2.8 + 0.05 * k) for k in range(10)]
    assert overlaps(pareto_figure(crowd)) == 0
    assert not pareto_figure([Row(model="a", method="a")]).axes[0].texts
