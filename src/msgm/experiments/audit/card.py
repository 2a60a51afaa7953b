"""The score card: one HTML page of an audit that answers first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...metrics.measured import Measured
from ...report.page import write_html
from ...report.tables import Sheet
from .verdict import MARGINS

RULE = (
    "In brackets 95 % intervals. A number is held if the whole interval of its difference to the retrained models lies "
    "within a margin, leaked if it lies beyond it on either side, and not decided else; an attack is leaked if one of "
    f"its numbers is. Margins: {100 * MARGINS['%']:.0f} points of a share, {MARGINS['AUC']} of an area under the curve "
    f"(AUC), {MARGINS['dB']:.0f} dB, {MARGINS['sd']:.0f} standard deviation of the prior."
)
STAND_IN = (
    "No retrained model was given. The stand-in is the parent, fine-tuned on what is retained: it still holds some of "
    "what a model that never saw the forget set would not have. So what is like it is not yet proved forgotten, and "
    "to give back less than it is no leak: of shares and dB only the upper side counts."
)
SUMMARY = (
    "Forgetting: 1 - UR / UR of the parent. Quality: the parent's Fréchet distance over the model's, at most 1, of "
    "samples that are not forgotten from real retained images, in the judge's features. Robustness: the share of "
    "attacks that are held. The harmonic mean is of these three."
)


def write_card(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page of an audit.json, whole or not at all."""
    write_html(
        path,
        found,
        title=f"Audit of {found['model']}",
        answer=found["verdict"],
        sheets=[attacks_sheet(found), summary_sheet(found), every_sheet(found)],
        notes=[*found["notes"], RULE, *([STAND_IN] if found["stand_in"] else []), *_worths(found)],
    )


def attacks_sheet(found: Mapping[str, Any]) -> Sheet:
    """A row for each number that a verdict is about: attack, verdict, what, the models, the difference."""
    rows = [
        (name if place == 0 else "", *cells(attack, key))
        for name, attack in found["attacks"].items()
        for place, key in enumerate(attack["decisions"])
    ]
    headings = ("Attack", "Number", "Verdict", *_subjects(found), "Difference")
    questions = " ".join(f"{name}: {attack['question']}" for name, attack in found["attacks"].items())
    return Sheet(title="Attacks", headings=headings, rows=rows, legend=questions)


def cells(attack: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """What is told of one number of an attack: its name, the verdict, its value in each model, the difference."""
    models, decision = attack["numbers"], attack["decisions"][key]
    unit = models["model"][key].get("unit", "")
    values = (Measured.from_dict(models[subject][key]).text() for subject in models)
    return (_heading(models["model"][key]), decision["verdict"], *values, _difference(decision, unit))


def summary_sheet(found: Mapping[str, Any]) -> Sheet:
    """The three parts and their harmonic mean."""
    row = [f"{value:.2f}" for value in found["summary"].values()]
    return Sheet(title="For tables", headings=tuple(found["summary"]), rows=[row], legend=SUMMARY)


def every_sheet(found: Mapping[str, Any]) -> Sheet:
    """Every number of every model."""
    rows = [
        (name, _heading(number), *(Measured.from_dict(numbers[key]).text() for numbers in attack["numbers"].values()))
        for name, attack in found["attacks"].items()
        for key, number in attack["numbers"]["model"].items()
    ]
    return Sheet(title="Every number", headings=("Attack", "Number", *_subjects(found)), rows=rows)


def _worths(found: Mapping[str, Any]) -> list[str]:
    """What the judge and the guide are worth."""
    return [found[role]["text"] for role in ("judge", "guide") if found[role]]


def _subjects(found: Mapping[str, Any]) -> list[str]:
    names = list(next(iter(found["attacks"].values()))["numbers"])
    return [f"{name} (stand-in)" if found["stand_in"] and name in found["retrained"] else name for name in names]


def _heading(number: Mapping[str, Any]) -> str:
    return Measured.from_dict(number).heading


def _difference(decision: Mapping[str, Any], unit: str) -> str:
    if "change" not in decision:
        return str(decision.get("reason", "–"))
    scale, digits = (100, 0) if unit == "%" else (1, 2 if unit == "AUC" else 1)
    change, low, high = (f"{scale * decision[key]:+.{digits}f}" for key in ("change", "low", "high"))
    return f"{change} [{low}, {high}]"
