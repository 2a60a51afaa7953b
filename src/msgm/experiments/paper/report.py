"""Numbers of a grid by method: shares, likelihoods, distances, each with its interval; read from ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...metrics import quantities
from ...metrics.measured import Measured
from ..core.seeds import mean, mean_measured
from .tables import TABLES, Part

Results = Mapping[str, Any]

NAMES = {
    "standard": "Standard", "orthogonal": "Orthogonal", "obtuse": "Obtuse", "unseen": "Unseen",
    "erasediff": "EraseDiff", "orthogonal alpha=0.7": "Orthogonal, alpha 0.7",
    "orthogonal alpha=0.9": "Orthogonal, alpha 0.9",
    "orthogonal alpha=0.7 every=1": "Orthogonal, alpha 0.7, every step",
}  # fmt: skip


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
    """One for each process, origin and set of methods of the tables, but for sets that are within another."""
    found = {(p.process, p.origin, p.methods): p for name in results["tables"] for p in TABLES[name].parts}
    return [part for part in found.values() if not any(_within(part, other) for other in found.values())]


def _within(part: Part, other: Part) -> bool:
    same = (part.process, part.origin) == (other.process, other.origin)
    return same and set(part.methods) < set(other.methods)


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
    over = mean([one["bits_per_dim"] for one in found])
    # The images are the same for all seeds, so more seeds do not make this error smaller; what the seeds differ by can
    # be more than it.
    half = max(1.96 * max(one["stderr"] for one in found), 0.0 if len(found) == 1 else over.high - over.value)
    return Bounds(
        value=over.value, low=over.value - half, high=over.value + half, reliable=all(one["reliable"] for one in found),
        change=average([one["doubling"]["change"] for one in found]),
    )  # fmt: skip


def frechet(results: Results, part: Part, method: str, draw: str | None = None) -> float:
    """Fréchet distance in the judge's features to the retained test images, the mean over the seeds."""
    return average([row["draws"][draw or draws(results)[0]]["frechet"] for row in rows(results, part, method)])


def variation(results: Results, counts: Mapping[str, int]) -> float:
    """Total variation distance of the kept classes' shares from those of real retained images, by the same judge.

    NaN where no sample is kept, and where there is one class to keep, whose share is all.
    """
    forget = forgotten(results)
    real = results["judge"]["real"]["retained training images"]["counts"]
    kept = [name for name in counts if name not in forget and name != "junk"]
    ours, theirs = (sum(c[name] for name in kept) for c in (counts, real))
    if not ours or len(kept) == 1:
        return math.nan
    return 0.5 * float(sum(abs(counts[name] / ours - real[name] / theirs) for name in kept))


def edited(results: Results, part: Part, method: str, edit: str) -> Mapping[str, Any] | None:
    """What images edited by the first run of a method say, by set (`editing.edited`)."""
    found = [row["edits"][edit] for row in rows(results, part, method) if edit in row.get("edits", {})]
    return found[0] if found else None


def same_class(results: Results, part: Part, method: str, edit: str, which: str) -> Measured | None:
    """The share of edited images of a set that the judge gives their own label."""
    found = edited(results, part, method, edit)
    return quantities.RETAINED.share(found[which]["accuracy"], found[which]["n"]) if found is not None else None


def bent(results: Results, part: Part, method: str, draw: str | None = None) -> float:
    """The mean of `variation` over the seeds."""
    chosen = draw or draws(results)[0]
    return average([variation(results, row["draws"][chosen]["counts"]) for row in rows(results, part, method)])


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


def right_on(results: Results) -> dict[str, float]:
    """The judge's accuracy on test images of each class to forget."""
    names, confusion = results["judge"]["names"], results["judge"]["confusion"]
    places = [names.index(name) for name in forgotten(results)]
    return {names[place]: confusion[place][place] / sum(confusion[place]) for place in places}


def floor(results: Results) -> Measured:
    """What the judge calls a class to forget among test images to retain."""
    real = results["judge"]["real"]["retain"]
    return quantities.UR.share(sum(real["counts"][name] for name in forgotten(results)), real["n"])


def average(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
