"""What became of the paper's claims about its tables, and what else a grid's results say. Made from ``results.json``.

Two numbers are told apart where their 95 % intervals do not meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from ...metrics.measured import Measured
from .printed import Edit, Printed
from .report import (
    NAMES,
    Bounds,
    Results,
    draws,
    floor,
    likelihood,
    parts,
    ratio,
    rows,
    run,
    same_class,
    share,
    where,
)  # fmt: skip
from .tables import METHODS, TABLES, Part, recipe

Verdict = Literal[
    "confirmed at this budget", "not confirmed at this budget", "contradicted at this budget", "not run yet"
]
NEAR = 0.1
"""Bits/dim within which a likelihood counts as where it was."""
SURELY = f"by {NEAR:g} bits/dim or more"
ALTERNATING, SIMULTANEOUS = "orthogonal alpha=0.7", "orthogonal alpha=0.7 every=1"
HOW: Mapping[Edit, str] = {"inpaint": "half filled in", "reconstruct": "rebuilt"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, what became of it here, and the numbers that decide it."""

    claim: str
    verdict: Verdict
    evidence: str


def lower(text: str, one: Bounds | None, other: Bounds | None) -> Claim:
    """The claim that the one share is lower than the other."""
    return _decided(text, one, other)


def higher(text: str, one: Bounds | None, other: Bounds | None, margin: float = 0.0) -> Claim:
    """The claim that the one likelihood, in bits/dim, is higher than the other by ``margin``."""
    if other is None:
        return _decided(text, None, None)
    raised = replace(other, low=other.low + margin, high=other.high + margin)
    found = _decided(text, raised, one)
    return found if one is None else replace(found, evidence=f"{told(one)} against {told(other)}")


def _decided(text: str, low: Bounds | None, high: Bounds | None) -> Claim:
    if low is None or high is None:
        return Claim(claim=text, verdict="not run yet", evidence="")
    verdict: Verdict = "not confirmed at this budget"
    if low.reliable and high.reliable:
        if low.below(high):
            verdict = "confirmed at this budget"
        elif high.below(low):
            verdict = "contradicted at this budget"
    return Claim(claim=text, verdict=verdict, evidence=f"{told(low, True)} against {told(high, True)}")


def near(text: str, one: Bounds | None, other: Bounds | None) -> Claim:
    """The claim that two likelihoods differ by less than `NEAR`."""
    if one is None or other is None:
        return Claim(claim=text, verdict="not run yet", evidence="")
    close = abs(one.value - other.value) < NEAR
    verdict: Verdict = "confirmed at this budget" if close else "contradicted at this budget"
    if not (one.reliable and other.reliable):
        verdict = "not confirmed at this budget"
    return Claim(claim=text, verdict=verdict, evidence=f"{told(one)} against {told(other)}")


def told(found: Bounds, percent: bool = False) -> str:
    """A number with its interval."""
    if percent:
        return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    failed = "" if found.reliable else ", fails its check"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}{failed}]"


def bounds(found: Measured | None) -> Bounds | None:
    """A share as `Bounds`."""
    if found is None or found.value is None or found.low is None or found.high is None:
        return None
    return Bounds(value=found.value, low=found.low, high=found.high)


def claims(results: Results) -> list[Claim]:
    """What the paper says of these tables (abstract, Sec. 4.2, 4.4 and 4.5), and what we found."""
    found = []
    for part in parts(results):
        if len(run(results, part)) < 2:
            found.append(Claim(claim=f"{where(part)}: all of it", verdict="not run yet", evidence=""))
            continue
        found += [*_unseen(results, part), *_compared(results, part), *_alphas(results, part), *_turns(results, part)]
    for part in [part for name in results["tables"] for part in TABLES[name].parts]:
        found += [each for edit in part.edits for each in _edits(results, part, edit)]
    return found


def _rate(results: Results, part: Part, name: str) -> Bounds | None:
    return bounds(ratio(results, part, name)) if name in part.methods else None


def _unseen(results: Results, part: Part) -> list[Claim]:
    """What it is not good for."""
    if "unseen" not in part.methods:
        return []
    at, nll = where(part), {name: likelihood(results, part, name, "forget") for name in ("unseen", "standard")}
    rate, errors = _rate(results, part, "unseen"), bounds(floor(results))
    still = lower(f"{at}: Unseen still generates the forgotten, beyond the judge's errors on real images", errors, rate)
    if rate is not None and errors is not None:
        still = replace(still, evidence=f"{told(rate, True)}; the judge's errors {told(errors, True)}")
    text = f"{at}: Unseen leaves the likelihood of the forgotten where it was, within {NEAR:g} bits/dim"
    return [still, near(text, nll["unseen"], nll["standard"])]


def _compared(results: Results, part: Part) -> list[Claim]:
    """The paper's two methods beside the others."""
    at, found = where(part), []
    nll = {(name, side): likelihood(results, part, name, side) for name in METHODS for side in ("retain", "forget")}
    ours = [name for name in ("orthogonal", "obtuse") if name in part.methods and "obtuse" in part.methods]
    others = [name for name in ("unseen", "erasediff") if name in part.methods]
    for name in ours:
        for other in others:
            text = f"{at}: {NAMES[name]} generates less of what was forgotten than {NAMES[other]}"
            found.append(lower(text, _rate(results, part, name), _rate(results, part, other)))
        for other in others:
            text = f"{at}: {NAMES[name]} makes the forgotten less likely than {NAMES[other]} does, {SURELY}"
            found.append(higher(text, nll[name, "forget"], nll[other, "forget"], NEAR))
        text = f"{at}: {NAMES[name]} leaves the likelihood of the rest where it was, within {NEAR:g} bits/dim"
        found.append(near(text, nll[name, "retain"], nll["standard", "retain"]))
    return found


def _alphas(results: Results, part: Part) -> list[Claim]:
    """Table 7: Orthogonal by its alpha, of which 1 is Unseen."""
    if SIMULTANEOUS in part.methods or ALTERNATING not in part.methods:
        return []
    found = []
    for name in ("orthogonal", "orthogonal alpha=0.9", ALTERNATING):
        alpha = recipe(name).to_dict()["combine"]["alpha"]
        text = f"alpha {alpha:g} generates less of what was forgotten than alpha 1 (Unseen)"
        found.append(lower(text, _rate(results, part, name), _rate(results, part, "unseen")))
        nll = [likelihood(results, part, each, "forget") for each in (name, "unseen")]
        text = f"alpha {alpha:g} makes the forgotten less likely than alpha 1 does, {SURELY}"
        found.append(higher(text, nll[0], nll[1], NEAR))
    text = f"alpha 0.99 keeps the likelihood of the rest, within {NEAR:g} bits/dim of alpha 1"
    return [*found, near(text, *(likelihood(results, part, each, "retain") for each in ("orthogonal", "unseen")))]


def _turns(results: Results, part: Part) -> list[Claim]:
    """Figure 7: a forget loss on every fourth step, and on every step."""
    if SIMULTANEOUS not in part.methods:
        return []
    first = draws(results)[0]
    both = (ALTERNATING, SIMULTANEOUS)
    junk = [bounds(share(results, part, name, ["junk"], first)) for name in both]
    nll = [likelihood(results, part, name, "retain") for name in both]
    return [
        lower("Alternating updates make less noise (junk) than simultaneous ones", *junk),
        higher("Simultaneous updates make the rest less likely than alternating ones do", nll[1], nll[0]),
    ]


def _edits(results: Results, part: Part, edit: Edit) -> list[Claim]:
    """Tables 3 and 4: what becomes of the class of edited images."""
    at = f"{where(part)}, {HOW[edit]}"
    kept = {
        (name, which): bounds(same_class(results, part, name, edit, which))
        for name in METHODS
        for which in ("retain", "forget")
    }
    found = []
    for name in ("orthogonal", "obtuse"):
        for other in ("standard", "unseen"):
            text = f"{at}: fewer forgotten images keep their class by {NAMES[name]} than by {NAMES[other]}"
            found.append(lower(text, kept[name, "forget"], kept[other, "forget"]))
        ours, was = kept[name, "retain"], kept["standard", "retain"]
        text = f"{at}: as many retained images keep their class by {NAMES[name]} as by Standard"
        found.append(_as_many(text, ours, was))
    return found


def _as_many(text: str, ours: Bounds | None, was: Bounds | None) -> Claim:
    if ours is None or was is None:
        return Claim(claim=text, verdict="not run yet", evidence="")
    fewer = ours.below(was)
    return Claim(
        claim=text, verdict="contradicted at this budget" if fewer else "confirmed at this budget",
        evidence=f"{told(ours, True)} against {told(was, True)}",
    )  # fmt: skip


def agreements(results: Results) -> list[str]:
    """For each part that was run, how many pairs of the paper's methods are in its order."""
    found = []
    for part in (part for name in results["tables"] for part in TABLES[name].parts):
        names = [name for name in part.methods if rows(results, part, name)]
        if len(names) < 2:
            continue
        if part.rates:
            ours = {name: bounds(ratio(results, part, name)) for name in names}
            found.append(
                _agreement(f"{where(part)}, unlearning ratio", ours, _by_name(part, list(part.rates.values())[-1]))
            )
        if part.nll:
            ours = {name: likelihood(results, part, name, "forget") for name in names}
            found.append(
                _agreement(f"{where(part)}, likelihood of the forgotten", ours, _by_name(part, part.nll["forget"]))
            )
    return found


def _by_name(part: Part, printed: Printed) -> dict[str, float]:
    return {name: value for name, value in zip(part.methods, printed, strict=True) if value is not None}


def _agreement(about: str, ours: Mapping[str, Bounds | None], printed: Mapping[str, float]) -> str:
    agree: list[str] = []
    against: list[str] = []
    pairs = [(a, b) for a, b in combinations(ours, 2) if a in printed and b in printed]
    for a, b in pairs:
        first, second = ours[a], ours[b]
        if first is None or second is None or not (first.below(second) or second.below(first)):
            continue
        same = (first.value - second.value) * (printed[a] - printed[b]) > 0
        (agree if same else against).append(f"{NAMES[a]} and {NAMES[b]}")
    left = len(pairs) - len(agree) - len(against)
    said = f" ({'; '.join(against)})" if against else ""
    return (
        f"{about}: of {len(pairs)} pairs of methods {len(agree)} are in the paper's order, {len(against)} in the "
        f"other{said}, and {left} cannot be told apart."
    )
