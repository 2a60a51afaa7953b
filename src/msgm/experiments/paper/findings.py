"""What a grid's results say beside the paper's claims: what forgets, what it costs, and what does nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .claims import NEAR, bounds, told
from .report import (
    NAMES,
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
)
from .tables import Part


def findings(results: Results) -> list[str]:
    """Sentences on what was run: what forgets, what it costs, and what does nothing."""
    made = [part for part in parts(results) if len(run(results, part)) > 1]
    at = {id(part): f"{where(part)}. " if len(made) > 1 else "" for part in made}
    most: dict[tuple[str, str], Part] = {}
    for part in made:  # of several about the same models, that with the most methods says which forgets most
        key = (part.process, part.origin)
        most[key] = max(most.get(key, part), part, key=lambda each: len(run(results, each)))
    lines = [
        f"{at[id(part)]}{line}"
        for part in made
        for line in _findings(results, part, most[part.process, part.origin] is part)
    ]
    return list(dict.fromkeys(lines))


def _findings(results: Results, part: Part, whole: bool) -> list[str]:
    names = [name for name in run(results, part) if name != "standard"]
    before, first = ratio(results, part, "standard"), draws(results)[0]
    assert before is not None
    found = [
        f"Before anything is forgotten {before.text()} % of the samples are in the forget classes; of real test images "
        f"to retain the judge calls {floor(results).text()} % so."
    ]
    beside = ("orthogonal", "obtuse") if "unseen" in names else ()
    found += [_beside(results, part, name) for name in beside if name in names]
    found += [line for name in names if (line := _unlikely(results, part, name))]
    if not whole:
        return found
    rates = {name: bounds(ratio(results, part, name)) for name in names}
    best = min(names, key=lambda name: rates[name].value)  # type: ignore[union-attr]
    by = ", ".join(f"{measured.text()} % by {d}" for d in draws(results) if (measured := ratio(results, part, best, d)))
    at_floor = rates[best].high < floor(results).low  # type: ignore[union-attr,operator]
    under = ", less than the judge calls so of real images to retain" if at_floor else ""
    found.append(
        f"**{name_of(best)} forgets most**: UR {by}{under}.{_bends(results, part, best, names)} Fréchet "
        f"{frechet(results, part, best):.1f}, Standard's {frechet(results, part, 'standard'):.1f} ({first})."
        f" Of its samples {_junk(results, part, best)} % are junk, of Standard's {_junk(results, part, 'standard')}."
    )
    return found


def _bends(results: Results, part: Part, name: str, names: Sequence[str]) -> str:
    """What a method does to the shares of the kept classes, where there are several."""
    if math.isnan(bent(results, part, name)):
        return ""
    unseen = f", Unseen's {100 * bent(results, part, 'unseen'):.1f}" if "unseen" in names else ""
    return (
        f" It bends the shares of the kept classes: TV {100 * bent(results, part, name):.1f} %, Standard's "
        f"{100 * bent(results, part, 'standard'):.1f}{unseen}{_rare(results, part, name)}."
    )


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
    if None in (*nll.values(), *was.values()):
        return ""
    # What twice the steps change is not resolved.
    open_ = sum(abs(each["forget"].change or 0.0) for each in (nll, was))  # type: ignore[union-attr]
    if nll["forget"].value - was["forget"].value < NEAR + open_:  # type: ignore[union-attr]
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


def _junk(results: Results, part: Part, name: str) -> str:
    found = share(results, part, name, ["junk"], draws(results)[0])
    assert found is not None
    return found.number()


def _rare(results: Results, part: Part, name: str) -> str:
    """The kept class that lost most against the Standard model: its share of the samples of kept classes."""

    def shares(method: str) -> dict[str, float]:
        counts = rows(results, part, method)[0]["draws"][draws(results)[0]]["counts"]
        kept = {k: v for k, v in counts.items() if k not in (*forgotten(results), "junk")}
        return {k: v / max(1, sum(kept.values())) for k, v in kept.items()}

    was, now = shares("standard"), shares(name)
    rare = min((k for k in was if was[k]), key=lambda k: now[k] / was[k], default="")
    if not rare or len(was) < 2:
        return ""
    return f"; most the {rare}'s, from {100 * was[rare]:.1f} to {100 * now[rare]:.1f} %"
