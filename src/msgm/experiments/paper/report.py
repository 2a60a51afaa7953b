"""What a grid's results are beside the paper's tables: ours with intervals, the paper's under them.

All of it is made from ``results.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...metrics import quantities
from ...metrics.measured import Measured
from ...report.tables import Sheet
from ..core.seeds import mean_measured
from .tables import TABLES, Part, Printed, Table

Results = Mapping[str, Any]

NAMES = {
    "standard": "Standard", "orthogonal": "Orthogonal", "obtuse": "Obtuse", "unseen": "Unseen",
    "erasediff": "EraseDiff", "orthogonal alpha=0.7": "Orthogonal, alpha 0.7",
    "orthogonal alpha=0.9": "Orthogonal, alpha 0.9",
    "orthogonal alpha=0.7 every=1": "Orthogonal, alpha 0.7, every step",
}  # fmt: skip
MISSING = "not run yet"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A number and its 95 % interval. ``reliable``: a likelihood passed its step-doubling check, by ``change``."""

    value: float
    low: float
    high: float
    reliable: bool = True
    change: float = 0.0

    def below(self, other: Bounds) -> bool:
        """Whether the intervals do not meet, this one lower."""
        return self.high < other.low


def name_of(method: str) -> str:
    """As a table heads it."""
    return NAMES.get(method, f"{method} (ours)")


def where(part: Part) -> str:
    """``VP, fine-tuned``."""
    return f"{part.process.upper()}, {'trained from scratch' if part.origin == 'scratch' else 'fine-tuned'}"


def parts(results: Results) -> list[Part]:
    """One for each process, origin and set of methods of the tables."""
    found = {(p.process, p.origin, p.methods): p for name in results["tables"] for p in TABLES[name].parts}
    return list(found.values())


def rows(results: Results, part: Part, method: str) -> list[Mapping[str, Any]]:
    """The runs of a method, one for each seed; the Standard model is the same for both origins."""
    origin = "scratch" if method == "standard" else part.origin
    return [
        row
        for row in results["rows"]
        if (row["process"], row["origin"], row["method"]) == (part.process, origin, method)
    ]


def methods(results: Results, part: Part) -> list[str]:
    """The Standard model, the paper's other methods, then ours that were run."""
    return list(dict.fromkeys(["standard", *part.methods, *(m for m in part.ours if rows(results, part, m))]))


def run(results: Results, part: Part) -> list[str]:
    """Those of them that have rows."""
    return [name for name in methods(results, part) if rows(results, part, name)]


def share(results: Results, part: Part, method: str, names: Sequence[str], draw: str) -> Measured | None:
    """The share of a draw that the judge puts into these classes (or ``junk``), over the seeds."""
    found = [row["draws"][draw] for row in rows(results, part, method)]
    if not found:
        return None
    return mean_measured(
        [quantities.UR.share(sum(one["counts"].get(name, 0) for name in names), one["n"]) for one in found]
    )


def ratio(results: Results, part: Part, method: str, draw: str | None = None) -> Measured | None:
    """The unlearning ratio of all that is forgotten, by the first sampler or another."""
    return share(results, part, method, forgotten(results), draw or draws(results)[0])


def likelihood(results: Results, part: Part, method: str, which: str) -> Bounds | None:
    """Bits/dim, the mean over the seeds."""
    found = [row["nll"][which] for row in rows(results, part, method)]
    if not found or any(one["bits_per_dim"] is None for one in found):
        return None
    mean = _mean([one["bits_per_dim"] for one in found])
    # The images are the same for all seeds, so more seeds do not make this error smaller.
    half = 1.96 * max(one["stderr"] for one in found)
    return Bounds(
        value=mean, low=mean - half, high=mean + half, reliable=all(one["reliable"] for one in found),
        change=_mean([one["doubling"]["change"] for one in found]),
    )  # fmt: skip


def frechet(results: Results, part: Part, method: str, draw: str | None = None) -> float:
    """Fréchet distance in the judge's features to the retained test images, the mean over the seeds."""
    return _mean([row["draws"][draw or draws(results)[0]]["frechet"] for row in rows(results, part, method)])


def variation(results: Results, counts: Mapping[str, int]) -> float:
    """Total variation distance of the kept classes' shares from those of real retained images, by the same judge."""
    forget = forgotten(results)
    real = results["judge"]["real"]["retained training images"]["counts"]
    kept = [name for name in counts if name not in forget and name != "junk"]
    ours, theirs = (sum(c[name] for name in kept) for c in (counts, real))
    if not ours:
        return math.nan
    return 0.5 * float(sum(abs(counts[name] / ours - real[name] / theirs) for name in kept))


def bent(results: Results, part: Part, method: str, draw: str | None = None) -> float:
    """The mean of `variation` over the seeds."""
    chosen = draw or draws(results)[0]
    return _mean([variation(results, row["draws"][chosen]["counts"]) for row in rows(results, part, method)])


def classes(results: Results, group: str) -> list[str]:
    """The judge's classes of a group that a table counts."""
    return [results["request"]["names"][label] for label in results["request"]["groups"][group]]


def forgotten(results: Results) -> list[str]:
    """The classes to forget."""
    groups = results["request"]["groups"]
    return classes(results, max(groups, key=lambda group: len(groups[group])))


def draws(results: Results) -> list[str]:
    """The samplers, the first first."""
    return [f"{draw['sampler']}-{draw['steps']}" for draw in results["budget"]["audit"]["draws"]]


def sheets(results: Results) -> list[Sheet]:
    """Each of the paper's tables, then what it does not have: quality, the other sampler, the judge."""
    found = []
    for name in results["tables"]:
        table = TABLES[name]
        found += [sheet for part in table.parts for sheet in _compared(results, table, part)]
    made = [part for part in parts(results) if len(run(results, part)) > 1]
    return [*found, *(_quality(results, part) for part in made), _judge(results)]


def _compared(results: Results, table: Table, part: Part) -> list[Sheet]:
    title = f"{table.title.split(':')[0].split(' (')[0]}, {where(part)}"
    names = methods(results, part)
    heads = ["", *map(name_of, names)]
    found = []
    if part.rates:
        lines = []
        for group, printed in part.rates.items():
            wanted = classes(results, group)
            for draw in draws(results):
                cells = [_text(share(results, part, name, wanted, draw)) for name in names]
                lines.append([f"{group}, {draw}", *cells])
            lines.append([f"{group}, paper", *(_printed(part, printed, name) for name in names)])
        legend = "Unlearning ratio in %, with its 95 % interval, by two samplers."
        found.append(Sheet(title=f"{title}: unlearning ratio", headings=heads, rows=lines, legend=legend))
    if part.nll:
        lines = []
        for which, printed in part.nll.items():
            side = "D_g" if which == "retain" else "D_f"
            measured = [likelihood(results, part, name, which) for name in names]
            lines += [
                [side, *map(_bits, measured)],
                [f"{side}, change at twice the steps", *map(_change, measured)],
                [f"{side}, paper", *(_printed(part, printed, name) for name in names)],
            ]
        audit = results["budget"]["audit"]
        legend = (
            f"Bits/dim of {audit['nll_images']} test images of each set, ± 1.96 standard errors over the images; "
            f"{audit['nll_check']} of them again with twice the steps. † fails this check: not resolved. {table.note}"
        ).rstrip()
        found.append(Sheet(title=f"{title}: likelihood", headings=heads, rows=lines, legend=legend))
    return found


def _quality(results: Results, part: Part) -> Sheet:
    lines = []
    for name in run(results, part):
        for draw in draws(results):
            made = [row["made"] for row in rows(results, part, name)]
            seconds = [one["seconds"] for one in made]
            lines.append(
                [
                    name_of(name),
                    draw,
                    _text(ratio(results, part, name, draw)),
                    _text(share(results, part, name, ["junk"], draw)),
                    f"{frechet(results, part, name, draw):.1f}",
                    f"{100 * bent(results, part, name, draw):.1f}",
                    f"{made[0]['settings']['steps']:,}",
                    "–" if None in seconds else f"{_mean(seconds):.0f}",
                ]
            )
    return Sheet(
        title=f"Beside the paper's columns: {where(part)}",
        headings=["", "sampler", "UR %", "junk %", "Fréchet", "TV %", "steps", "seconds"],
        rows=lines,
        legend=(
            "Junk: neither a kept class nor one to forget. Fréchet: distance in the judge's features to the "
            "retained test images; it is no FID, and falls with the number of samples. TV: distance of the kept "
            "classes' shares from those of real retained images. Seconds: of training, with the time to compile."
        ),
    )


def _judge(results: Results) -> Sheet:
    judge, lines = results["judge"], []
    for name, title in (
        ("retain", "test images to retain"),
        ("forget", "test images to forget"),
        ("retained training images", "training images to retain"),
    ):
        real = judge["real"][name]
        hits = quantities.UR.share(sum(real["counts"][f] for f in forgotten(results)), real["n"])
        junk = quantities.JUNK.share(real["counts"]["junk"], real["n"])
        lines.append([title, str(real["n"]), hits.text(), junk.text(), f"{real['frechet']:.1f}"])
    return Sheet(
        title="The judge on real images",
        headings=["", "images", "called a class to forget, %", "called junk, %", "Fréchet"],
        rows=lines,
        legend=(
            f"It is right on {judge['accuracy']:.1%} of all test images, and on "
            f"{', '.join(f'{right:.1%} of {name}' for name, right in right_on(results).items())}. What it calls a "
            "class to forget among test images to retain is the floor under every unlearning ratio here; of training "
            "images it knows the labels."
        ),
    )


def right_on(results: Results) -> dict[str, float]:
    """The judge's accuracy on test images of each class to forget."""
    names, confusion = results["judge"]["names"], results["judge"]["confusion"]
    places = [names.index(name) for name in forgotten(results)]
    return {names[place]: confusion[place][place] / sum(confusion[place]) for place in places}


def floor(results: Results) -> Measured:
    """What the judge calls a class to forget among test images to retain."""
    real = results["judge"]["real"]["retain"]
    return quantities.UR.share(sum(real["counts"][name] for name in forgotten(results)), real["n"])


def _text(found: Measured | None) -> str:
    return MISSING if found is None else found.text()


def _bits(found: Bounds | None) -> str:
    if found is None:
        return MISSING
    return f"{found.value:.2f} ± {found.high - found.value:.2f}{'' if found.reliable else ' †'}"


def _change(found: Bounds | None) -> str:
    return "" if found is None else f"{found.change:+.3f}"


def _printed(part: Part, values: Printed, method: str) -> str:
    if method not in part.methods:
        return ""
    value = values[part.methods.index(method)]
    return "/" if value is None else f"{value:g}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
