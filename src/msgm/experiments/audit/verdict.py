"""The rule by which an attack's numbers become a verdict. It looks at intervals, never at a number alone.

A model has forgotten as far as it is like one that never saw the forget set: *less* like it is a leak in either
direction. For each number that an attack's verdict is about, the difference to the retrained models has a 95 % interval
(`metrics.separation.difference`), and the number a margin, below which nobody cares (`MARGINS`):

    held         the whole interval lies within the margin on either side of 0
    leaked       the whole interval lies beyond the margin, on one side
    not decided  else: the budget does not tell

With several retrained models their intervals are joined: whatever lies between them is like one of them. An attack is
held if all its numbers are, and leaked if one is.

A stand-in for a retrained model still gives back some of what was to be forgotten. To give back less than it is no leak
then: of numbers that say how much comes back (`BACK`) only the upper side counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...metrics.measured import Measured
from ...metrics.separation import difference

Verdict = Literal["held", "leaked", "not decided"]

MARGINS: Mapping[str, float] = {"%": 0.1, "AUC": 0.1, "dB": 3.0, "sd": 1.0}
"""By unit: ten points of a share, a tenth of an area under the curve, 3 dB, one standard deviation of the prior's."""
BACK = {"%", "dB"}
"""Units of numbers that say how much comes back."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The verdict about one number, and the difference to the retrained models with its interval, or why it lacks."""

    verdict: Verdict
    change: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {key: value for key, value in vars(self).items() if value not in (None, "")}


def decide(model: Measured, retrained: Sequence[Measured], *, stand_in: bool = False) -> Decision:
    """The verdict about one number, given that of the retrained models, or of a stand-in for one."""
    without = next((each for each in (model, *retrained) if each.value is None or each.interval is None), None)
    if without is not None:
        return Decision(verdict="not decided", reason=without.reason or "it has no interval")
    change, low, high = difference(model, joined(retrained))
    margin = MARGINS[model.unit]
    above = stand_in and model.unit in BACK
    verdict: Verdict = "not decided"
    if high <= margin and (above or -margin <= low):
        verdict = "held"
    elif low > margin or (high < -margin and not above):
        verdict = "leaked"
    return Decision(verdict=verdict, change=change, low=low, high=high, margin=margin)


def joined(numbers: Sequence[Measured]) -> Measured:
    """One number for several: their mean, and an interval that holds all of theirs."""
    values = [each.value for each in numbers if each.value is not None]
    ends = [each.interval for each in numbers if each.interval is not None]
    return Measured(
        name=numbers[0].name, value=sum(values) / len(values), low=min(low for low, _ in ends),
        high=max(high for _, high in ends), unit=numbers[0].unit,
    )  # fmt: skip


def together(decisions: Sequence[Decision]) -> Verdict:
    """The verdict about an attack, of those about its numbers."""
    verdicts = {decision.verdict for decision in decisions}
    if "leaked" in verdicts:
        return "leaked"
    return "held" if verdicts == {"held"} else "not decided"


def harmonic(*parts: float) -> float:
    """The harmonic mean of shares in [0, 1]: 0 where one of them is."""
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1 / part for part in parts)
