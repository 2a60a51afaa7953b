"""What became of the paper's claims about its tables, and what else a grid's results say. Made from ``results.json``.

Two numbers are told apart where their 95 % intervals do not meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from ...metrics.measured import Measured
from .report import (
    NAMES,
    Bounds,
    Results,
    bent,
    draws,
    floor,
    forgotten,
    frechet,
    likelihood,
    name_of,
    parts,
    ratio,
    rows,
    run,
    share,
    where,
)  # fmt: skip
from .tables import METHODS, TABLES, Part, Printed

Verdict = Literal[
    "confirmed at this budget", "not confirmed at this budget", "contradicted at this budget", "not run yet"
]
NEAR = 0.1
"""Bits/dim within which a likelihood counts as where it was."""
SURELY = f"by {NEAR:g} bits/dim or more"


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
    """What the paper says of these tables (abstract, Sec. 4.2 and 4.4), and what we found."""
    found = []
    for part in parts(results):
        if len(run(results, part)) < 2:
            found.append(Claim(claim=f"{where(part)}: all of it", verdict="not run yet", evidence=""))
        else:
            found += _of(results, part)
    return found


def _of(results: Results, part: Part) -> list[Claim]:
    rates = {name: bounds(ratio(results, part, name)) for name in METHODS}
    nll = {(name, side): likelihood(results, part, name, side) for name in METHODS for side in ("retain", "forget")}
    at, found = where(part), []
    for name in ("orthogonal", "obtuse"):
        for other in ("unseen", "erasediff"):
            text = f"{at}: {NAMES[name]} generates less of what was forgotten than {NAMES[other]}"
            found.append(lower(text, rates[name], rates[other]))
        for other in ("unseen", "erasediff"):
            text = f"{at}: {NAMES[name]} makes the forgotten less likely than {NAMES[other]} does, {SURELY}"
            found.append(higher(text, nll[name, "forget"], nll[other, "forget"], NEAR))
        text = f"{at}: {NAMES[name]} leaves the likelihood of the rest where it was, within {NEAR:g} bits/dim"
        found.append(near(text, nll[name, "retain"], nll["standard", "retain"]))
    text = f"{at}: Unseen leaves the likelihood of the forgotten where it was, within {NEAR:g} bits/dim"
    return [*found, near(text, nll["unseen", "forget"], nll["standard", "forget"])]


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


def findings(results: Results) -> list[str]:
    """Sentences on what was run: what forgets, what it costs, and what does nothing."""
    return [line for part in parts(results) if len(run(results, part)) > 1 for line in _findings(results, part)]


def _findings(results: Results, part: Part) -> list[str]:
    names = [name for name in run(results, part) if name != "standard"]
    before, first = ratio(results, part, "standard"), draws(results)[0]
    assert before is not None
    found = [
        f"Before anything is forgotten {before.text()} % of the samples are in the forget classes; of real test images "
        f"to retain the judge calls {floor(results).text()} % so."
    ]
    found += [_beside(results, part, name) for name in ("orthogonal", "obtuse") if name in names]
    found += [line for name in names if (line := _unlikely(results, part, name))]
    rates = {name: bounds(ratio(results, part, name)) for name in names}
    best = min(names, key=lambda name: rates[name].value)  # type: ignore[union-attr]
    by = ", ".join(f"{measured.text()} by {d}" for d in draws(results) if (measured := ratio(results, part, best, d)))
    at_floor = rates[best].high < floor(results).low  # type: ignore[union-attr,operator]
    under = ", less than the judge calls so of real images to retain" if at_floor else ""
    found.append(
        f"**{name_of(best)} forgets most**: UR {by} %{under}. It bends the shares of the kept classes: TV "
        f"{100 * bent(results, part, best):.1f} %, Standard's {100 * bent(results, part, 'standard'):.1f}, Unseen's "
        f"{100 * bent(results, part, 'unseen'):.1f}; {_rare(results, part, best)}. Fréchet "
        f"{frechet(results, part, best):.1f}, Standard's {frechet(results, part, 'standard'):.1f} ({first})."
    )
    return found


def _beside(results: Results, part: Part, name: str) -> str:
    """One of the paper's two methods beside Unseen."""
    ours, unseen = ratio(results, part, name), ratio(results, part, "unseen")
    low, high = bounds(ours), bounds(unseen)
    assert ours is not None and unseen is not None and low is not None and high is not None
    how = rows(results, part, name)[0]["made"]["method"]["combine"]
    more = (
        "forgets more than" if low.below(high) else "forgets less than" if high.below(low) else "forgets no more than"
    )
    nll = [likelihood(results, part, each, "forget") for each in (name, "unseen")]
    likely = f"; D_f {' against '.join(told(each) for each in nll if each)} bits/dim" if all(nll) else ""
    return (
        f"**{NAMES[name]} with the paper's setting (alpha {how['alpha']:g}, forget loss on every {how['every']}th step)"
        f" {more} Unseen** in so few steps: UR {ours.text()} against {unseen.text()} %{likely}."
    )


def _unlikely(results: Results, part: Part, name: str) -> str:
    """A method that makes the forgotten less likely, and what it pays."""
    nll = {side: likelihood(results, part, name, side) for side in ("retain", "forget")}
    was = {side: likelihood(results, part, "standard", side) for side in ("retain", "forget")}
    if None in (*nll.values(), *was.values()) or nll["forget"].value < was["forget"].value + NEAR:  # type: ignore[union-attr]
        return ""
    sides = ", ".join(
        f"{mark} {told(nll[side])} bits/dim (Standard {was[side].value:.2f})"  # type: ignore[arg-type,union-attr]
        for side, mark in (("forget", "D_f"), ("retain", "D_g"))
    )
    rate, junk, clean = (
        share(results, part, *what, draws(results)[0])
        for what in ((name, forgotten(results)), (name, ["junk"]), ("standard", ["junk"]))
    )
    assert rate is not None and junk is not None and clean is not None
    return (
        f"**{name_of(name)} makes the forgotten less likely**: {sides}. UR {rate.text()} %, junk {junk.text()} % "
        f"(Standard {clean.number()}), Fréchet {frechet(results, part, name):.1f} (Standard "
        f"{frechet(results, part, 'standard'):.1f})."
    )


def _rare(results: Results, part: Part, name: str) -> str:
    """The kept class that lost most against the Standard model: its share of the samples of kept classes."""

    def shares(method: str) -> dict[str, float]:
        counts = rows(results, part, method)[0]["draws"][draws(results)[0]]["counts"]
        kept = {k: v for k, v in counts.items() if k not in (*forgotten(results), "junk")}
        return {k: v / sum(kept.values()) for k, v in kept.items()}

    was, now = shares("standard"), shares(name)
    rare = min(was, key=lambda k: now[k] / was[k])
    return f"most the {rare}'s, from {100 * was[rare]:.1f} to {100 * now[rare]:.1f} %"
