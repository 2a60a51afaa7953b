"""Dominance against brute force, means over seeds against exact values, and the picture of the front."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.figure import Figure

from msgm.errors import UserError
from msgm.experiments.core.seeds import mean, mean_measured, over_seeds
from msgm.metrics import quantities
from msgm.metrics.measured import Measured
from msgm.metrics.rates import wilson
from msgm.report.pareto import criteria, dominates, front, pareto_figure, point, undominated
from msgm.report.results import Result
from msgm.status import diverged

RETAIN, FORGET = quantities.NLL.values()


def row(
    name: str = "a", *, hits: int = 1, n: int = 100, junk: int = 0, nll: float | None = 2.8, forget: float | None = 6.0,
    distance: float = 30.0, steps: int = 100, **options: Any,
) -> Result:  # fmt: skip
    found = [
        quantities.UR.share(hits, n), quantities.JUNK.share(junk, n), quantities.RETAINED.share(n - hits - junk, n),
        quantities.FRECHET.of(distance),
        *(
            quantity.missing(f"likelihood of {key} images fails its check") if value is None
            else quantity.of(value, stderr=error)
            for (key, quantity), value, error in zip(quantities.NLL.items(), (nll, forget), (0.04, 0.1), strict=True)
        ),
        quantities.STEPS.of(steps), quantities.IMAGES.of(9600), quantities.SECONDS.of(10.0),
    ]  # fmt: skip
    return Result(model=name, method=name.split()[0], measured={each.name: each for each in found}, **options)


LOST = Result(model="a", method="a", status=diverged(9), measured={"steps": quantities.STEPS.of(8)}, seed=2)


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
    middle = {"hits": 5, "junk": 10, "nll": 2.8, "forget": 6.0, "distance": 30.0, "steps": 100}
    better = {"hits": 4, "junk": 5, "nll": 2.7, "forget": 7.0, "distance": 20.0, "steps": 90}
    # What is neither better nor worse, as the seconds, is no criterion.
    names = criteria([row(**middle)])
    assert len(names) == len(better) and "seconds" not in names
    assert len(point(row(**middle), names)) == len(names)
    for key, value in better.items():
        assert undominated([row(**middle), row(**{**middle, key: value})]) == [False, True], key
    # So is anything else that has a better.
    new = Measured(name="attack", value=0.5, better="higher")
    weak, strong = (row().measured | {"attack": replace(new, value=v)} for v in (0.5, 0.6))
    assert undominated([replace(row(), measured=weak), replace(row(), measured=strong)]) == [False, True]
    # Equal rows keep each other; a row of which nothing was measured is on no front, even alone.
    assert undominated([row(**middle), row(**middle)]) == [True, True]
    assert undominated([LOST]) == [False] and undominated([Result(model="a", method="a")]) == [False]
    # What failed its check is on no front and beats nothing, nor does what diverged with some of its seeds.
    assert undominated([row(nll=99.0), row(nll=None, hits=0), row(hits=0, forget=None)]) == [True, False, False]
    assert undominated([row(nll=None)]) == [False]
    some = over_seeds([row(hits=0), LOST])
    assert some.value(quantities.UR) is not None and undominated([row(), some]) == [True, False]


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


def rate(hits: Sequence[int], n: int) -> Measured:
    return mean_measured([quantities.UR.share(k, n) for k in hits])


def test_a_rate_over_seeds_is_never_surer_than_its_samples() -> None:
    agreed = rate([0, 0, 0], 200)
    assert (agreed.value, agreed.low, agreed.n) == (0, 0, 600)
    assert agreed.high == wilson(0, 600).high > 0
    apart = rate([0, 10, 80], 200)
    assert apart.value == pytest.approx(0.15)
    assert (apart.low, apart.high) == (0.0, pytest.approx(0.15 + 4.302653 * math.sqrt(0.0475 / 3), rel=1e-6))
    assert rate([7], 50) == quantities.UR.share(7, 50)


def test_a_mean_lacks_what_a_run_lacks() -> None:
    lost = mean_measured([FORGET.of(3.0, stderr=0.1), FORGET.missing("it failed")])
    assert (lost.value, lost.stderr, lost.reason) == (None, None, "it failed")


def test_rows_of_several_seeds() -> None:
    rows = [row(hits=k, junk=j, nll=v, seed=k) for k, j, v in ((1, 0, 2.7), (2, 2, 2.8), (6, 1, 3.0))]
    one = over_seeds(rows)
    assert one.get(quantities.UR) == rate([1, 2, 6], 100)
    assert one.value(quantities.JUNK) == pytest.approx(0.01)
    assert one.value(quantities.RETAINED) == pytest.approx(0.96)
    nll = one.measured[RETAIN.name]
    assert (nll.value, nll.stderr) == (pytest.approx(8.5 / 3), pytest.approx(mean([2.7, 2.8, 3.0]).stderr))
    assert one.value(quantities.SECONDS) == 10 and one.said == "finished" and one.value(quantities.STEPS) == 100
    written = one.to_dict()
    assert written["intervals"]["nll_retain"] == [mean([2.7, 2.8, 3.0]).low, mean([2.7, 2.8, 3.0]).high]
    assert [r["seed"] for r in written["runs"]] == [1, 2, 6]
    assert Result.from_dict(written).to_dict() == written
    # Samples of each class are added up, where all runs have counted them.
    first, second = ({"a": 3, "junk": 1}, {"a": 2, "junk": 0})
    counted = [replace(r, judged=c) for r, c in zip(rows, (first, second), strict=False)]
    assert over_seeds(counted).judged == {"a": 5, "junk": 1}
    assert over_seeds([*counted, rows[2]]).judged == one.judged == {}
    # What a single run measured keeps its own error.
    assert over_seeds(rows[:1]).measured == rows[0].measured


def test_what_went_wrong_is_counted() -> None:
    assert over_seeds([row(), LOST, LOST]).said == "diverged at step 9 (2 of 3 seeds)"
    mixed = over_seeds([row(), row(nll=None), LOST])
    assert mixed.said == (
        "likelihood of retain images fails its check (1 of 3 seeds); diverged at step 9 (1 of 3 seeds)"
    )
    assert mixed.value(RETAIN) is None and mixed.value(FORGET) == 6 and mixed.value(quantities.UR) is not None
    nothing = over_seeds([LOST, LOST])
    assert not nothing.measured and nothing.said == "diverged at step 9 (2 of 2 seeds)"


def overlaps(figure: Figure) -> int:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts if text.get_fontsize() == 8]
    return sum(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_picture_names_every_row_and_draws_the_front() -> None:
    rows = [row("redirect alpha=0.4", hits=1, nll=2.9), row("unseen", hits=8, nll=2.75),
            row("redirect alpha=0.5", hits=2, nll=2.9), row("obtuse", hits=2, nll=3.2, junk=5),
            row("half", hits=0, nll=2.7, status=diverged(9)),
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
    assert not pareto_figure([Result(model="a", method="a")]).axes[0].texts
