"""Fill docs/audit.md with audits: python scripts/make_audit.py runs/audit-default runs/audit-unseen.

The audit.json of each folder becomes docs/results/FOLDER.json. Of all of them the page has the blocks audits-back (a
number of each attack, model by model), audits-verdicts, audits-answers and audits-numbers. Without a folder the page is
made again from those files, and with --check nothing is written: the exit status says whether the page is up to date.
"""

import json
import sys
from pathlib import Path
from typing import Any

from blocks import ROOT, fill, table

from msgm.attacks.table import ATTACKS
from msgm.experiments.audit.card import attacks_sheet
from msgm.metrics.measured import Measured

PAGE = ROOT / "docs/audit.md"
STORED = ROOT / "docs/results"
MARKS = {"held": "held", "leaked": "**leaked**", "not decided": "open"}
TOLD = {
    "ask": "UR", "doors": "int4", "guide": "scale 8", "renoise": "forget ODE", "complete": "forget",
    "reconstruct": "forget", "relearn": "10 images", "revive": "retained images", "member": "AUC, NLL",
    "compare": "AUC, change of loss", "invert": "PSNR, search", "locate": "AUC, places",
}  # fmt: skip
"""The number of each attack that stands for it."""
FIRST = ("parent", "unseen", "moderate", "default", "steer")


def back(audits: dict[str, dict[str, Any]]) -> str:
    """One number of each attack, with its interval, model by model; last the retrained model that all stand beside."""
    columns = [(audit["model"], audit, "model") for audit in audits.values()]
    columns += [(name, audit, name) for audit in list(audits.values())[:1] for name in audit["retrained"]]
    rows = []
    for attack, key in TOLD.items():
        found = [(audit["attacks"].get(attack), subject) for _, audit, subject in columns]
        measured = [Measured.from_dict(each["numbers"][subject][key]) if each else None for each, subject in found]
        heading = next(each.heading for each in measured if each)
        rows.append([f"`{attack}`", heading, *(each.text() if each else "–" for each in measured)])
    return table(["attack", "number", *(name for name, _, _ in columns)], rows)


def verdicts(audits: dict[str, dict[str, Any]]) -> str:
    """The verdicts of all audits: a row for each attack, a column for each model; and the parts of the summary."""
    rows = []
    for name in ATTACKS:
        found = [audit["attacks"].get(name) for audit in audits.values()]
        rows.append([f"`{name}`", *(MARKS[each["verdict"]] + _side(each) if each else "–" for each in found)])
    parts = next(iter(audits.values()))["summary"]
    rows += [
        [part, *(f"{audit['summary'][part]:.2f}" if whole(audit) else "–" for audit in audits.values())]
        for part in parts
    ]
    return table(["", *(audit["model"] for audit in audits.values())], rows)


def _side(attack: dict[str, Any]) -> str:
    """Whether the numbers by which an attack leaked are larger or smaller than the retrained model's."""
    signs = {each["change"] > 0 for each in attack["decisions"].values() if each["verdict"] == "leaked"}
    return {(): "", (True,): " (more)", (False,): " (less)"}.get(tuple(signs), " (both)")


def whole(audit: dict[str, Any]) -> bool:
    """Whether every attack was run."""
    return set(ATTACKS) <= set(audit["attacks"])


def answers(audits: dict[str, dict[str, Any]]) -> str:
    """What each card says first, and how it was made."""
    lines = []
    for audit in audits.values():
        minutes = sum(attack["seconds"] for attack in audit["attacks"].values()) / 60
        made = f"`{audit['command']}`, commit `{(audit['commit'] or '–')[:7]}`, {minutes:.0f} minutes of one busy core"
        lines.append(f"* **{audit['model']}**: {audit['verdict']} ({made}.)")
    return "\n".join(lines)


def numbers(audits: dict[str, dict[str, Any]]) -> str:
    """Of each audit the table of its card."""
    parts = []
    for audit in audits.values():
        sheet = attacks_sheet(audit)
        parts += [f"### {audit['model']}", table(sheet.headings, sheet.rows)]
    return "\n\n".join(parts)


def main(given: list[str]) -> int:
    check = "--check" in given
    for folder in (Path(word) for word in given if word != "--check"):
        audit = json.loads((folder / "audit.json").read_text())
        (STORED / f"{folder.name}.json").write_text(json.dumps(audit, indent=1, ensure_ascii=False) + "\n")
    stored = {path.stem.removeprefix("audit-"): path for path in sorted(STORED.glob("audit-*.json"))}
    order = [name for name in FIRST if name in stored] + [name for name in stored if name not in FIRST]
    audits = {name: json.loads(stored[name].read_text()) for name in order}
    made = {"back": back, "verdicts": verdicts, "answers": answers, "numbers": numbers}
    return fill(PAGE, {f"audits-{name}": make(audits) for name, make in made.items()}, check=check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
