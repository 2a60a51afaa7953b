"""What is claimed of the toy, each claim with the numbers that it rests on: generated, so that it cannot drift."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from .measure import bound
from .report import MODES, in_papers_unit, number
from .setup import TOYS

Measured = Mapping[str, Any]
PAPERS_MSGM = (10.64, 39.01)
"""Table 1's column MSGM: NLL of D_g and D_f in its unit."""
UNIT = 2 * math.log(2)


def claims(results: Measured) -> list[dict[str, Any]]:
    """``claim``, whether it ``holds`` and the ``evidence``, in the words of the documentation."""
    found = [_close(results, "standard", toy) for toy in TOYS] + [_close(results, "unseen", "overlapping")]
    found += [
        _generalises(results),
        *_guarded(results),
        _share(results),
        *_matches(results),
        _bounded(results),
        _table(),
    ]
    return [dict(zip(("claim", "holds", "evidence"), each, strict=True)) for each in found]


def _find(results: Measured, toy: str, objective: str, mode: str = "retrain") -> Measured:
    return next(
        row
        for row in results["rows"]
        if (row["toy"], row["objective"], row["mode"]) == (toy, objective, mode) and "main" in row["studies"]
    )


def _close(results: Measured, objective: str, toy: str) -> tuple[str, bool, str]:
    row = _find(results, toy, objective)
    gaps = {}
    for name in ("retain", "forget"):
        exact = results["toys"][toy]["nll"]["p_data" if objective == "standard" else "p_g"][name]
        trained = row["nll"][name]["nats"]
        gaps[name] = math.nan if trained is None else (trained - exact) / UNIT
    return (
        f"{row['model']} ({toy}), is within 0.1 of the exact NLL, in the paper's unit",
        all(abs(gap) <= 0.1 for gap in gaps.values()),
        f"D_g {gaps['retain']:+.3f}, D_f {gaps['forget']:+.3f}",
    )


def _generalises(results: Measured) -> tuple[str, bool, str]:
    trained = _find(results, "separated", "unseen")["nll"]["forget"]
    exact = results["toys"]["separated"]["nll"]["p_g"]["forget"]
    known = trained["high"] is not None
    return (
        "Unseen generalises beyond its data where the modes are separated: D_f is far likelier than under p_g",
        known and trained["high"] < exact - 5,
        f"trained {number(trained['nats'])} nats, exact p_g {number(exact)}",
    )


def _guarded(results: Measured) -> list[tuple[str, bool, str]]:
    found = []
    for objective, stopped in (("obtuse-literal", True), ("obtuse", False)):
        rows = [_find(results, "separated", objective, mode) for mode in ("retrain", "fine-tune")]
        steps = [step for row in rows for step in row["diverged"]]
        runs = sum(row["seeds"] for row in rows)
        which = "literal Obtuse on separated modes" if stopped else "the windowed one"
        where = f", at steps {min(steps)} to {max(steps)}" if steps else ""
        found.append(
            (
                f"The divergence guard {'stops' if stopped else 'does not stop'} {which}",
                len(steps) == (runs if stopped else 0),
                f"{len(steps)} of {runs} runs{where}",
            )
        )
    return found


def _share(results: Measured) -> tuple[str, bool, str]:
    own, row = results["toys"]["overlapping"]["own_share"], _find(results, "overlapping", "unseen")
    shares = {kind: row[kind]["share"]["value"] for kind in ("ode", "sde")}
    return (
        "On overlapping modes Unseen puts no more samples near the forgotten mode than p_g itself does, within a point",
        all(share <= own + 0.01 for share in shares.values()),
        f"p_g {own:.2%}, Unseen {shares['ode']:.2%} by ODE, {shares['sde']:.2%} by SDE",
    )


def _compared(results: Measured) -> Iterator[tuple[str, str, str, str, bool, bool]]:
    """Toy, mode, group, words, and whether the optimum lies in the interval and zero in that of the gap: where known.

    Apart from those with a bounded loss stand the literal forms, whose loss or whose weight is not, and Unseen between
    separated modes, where no data say what the optimum is.
    """
    for row in results["rows"]:
        if "main" not in row["studies"] or row["inside"] is None or row["diverged"]:
            continue
        for name, short in (("retain", "D_g"), ("forget", "D_f")):
            if (inside := row["inside"][f"nll.{name}"]) is None:
                continue
            empty = (row["toy"], row["objective"], name) == ("separated", "unseen", "forget")
            group = "apart" if empty or row["objective"].endswith("-literal") else "bounded"
            gap = row["gap"][name]
            words = f"{row['objective']} {short} {gap['value']:+.2f} nats"
            yield row["toy"], row["mode"], group, words, inside, gap["low"] <= 0 <= gap["high"]


def _matches(results: Measured) -> list[tuple[str, bool, str]]:
    """For each toy and way to train, then for all: whether each objective's intervals hold its exact optimum."""
    found, compared = [], list(_compared(results))
    for toy, (mode, how) in product(TOYS, MODES.items()):
        apart = "the literal forms" + (" and Unseen's D_f, where it has no data" if toy == "separated" else "")
        for group, which in (("bounded", "bounded objectives"), ("apart", apart)):
            here = [(words, inside) for *place, words, inside, _ in compared if place == [toy, mode, group]]
            outside = [words for words, inside in here if not inside]
            found.append(
                (
                    f"Intervals over seeds enclose the exact optimum's likelihoods ({toy}, {how}): {which}",
                    bool(here) and not outside,
                    f"{len(here) - len(outside)} of {len(here)} do"
                    + (f"; not: {', '.join(outside)} from the optimum" if outside else ""),
                )
            )
    bounded = [pair for _, _, group, _, *pair in compared if group == "bounded"]
    for what, each in zip(("intervals over seeds", "intervals of the gap"), zip(*bounded, strict=True), strict=False):
        found.append(
            (
                f"Of all bounded numbers the {what} enclose the optimum for 95 %, as many as of exact ones",
                sum(each) >= 0.95 * len(each),
                f"{sum(each)} of {len(each)} do",
            )
        )
    return found


def _bounded(results: Measured) -> tuple[str, bool, str]:
    slack = {}
    for row in results["rows"]:
        nll = row["nll"]
        if row["toy"] == "overlapping" and row["bound"] is not None and nll["forget"]["nats"] is not None:
            b = results["toys"]["overlapping"]["bound"]["b"]
            # Both sides are means over test points; the bound magnifies the error of D_g.
            error = 3 * math.hypot(nll["forget"]["stderr"], nll["retain"]["stderr"] / b)
            slack[row["model"], row["alpha"], row["every"], row["separate"]] = (
                row["bound"] - nll["forget"]["nats"],
                error,
            )
    least = min((gap for gap, _ in slack.values()), default=None)
    return (
        "Every likelihood that passes its check obeys the bound, within three standard errors of the test points",
        bool(slack) and all(gap > -error for gap, error in slack.values()),
        f"{len(slack)} rows, least slack {number(least)} nats",
    )


def _table() -> tuple[str, bool, str]:
    retain, forget = PAPERS_MSGM
    most = in_papers_unit(bound(TOYS["overlapping"], (retain - 8) * UNIT))
    return (
        "The column MSGM of the paper's Table 1 is impossible for a density",
        most < forget,
        f"D_g = {retain} allows D_f of at most {most:.2f}; printed is {forget}",
    )
