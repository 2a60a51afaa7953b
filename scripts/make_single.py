"""Fill docs/single.md: python scripts/make_single.py runs/t-shirt runs/five-faces.

The results.json of each folder becomes docs/results/FOLDER.json. Of t-shirt (`msgm reproduce t-shirt`) the samples that
are nearest to the image become docs/images/t-shirt-MODEL.png; five-faces (`msgm evaluate`) has numbers only. Without a
folder the page is made again from these, and with --check nothing is written: the exit status says whether the page is
up to date.
"""

import json
import sys
from pathlib import Path

from blocks import ROOT, fill, picture, table

from msgm.metrics import quantities
from msgm.report.results import Results
from msgm.report.tables import results_sheet

PAGE, STORED = ROOT / "docs/single.md", ROOT / "docs/results"
SHIRT, FACES = "t-shirt", "five-faces"


def made_by(results: Results) -> str:
    """The command and what it did."""
    budget = results.budget
    learn, forget, evidence = budget["learn"], budget["forget"], budget["evidence"]
    return (
        f"`{results.command}`, commit `{str(results.commit)[:7]}`: {budget['copies']} copies of the image among the "
        f"digits, {learn['steps']:,} steps of {learn['batch']} images to learn them; {forget['steps']} steps of "
        f"{forget['batch']} retained images to forget, {budget['seeds']} seed; {evidence['n']:,} samples of each "
        "model. This package's own experiment on a small model."
    )


def answer(results: Results) -> str:
    """How often each model draws the image, and which give it back when it is noised, the least first."""
    innocent, parent, *others = results.rows
    rates = {row.model: row.get(quantities.DRAWN) for row in results.rows}
    drawn = [f"`{row.model}` {rate.text()} %" for row in others if (rate := rates[row.model]) and rate.value]
    again = {
        row.model: [found.value or 0.0 for level in quantities.LEVELS if (found := row.get(quantities.AGAIN[level]))]
        for row in (innocent, *others)
    }
    levels = ", ".join(f"{level:g}" for level in quantities.LEVELS)
    order = sorted(again, key=lambda name: sum(again[name]))
    back = "; ".join(f"`{name}` {', '.join(f'{100 * share:.0f}' for share in again[name])}" for name in order)
    before = rates[parent.model]
    assert before is not None
    return (
        f"Before, {before.text()} % of the samples are the image. After: {', '.join(drawn) or 'none, by any recipe'}."
        f"\n\nWhoever has the image asks otherwise. Noised to r = {levels} and denoised, so many of 100 times it comes "
        f"back, beside a model of digits that never saw it: {back}."
    )


def measured(results: Results) -> str:
    """All rows, and what their columns are."""
    sheet = results_sheet(results)
    return f"{table(sheet.headings, sheet.rows)}\n\n{sheet.legend}"


def blocks(shirt: Results, faces: Results) -> dict[str, str]:
    shown = [[f"`{row.model}`", f"![](images/{SHIRT}-{row.model}.png)"] for row in shirt.rows]
    return {
        "answer": answer(shirt),
        "made-by": made_by(shirt),
        "table": measured(shirt),
        "pictures": table(["model", "the eight samples nearest to the image"], shown),
        "faces": f"{measured(faces)}\n\n`{faces.command}`, commit `{str(faces.commit)[:7]}`.",
    }


def stored(name: str) -> Results:
    return Results.from_dict(json.loads((STORED / f"{name}.json").read_text()))


def main() -> int:
    check = "--check" in sys.argv
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        (STORED / f"{folder.name}.json").write_text((folder / "results.json").read_text())
        for row in stored(SHIRT).rows if folder.name == SHIRT else ():
            place = folder / "runs" / (row.model if row.method == "standard" else f"{row.model}/seed-0")
            picture(place / "nearest.png", f"{SHIRT}-{row.model}.png")
    return fill(PAGE, blocks(stored(SHIRT), stored(FACES)), check=check)


if __name__ == "__main__":
    raise SystemExit(main())
