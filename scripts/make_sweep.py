"""Fill the tables of sweeps and audits in the docs: python scripts/make_sweep.py runs/sweep runs/study.

The results.json of each folder becomes docs/results/FOLDER.json, of which the PAGES in docs have the
blocks FOLDER-made-by, -table, -judged, -front and -best that it asks for. Without a folder the pages and the
picture docs/images/sweep.png are made again from those files, and with --check nothing is written: the exit status
says whether the pages are up to date.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blocks import ROOT, fill, picture, table

from msgm.forgetting.methods import DEFAULT
from msgm.metrics import quantities
from msgm.metrics.measured import Quantity
from msgm.report.pareto import pareto_figure
from msgm.report.pictures import write_figure
from msgm.report.results import Result, Results
from msgm.report.tables import judged_sheets

PAGES = ("sweep.md", "deflect.md", "moderate.md", "redirect.md")
STORED = ROOT / "docs/results"
ASKED = (DEFAULT, "deflect")
"""Of which the pages say how they meet what is asked of a default."""


def share(row: dict[str, Any], digits: int = 1) -> str:
    rate = row["unlearning_ratio"]
    if rate["value"] is None:
        return "–"
    value, low, high = (f"{100 * rate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def measured(results: dict[str, Any]) -> str:
    headings = [
        "variant", "UR % [95 %]", "junk %", "retained %", "Fréchet", "NLL retained", "NLL forgotten", "images seen",
        "seconds", "front", "status",
    ]  # fmt: skip
    every, rows = [Result.from_dict(row) for row in results["rows"]], []
    # What older results had not measured has no column in their tables.
    back = (q for q in quantities.BACK.values() if not q.detail)
    more = [q for q in (quantities.CORRECTED, quantities.BENT, *back) if any(found.get(q) for found in every)]
    headings[5:5] = [f"{q.name} %" for q in more]
    for row, found in zip(results["rows"], every, strict=True):
        junk, retained, distance, images, seconds = (
            each.number() if (each := found.get(quantity)) else "–"
            for quantity in (
                quantities.JUNK, quantities.RETAINED, quantities.FRECHET, quantities.IMAGES, quantities.SECONDS
            )
        )  # fmt: skip
        nll, forgotten = (each.text() if (each := found.get(q)) else "–" for q in quantities.NLL.values())
        front = {True: "yes", False: "no", None: ""}[row.get("front")]
        # The model that all runs of a sweep start from is the method standard.
        parent = "criteria" in results["budget"] and "front" not in row
        name = f"{row['method']} (the model itself)" if parent else row["model"]
        rows.append([
            name, share(row), junk, retained, distance,
            *(each.number() if (each := found.get(q)) else "–" for q in more), nll, forgotten, images, seconds, front,
            row.get("status", "finished"),
        ])  # fmt: skip
    return table(headings, rows)


def judged(results: dict[str, Any]) -> str:
    """Class by class what the judge took the samples for."""
    return "\n\n".join(
        table(["variant", *sheet.headings[2:]], [[row[0], *row[2:]] for row in sheet.rows])
        for sheet in judged_sheets(Results.from_dict(results))
    )


def front(results: dict[str, Any]) -> str:
    """The names on the front, and how the default and what might be it meet what is asked of a default."""
    parent, *compared = results["rows"]
    names = [row["model"] for row in compared if row.get("front")]
    lines = ["On the front: " + (", ".join(f"`{name}`" for name in names) or "none") + "."]
    for name in ASKED:
        ours = next((row for row in compared if row["model"] == name), None)
        if ours is not None and ours["unlearning_ratio"]["value"] is not None:
            rows = [[what, "yes" if holds else "**no**", found] for what, holds, found in asked(ours, parent, compared)]
            whom = f"the default, `{name}`" if name == DEFAULT else f"`{name}`"
            lines += ["", table([f"asked of {whom}", "holds", "measured"], rows)]
    return "\n".join(lines)


def asked(
    ours: dict[str, Any], parent: dict[str, Any], compared: list[dict[str, Any]]
) -> Iterator[tuple[str, bool, str]]:
    """What is asked of a default, whether it holds, and what was measured."""

    def of(row: dict[str, Any], quantity: Quantity) -> float | None:
        found = Result.from_dict(row).get(quantity)
        return found.value if found else None

    rate, junk = 100 * ours["unlearning_ratio"]["value"], 100 * ours["junk"]
    yield "no other beats it", bool(ours["front"]), ours["status"]
    yield "UR of at most 0.3 %", rate <= 0.3, share(ours, digits=2)
    yield "junk of at most 0.3 %", junk <= 0.3, f"{junk:.2f}"
    distance, others = of(ours, quantities.FRECHET), [row for row in compared if row is not ours]
    unseen = next((of(row, quantities.FRECHET) for row in others if row["model"] == "unseen"), None)
    if distance is not None and unseen is not None:
        yield "Fréchet distance of at most `unseen`'s", distance <= unseen, f"{distance:.1f}, `unseen` {unseen:.1f}"
    (kept, forgotten), (standard, _) = (
        [row["nll"][side]["bits_per_dim"] for side in ("retain", "forget")] for row in (ours, parent)
    )
    near = kept is not None and standard is not None
    yield (
        "retained NLL within 0.05 bits/dim of the model that it started from", near and abs(kept - standard) <= 0.05,
        f"{kept - standard:+.3f}" if near else "not measured",
    )  # fmt: skip
    apart = kept is not None and forgotten is not None
    yield (
        "forgotten images at least 2 bits/dim less likely than retained ones", apart and forgotten - kept >= 2,
        f"{forgotten - kept:+.2f}" if apart else "not measured",
    )  # fmt: skip
    as_good = [
        f"`{row['model']}`"
        for row in others
        if (ur := of(row, quantities.UR)) is not None and (other := of(row, quantities.FRECHET)) is not None
        and 100 * ur <= rate and distance is not None and other <= distance
    ]  # fmt: skip
    yield "no other is as good in UR and in Fréchet distance", not as_good, ", ".join(as_good) or "none"
    back = [of(ours, quantities.BACK["forget", level]) for level in quantities.LEVELS]
    if None not in back:
        levels = ", ".join(f"{level:g}" for level in quantities.LEVELS)
        yield (
            f"of forgotten images noised to r = {levels} at most 20 % come back",
            max(filter(None, back), default=0) <= 0.2, ", ".join(f"{100 * (value or 0):.0f} %" for value in back),
        )  # fmt: skip


def best(results: dict[str, Any]) -> str:
    """Of each recipe the settings by which most samples are kept ones: neither forgotten nor junk."""
    found: dict[str, dict[str, Any]] = {}
    for row in results["rows"][1:]:
        before = found.get(row["method"])
        if row["retained"] is not None and (before is None or row["retained"] > before["retained"]):
            found[row["method"]] = row
    return measured({**results, "rows": list(found.values())})


def made_by(results: dict[str, Any]) -> str:
    budget, evaluation = results["budget"], results["budget"]["evaluation"]
    parts = [f"`{results['command']}`, commit `{str(results['commit'])[:7]}`: "]
    if "seeds" in budget:
        seeds = f"{len(budget['seeds'])} seeds" if len(budget["seeds"]) > 1 else "one seed"
        parts.append(f"{budget['steps']} steps of {budget['images_per_step']} images on average, {seeds}; of each run ")
    parts.append(f"{evaluation['n']} samples and the likelihoods of {evaluation['nll_images']} test images of each set")
    # A run that was resumed, or audited again, does not know how long it took.
    runs = [run for row in results["rows"][1:] for run in row.get("runs", [row])]
    if all(run["seconds"] is not None for run in runs):
        minutes = sum(run["seconds"] + run.get("evaluation_seconds", 0) for run in runs) / 60
        parts.append(f"; {minutes:.0f} minutes of the processes' time for all runs")
    return "".join([*parts, ". This package's own experiment on a small model, not the paper's."])


def blocks(name: str, results: dict[str, Any]) -> dict[str, str]:
    made = {
        "made-by": made_by(results), "table": measured(results), "judged": judged(results), "front": front(results),
        "best": best(results),
    }  # fmt: skip
    return {f"{name}-{block}": text for block, text in made.items()}


def main() -> int:
    check = "--check" in sys.argv
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        (STORED / f"{folder.name}.json").write_text((folder / "results.json").read_text())
    stored = {path.stem: json.loads(path.read_text()) for path in STORED.glob("*.json")}
    audits = {name: results for name, results in stored.items() if "evaluation" in results["budget"]}
    if not check:
        parent, *compared = map(Result.from_dict, audits["sweep"]["rows"])
        with TemporaryDirectory() as scratch:
            write_figure(pareto_figure(compared, parent), Path(scratch) / "pareto")
            picture(Path(scratch) / "pareto.png", "sweep.png")
    made = {block: text for name, results in audits.items() for block, text in blocks(name, results).items()}
    return max(fill(ROOT / "docs" / page, made, check=check) for page in PAGES)


if __name__ == "__main__":
    raise SystemExit(main())
