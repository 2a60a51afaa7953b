"""What a page says first: one or two sentences, from intervals and never from a point alone."""

from __future__ import annotations

from ..metrics import quantities
from ..metrics.measured import Measured
from .results import Result, Results


def verdict(results: Results) -> str:
    """Of the row with the lowest UR + junk after the first: how often it draws what was to be forgotten, beside the
    first row's; and whether their intervals, and the judge's errors, allow to call that forgotten. Of images named one
    by one: how often a sample is nearest to one of them.
    """
    rate = quantities.NEAR if any(row.value(quantities.NEAR) is not None for row in results.rows) else quantities.UR
    rows = [row for row in results.rows if row.value(rate) is not None]
    if not rows:
        return "Nothing was measured."
    first, *others = rows
    best = min(others or rows, key=lambda row: (row.value(rate) or 0) + (row.value(quantities.JUNK) or 0))
    ur = best.measured[rate.name]
    drawn = "is nearest to an image to be forgotten" if rate is quantities.NEAR else "draws what was to be forgotten"
    said = f"{best.model} {drawn} in {ur.text()} % of its samples"
    before = first.measured[rate.name] if others else None
    if before is not None:
        said += f", {first.model} in {before.text()} %"
    said += _junk(best, first if others else None)
    sentences = [said, *([_apart(ur, before)] if before is not None else []), *_floor(results, ur)]
    return ". ".join(sentences) + "."


def _junk(best: Result, first: Result | None) -> str:
    junk, before = best.get(quantities.JUNK), first.get(quantities.JUNK) if first is not None else None
    if junk is None:
        return ""
    return f"; {junk.number()} % are junk" + (f", before {before.number()} %" if before is not None else "")


def _apart(ur: Measured, before: Measured) -> str:
    if ur.high is not None and before.low is not None and ur.high < before.low:
        return "The intervals do not meet: it has become rarer"
    return "The intervals meet: this is no evidence that anything was forgotten"


def _floor(results: Results, ur: Measured) -> list[str]:
    """The judge's false positives look like forgotten content that came back."""
    false = results.judge.false_positives if results.judge is not None else None
    if false is None or ur.low is None or ur.low > false.high:
        return []
    return [f"The judge takes real images of the rest for it as often, by mistake ({false})"]
