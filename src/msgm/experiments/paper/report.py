"""What a grid's results say of the paper's tables: ours with intervals, the paper's beside them, and who is right.

All of it is made from ``results.json``. Two numbers are told apart where their 95 % intervals do not meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from ...metrics.shares import Rate, wilson
from ...report.page import Sheet
from ...report.repeats import rate
from .tables import METHODS, TABLES, Part, Table

Results = Mapping[str, Any]
Verdict = Literal[
    "confirmed at this budget", "contradicted at this budget", "not decided at this budget", "not run yet"
]

NAMES = {
    "standard": "Standard", "orthogonal": "Orthogonal", "obtuse": "Obtuse", "unseen": "Unseen",
    "erasediff": "EraseDiff",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, what became of it here, and the numbers that decide it."""

    claim: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def below(self, other: Bounds) -> bool:
        """Whether the intervals do not meet, this one lower."""
        return self.high < other.low


def rows(results: Results, part: Part, method: str) -> list[Mapping[str, Any]]:
    """The runs of a method, one for each seed; the Standard model is the same for both origins."""
    origin = "scratch" if method == "standard" else part.origin
    return [
        row
        for row in results["rows"]
        if (row["process"], row["origin"], row["method"]) == (part.process, origin, method)
    ]


def methods(results: Results, part: Part) -> list[str]:
    """The paper's methods, then ours, that have rows."""
    ours = [row["method"] for row in results["rows"] if row["method"] not in METHODS]
    return [name for name in (*METHODS, *dict.fromkeys(ours)) if rows(results, part, name)]


def ratio(results: Results, part: Part, method: str, labels: Sequence[int], draw: str) -> Rate | None:
    """The unlearning ratio of some classes, over the seeds."""
    names = [results["request"]["names"][label] for label in labels]
    found = [row["draws"][draw] for row in rows(results, part, method)]
    if not found:
        return None
    return rate([wilson(sum(one["counts"].get(name, 0) for name in names), one["n"]) for one in found])


def likelihood(results: Results, part: Part, method: str, which: str) -> Bounds | None:
    """Bits/dim, the mean over the seeds; None where there is none, or where its check failed."""
    found = [row["nll"][which] for row in rows(results, part, method)]
    if not found or not all(one["reliable"] for one in found):
        return None
    mean = sum(one["bits_per_dim"] for one in found) / len(found)
    # The images are the same for all seeds, so more seeds do not make this error smaller.
    half = 1.96 * max(one["stderr"] for one in found)
    return Bounds(value=mean, low=mean - half, high=mean + half)


def bounds(found: Rate | None) -> Bounds | None:
    """A rate as `Bounds`."""
    return None if found is None else Bounds(value=found.value, low=found.low, high=found.high)


def variation(results: Results, counts: Mapping[str, int]) -> float:
    """Total variation distance of the kept classes' shares from those of real retained images, by the same judge."""
    forget = {results["request"]["names"][label] for label in forgotten(results)}
    real = results["judge"]["real"]["retained training images"]["counts"]
    kept = [name for name in counts if name not in forget and name != "junk"]
    ours, theirs = (sum(c[name] for name in kept) for c in (counts, real))
    if not ours:
        return math.nan
    return 0.5 * float(sum(abs(counts[name] / ours - real[name] / theirs) for name in kept))


def forgotten(results: Results) -> list[int]:
    """The labels to forget."""
    return max(results["request"]["groups"].values(), key=len)


def draws(results: Results) -> list[str]:
    """The samplers, the first first."""
    return [f"{draw['sampler']}-{draw['steps']}" for draw in results["budget"]["audit"]["draws"]]


def sheets(results: Results) -> list[Sheet]:
    """Each of the paper's tables, then what it does not have: quality, the other sampler, the judge."""
    found = []
    for name in results["tables"]:
        table = TABLES[name]
        found += [sheet for part in table.parts for sheet in _compared(results, table, part)]
    parts = {(part.process, part.origin): part for name in results["tables"] for part in TABLES[name].parts}
    return [*found, *(_quality(results, part) for part in parts.values()), _judge(results)]


def _title(table: Table, part: Part) -> str:
    how = "trained from scratch" if part.origin == "scratch" else "fine-tuned"
    return f"{table.title.split(',')[0]}, CIFAR-10, {part.process.upper()}, {how}"


def _compared(results: Results, table: Table, part: Part) -> list[Sheet]:
    names, draw = methods(results, part), draws(results)[0]
    heads = ["", *(NAMES.get(name, f"{name} (ours)") for name in names)]
    found = []
    if part.rates:
        lines = []
        for group, printed in part.rates.items():
            labels = results["request"]["groups"][group]
            cells = [_percent(ratio(results, part, name, labels, draw)) for name in names]
            lines += [[group, *cells], [f"{group}, paper", *(_printed(printed, name) for name in names)]]
        legend = f"Unlearning ratio in %, 95 % interval, {draw}. {agreement(results, part)}"
        found.append(Sheet(title=f"{_title(table, part)}: unlearning ratio", headings=heads, rows=lines, legend=legend))
    if part.nll:
        lines = []
        for which, printed in part.nll.items():
            cells = [_bits(likelihood(results, part, name, which)) for name in names]
            side = "D_g" if which == "retain" else "D_f"
            lines += [[side, *cells], [f"{side}, paper", *(_printed(printed, name) for name in names)]]
        count = results["budget"]["audit"]["nll_images"]
        legend = f"Bits/dim of {count} test images of each set, ± 1.96 standard errors over the images. {table.note}"
        found.append(Sheet(title=f"{_title(table, part)}: likelihood", headings=heads, rows=lines, legend=legend))
    return found


def _quality(results: Results, part: Part) -> Sheet:
    names, lines = methods(results, part), []
    for name in names:
        for draw in draws(results):
            runs = [row["draws"][draw] for row in rows(results, part, name)]
            seconds = [row["made"]["seconds"] for row in rows(results, part, name)]
            junk = rate([wilson(run["counts"]["junk"], run["n"]) for run in runs])
            lines.append(
                [
                    NAMES.get(name, f"{name} (ours)"),
                    draw,
                    _percent(ratio(results, part, name, forgotten(results), draw)),
                    _percent(junk),
                    f"{_mean([run['frechet'] for run in runs]):.1f}",
                    f"{100 * _mean([variation(results, run['counts']) for run in runs]):.1f}",
                    f"{rows(results, part, name)[0]['made']['settings']['steps']}",
                    "–" if None in seconds else f"{_mean(seconds):.0f}",
                ]
            )
    how = "trained from scratch" if part.origin == "scratch" else "fine-tuned"
    return Sheet(
        title=f"Beside the paper's columns: {part.process.upper()}, {how}",
        headings=["", "sampler", "UR %", "junk %", "Fréchet", "TV %", "steps", "seconds"],
        rows=lines,
        legend=(
            "Junk: neither a kept class nor one to forget. Fréchet: distance in the judge's features to the "
            "retained test images. TV: distance of the kept classes' shares from those of real retained images."
        ),
    )


def _judge(results: Results) -> Sheet:
    judge, forget = results["judge"], [results["request"]["names"][label] for label in forgotten(results)]
    lines = []
    for name, title in (
        ("retain", "test images to retain"),
        ("forget", "test images to forget"),
        ("retained training images", "training images to retain"),
    ):
        real = judge["real"][name]
        hits = wilson(sum(real["counts"][f] for f in forget), real["n"])
        junk = wilson(real["counts"]["junk"], real["n"])
        lines.append([title, str(real["n"]), _percent(hits), _percent(junk), f"{real['frechet']:.1f}"])
    return Sheet(
        title="The judge on real images",
        headings=["", "images", "called a class to forget, %", "called junk, %", "Fréchet"],
        rows=lines,
        legend=(
            f"It is right on {judge['accuracy']:.1%} of all test images. What it calls a class to forget among real "
            "images to retain is the floor under every unlearning ratio here."
        ),
    )


def agreement(results: Results, part: Part) -> str:
    """How many pairs of methods are in the paper's order, by the unlearning ratio of all that is forgotten."""
    printed = list(part.rates.values())[-1]
    labels, names = forgotten(results), [name for name in METHODS if rows(results, part, name)]
    ours = {name: bounds(ratio(results, part, name, labels, draws(results)[0])) for name in names}
    agree: list[tuple[str, str]] = []
    against: list[tuple[str, str]] = []
    pairs = list(combinations(names, 2))
    for a, b in pairs:
        first, second = ours[a], ours[b]
        assert first is not None and second is not None
        paper = printed[METHODS.index(a)] - printed[METHODS.index(b)]
        if first.below(second) or second.below(first):
            same = (first.value - second.value) * paper > 0
            (agree if same else against).append((a, b))
    text = f"Of {len(pairs)} pairs of methods {len(agree)} are in the paper's order, {len(against)} in the other"
    told = "; ".join(f"{NAMES[a]} and {NAMES[b]}" for a, b in against)
    undecided = len(pairs) - len(agree) - len(against)
    return f"{text}{f' ({told})' if told else ''}, and the intervals of {undecided} meet."


def claims(results: Results) -> list[Claim]:
    """What the paper says of these tables (abstract, sections 4.2 and 4.4), and what we found."""
    found = []
    parts = {(part.process, part.origin): part for name in results["tables"] for part in TABLES[name].parts}
    for part in parts.values():
        where = f"{part.process.upper()}, {'from scratch' if part.origin == 'scratch' else 'fine-tuned'}"
        rates = {
            name: bounds(ratio(results, part, name, forgotten(results), draws(results)[0])) for name in METHODS
        }  # fmt: skip
        for name in ("orthogonal", "obtuse"):
            for other in ("unseen", "erasediff"):
                found.append(
                    _claim(
                        f"{where}: {NAMES[name]} generates less of what was forgotten than {NAMES[other]}",
                        rates[name], rates[other], percent=True,
                    )
                )  # fmt: skip
        nll = {
            (name, which): likelihood(results, part, name, which) for name in METHODS for which in ("retain", "forget")
        }
        for name in ("orthogonal", "obtuse"):
            found.append(
                _claim(
                    f"{where}: {NAMES[name]} makes the forgotten less likely than Unseen does",
                    nll["unseen", "forget"], nll[name, "forget"],
                )
            )  # fmt: skip
        found.append(_unseen(where, nll["unseen", "forget"], nll["standard", "forget"]))
    return found


def _claim(text: str, low: Bounds | None, high: Bounds | None, percent: bool = False) -> Claim:
    if low is None or high is None:
        return Claim(claim=text, verdict="not run yet", evidence="")
    verdict: Verdict = (
        "confirmed at this budget" if low.below(high)
        else "contradicted at this budget" if high.below(low)
        else "not decided at this budget"
    )  # fmt: skip
    return Claim(claim=text, verdict=verdict, evidence=f"{_told(low, percent)} against {_told(high, percent)}")


def _unseen(where: str, unseen: Bounds | None, standard: Bounds | None) -> Claim:
    text = f"{where}: Unseen leaves the likelihood of the forgotten where it was (within 0.1 bits/dim of Standard's)"
    if unseen is None or standard is None:
        return Claim(claim=text, verdict="not run yet", evidence="")
    close = abs(unseen.value - standard.value) < 0.1
    return Claim(
        claim=text,
        verdict="confirmed at this budget" if close else "contradicted at this budget",
        evidence=f"{_told(unseen)} against {_told(standard)}",
    )


def _told(found: Bounds, percent: bool = False) -> str:
    if percent:
        return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _percent(found: Rate | None) -> str:
    return "–" if found is None else f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _bits(found: Bounds | None) -> str:
    return "–" if found is None else f"{found.value:.2f} ± {found.high - found.value:.2f}"


def _printed(values: Sequence[float], method: str) -> str:
    return f"{values[METHODS.index(method)]:g}" if method in METHODS else ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
