"""Write docs/sweep.md from a finished sweep of all methods: python scripts/make_sweep.py runs/sweep.

Its results.json becomes docs/results/sweep.json. Without a folder the page and its picture, docs/images/sweep.png, are
made again from that file, and with --check nothing is written: the exit status says whether docs/sweep.md is up to
date. Only the blocks between the page's markers are generated; a page that is not there yet begins as `PAGE`.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blocks import ROOT, fill, picture, table

from msgm.evaluation.pareto import pareto_figure
from msgm.evaluation.pictures import write_figure
from msgm.evaluation.report import Row
from msgm.forgetting.methods import DEFAULT

PAGE = """# Every method with one budget

Each recipe unlearns from the same model with the same number of steps and of images seen, several seeds each, with its
own default settings, and is audited alike.

<!-- made-by:begin -->
<!-- made-by:end -->

<!-- table:begin -->
<!-- table:end -->

Shares are of all samples. Intervals and ± are over the seeds; the interval of a rate is never narrower than its samples
allow. NLLs are in bits/dim; one that failed its step-doubling check in any of the runs is not reported. A row is on the
front if no other is at least as good in UR, junk, Fréchet distance, both likelihoods (that of the forgotten images is
to be bad) and steps, and better in one, by the means. One of which any run was refused, diverged or failed a check is
on no front.

![UR and junk against the likelihood of retained images](images/sweep.png)

## Which no other beats

<!-- front:begin -->
<!-- front:end -->
"""


def share(row: dict[str, Any]) -> str:
    rate = row["unlearning_ratio"]
    if rate["value"] is None:
        return "–"
    return f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def measured(results: dict[str, Any]) -> str:
    headings = [
        "variant", "UR % [95 %]", "junk %", "retained %", "Fréchet", "NLL retained", "NLL forgotten", "images seen",
        "seconds", "front", "status",
    ]  # fmt: skip
    rows = []
    for row in results["rows"]:
        _, _, _, junk, retained, nll, forgotten, seconds = Row.from_dict(row).cells()
        distance, images = row.get("frechet_distance"), row.get("images")
        front = {True: "yes", False: "no", None: ""}[row.get("front")]
        # The model that all start from is the method standard.
        name = f"{row['method']} (the model itself)" if "front" not in row else row["model"]
        rows.append([
            name, share(row), junk, retained, "–" if distance is None else f"{distance:.1f}", nll, forgotten,
            "–" if images is None else str(images), seconds, front, row["status"],
        ])  # fmt: skip
    return table(headings, rows)


def front(results: dict[str, Any]) -> str:
    """The names on the front, and what is asked of the default method."""
    parent, *compared = results["rows"]
    names = [row["model"] for row in compared if row["front"]]
    lines = ["On the front: " + (", ".join(f"`{name}`" for name in names) or "none") + "."]
    ours = next((row for row in compared if row["model"] == DEFAULT), None)
    if ours is None or ours["unlearning_ratio"]["value"] is None:
        return lines[0]
    rate, junk = 100 * ours["unlearning_ratio"]["value"], 100 * ours["junk"]
    nll, standard = (row["nll"]["retain"]["bits_per_dim"] for row in (ours, parent))
    near = nll is not None and standard is not None
    asked = [
        ("no other beats it", bool(ours["front"]), ours["status"]),
        ("UR of at most 0.3 %", rate <= 0.3, share(ours)),
        ("junk of at most 0.5 %", junk <= 0.5, f"{junk:.2f}"),
        (
            "retained NLL within 0.10 bits/dim of the model that it started from",
            near and abs(nll - standard) <= 0.1,
            f"{nll - standard:+.3f}" if near else "not measured",
        ),
    ]
    rows = [[what, "yes" if holds else "**no**", evidence] for what, holds, evidence in asked]
    return lines[0] + "\n\n" + table([f"asked of the default, `{DEFAULT}`", "holds", "measured"], rows)


def made_by(results: dict[str, Any]) -> str:
    budget, evaluation = results["budget"], results["budget"]["evaluation"]
    runs = [run for row in results["rows"] for run in row.get("runs", [row])]
    minutes = sum((run["seconds"] or 0) + run.get("evaluation_seconds", 0) for run in runs) / 60
    return (
        f"`{results['command']}`, commit `{str(results['commit'])[:7]}`: {budget['steps']} steps of "
        f"{budget['images_per_step']} images on average, {len(budget['seeds'])} seeds; of each run {evaluation['n']} "
        f"samples and the likelihoods of {evaluation['nll_images']} test images of each set; {minutes:.0f} minutes of "
        "the processes' time in all. This package's own experiment on a small model, not the paper's."
    )


def blocks(results: dict[str, Any]) -> dict[str, str]:
    return {"made-by": made_by(results), "table": measured(results), "front": front(results)}


def main() -> int:
    page, stored = ROOT / "docs/sweep.md", ROOT / "docs/results/sweep.json"
    check = "--check" in sys.argv
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        stored.write_text((folder / "results.json").read_text())
    results = json.loads(stored.read_text())
    if not check:
        parent, *compared = map(Row.from_dict, results["rows"])
        with TemporaryDirectory() as scratch:
            write_figure(pareto_figure(compared, parent), Path(scratch) / "pareto")
            picture(Path(scratch) / "pareto.png", "sweep.png")
    return fill(page, blocks(results), check=check, template=PAGE)


if __name__ == "__main__":
    raise SystemExit(main())
