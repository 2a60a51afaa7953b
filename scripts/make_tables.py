"""Write pages of docs/results: python scripts/make_tables.py runs/table7.

The folder's results.json becomes docs/results/NAME.json, its pictures docs/images/results/NAME-*.png, where the data
may be shown, and the blocks of docs/results/NAME.md are filled; NAME is that of the table, or of the data set where
there are several, and of the budget. Without a folder all pages are made again from these files, and with --check
nothing is written: the exit status says whether they are up to date.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

from blocks import ROOT, fill, picture, table

from msgm.experiments.paper.audit import MARKED, SAMPLES
from msgm.experiments.paper.budgets import BUDGETS
from msgm.experiments.paper.claims import agreements, claims
from msgm.experiments.paper.editing import EDITED
from msgm.experiments.paper.findings import findings
from msgm.experiments.paper.pieces import Aim, edit_key
from msgm.experiments.paper.report import Results, name_of
from msgm.experiments.paper.sheets import sheets
from msgm.experiments.paper.tables import GROUPS, TABLES
from msgm.model.networks import PRESETS
from msgm.report.tables import Sheet

FOLDER, IMAGES = ROOT / "docs/results", ROOT / "docs/images/results"
SKELETON = """# {title}

What is to be forgotten: `{rule}`. A judge that was trained apart from everything else says what is in a sample. Shares
and likelihoods have 95 % intervals; two numbers are told apart only where their intervals do not meet.

<!-- limits:begin -->
<!-- limits:end -->

## What was found

<!-- findings:begin -->
<!-- findings:end -->

## What the paper says

<!-- agreements:begin -->
<!-- agreements:end -->

<!-- claims:begin -->
<!-- claims:end -->

[All claims of the paper](index.md) are on one page.

## How it was made

<!-- made-by:begin -->
<!-- made-by:end -->

The numbers are in [`{name}.json`]({name}.json), and `python scripts/make_tables.py` makes this page from them.

## The tables

<!-- tables:begin -->
<!-- tables:end -->

## Samples

<!-- pictures:begin -->
<!-- pictures:end -->
"""


def name_of_page(results: Results) -> str:
    """The table's, or that of several tables about one data set, and the budget's."""
    names, budget = set(results["tables"]), results["budget"]["network"].split("-")[0]
    of = min(names) if len(names) == 1 else next(key for key, group in GROUPS.items() if names <= set(group))
    return f"{of}-{budget}"


def pages() -> list[str]:
    """Those whose results are here."""
    return sorted(path.stem for path in FOLDER.glob("*.json") if "tables" in json.loads(path.read_text()))


def markdown(sheet: Sheet) -> str:
    return f"### {sheet.title}\n\n{table(sheet.headings, sheet.rows)}\n\n{sheet.legend}"


def parameters(results: Results) -> float:
    """Millions of weights of the network."""
    import torch

    if results["speed"] is not None:
        return results["speed"]["parameters"] / 1e6
    with torch.device("meta"):
        network = PRESETS[results["budget"]["network"]].build(1 if results["request"]["data"] == "mnist" else 3)
    return sum(p.numel() for p in network.parameters()) / 1e6


def made_by(results: Results) -> str:
    budget, audit, device = results["budget"], results["budget"]["audit"], results["device"]
    drawn = " and ".join(f"{d['n']:,} by {d['sampler']} in {d['steps']} steps" for d in audit["draws"])
    told = [steps_of(results, name, kind) for name, kind in budget["kinds"].items()]
    seeds = sorted({row["seed"] for row in results["rows"]})
    return (
        f"`{results['command']}`, commit `{results['commit'][:7]}`, {results['date']}, one "
        f"{'core of a CPU' if device['device'] == 'cpu' else device['device']}, {device['precision']}, "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}. Network {budget['network']} "
        f"({parameters(results):.1f} M parameters), {budget['image_size']}x{budget['image_size']}. {'; '.join(told)}. "
        f"Samples of each model: {drawn}; likelihoods of {audit['nll_images']} test images of each set in "
        f"{audit['nll_steps']} steps and float32, {audit['nll_check']} of them again with twice the steps."
    )


def steps_of(results: Results, process: str, kind: dict) -> str:
    """How the models of one process were made."""
    rows = [row for row in results["rows"] if row["process"] == process]
    standard = next((row["made"]["settings"] for row in rows if row["method"] == "standard"), None)
    if standard is None:
        return f"{process.upper()}: not run yet"
    tuned = next((row["made"]["settings"] for row in rows if row["origin"] == "tuned"), None)
    return (
        f"{process.upper()}: {standard['steps']:,} steps at batch {kind['train']['batch']} "
        f"({standard['steps'] * kind['train']['batch'] / 1e6:{'.1f' if standard['steps'] > 5000 else '.2f'}} M images)"
        + (f", fine-tuned for {tuned['steps']:,} at {tuned['batch']} of each set" if tuned else "")
    )


def limits(results: Results) -> str:
    rows = results["rows"]
    most = max(Counter((row["process"], row["origin"], row["method"]) for row in rows).values())
    standard = next(row for row in rows if row["method"] == "standard")
    paper = BUDGETS["paper"][results["request"]["data"]].kinds[standard["process"]]
    tuned = next((row["made"]["settings"] for row in rows if row["origin"] == "tuned"), None)
    own, network = standard["made"]["settings"], f"a network of {parameters(results):.1f} M parameters"
    images = own["steps"] * own["batch"] / 1e6
    told = [
        f"{images:.{1 if images > 1 else 2}f} M images in training (the paper budget has "
        f"{paper.train.steps * paper.train.batch / 1e6:.0f} M)"
        + (f" and {tuned['steps']} steps of fine-tuning ({paper.tune.steps:,})" if tuned else ""),
        network,
        "one seed" if most == 1 else f"{most} seeds of each fine-tuning",
        *(["images that were JPEG files"] if results["request"]["data"] != "mnist" else []),
        "a judge and a Fréchet distance of our own",
    ]
    return (
        f"**This is not the paper's run.** {', '.join(told)}. So what is compared is the order of the methods, not "
        "their numbers."
    )


def verdicts(results: Results) -> str:
    found = claims(results)
    rows = [(c.claim, c.verdict, c.evidence) for c in found if c.verdict != "not run yet"]
    left = len(found) - len(rows)
    more = f"\n\nOf {left} more claims the models were not run yet." if left else ""
    return table(("the paper says", "here", "measured (95 % intervals)"), rows) + more


def bullets(lines: list[str]) -> str:
    return "\n".join(f"* {line}" for line in lines) or "The paper prints no numbers here."


def pictures(results: Results) -> str:
    lines, what = (
        [],
        {
            "samples": "Samples",
            "flagged": "Flagged samples, each before the nearest training images",
            "inpaint": "Test images, half hidden, and filled in (Figure 5)",
            "reconstruct": "Test images, and rebuilt from their latents (Figure 6)",
        },
    )
    for row in results["rows"]:
        how = " from scratch" if row["origin"] == "scratch" and row["method"] != "standard" else ""
        title = f"{row['process'].upper()}, {name_of(row['method'])}{how}"
        for kind, text in what.items():
            name = picture_name(results, row, kind)
            if row["seed"] == 0 and (IMAGES / name).exists():
                lines.append(f"**{title}**\n\n![{text}: {title}](../images/results/{name})")
    return "\n\n".join(lines) or "No picture of these data may be shown."


def picture_name(results: Results, row: dict, kind: str) -> str:
    own = f"{name_of_page(results)}-{row['process']}-{row['origin']}-{row['method'].replace(' ', '-')}"
    return f"{own}.png" if kind == "samples" else f"{own}-{kind}.png"


def store(folder: Path) -> None:
    """Put a run's results and pictures where the pages find them."""
    results = json.loads((folder / "results.json").read_text())
    name = name_of_page(results)
    shutil.copy(folder / "results.json", FOLDER / f"{name}.json")
    page = FOLDER / f"{name}.md"
    if not page.exists():
        of, _, budget = name.rpartition("-")
        title = TABLES[of].title if of in TABLES else f"{results['request']['data']}: tables of the paper"
        page.write_text(SKELETON.format(title=f"{title}, {budget}", rule=results["request"]["rule"], name=name))
    if not results["request"].get("pictures", True):
        return
    IMAGES.mkdir(exist_ok=True)
    for row in [row for row in results["rows"] if row["seed"] == 0]:
        aim = Aim(**{key: row[key] for key in ("process", "origin", "method", "seed")})
        places = {"samples": folder / aim.key / SAMPLES}
        if row["method"] == "unseen":
            places["flagged"] = folder / aim.key / MARKED
        places |= {edit: folder / edit_key(aim, edit) / EDITED for edit in row.get("edits", {})}
        for kind, place in places.items():
            if place.exists():
                colours = 64 if results["request"]["data"] == "mnist" else 256
                picture(place, f"results/{picture_name(results, row, kind)}", colours=colours)


def made(results: Results) -> dict[str, str]:
    return {
        "findings": bullets(findings(results)),
        "agreements": bullets(agreements(results)),
        "claims": verdicts(results),
        "limits": limits(results),
        "made-by": made_by(results),
        "tables": "\n\n".join(markdown(sheet) for sheet in sheets(results)),
        "pictures": pictures(results),
    }


def main() -> int:
    check = "--check" in sys.argv
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        store(folder)
    status = 0
    for name in pages():
        results = json.loads((FOLDER / f"{name}.json").read_text())
        status |= fill(FOLDER / f"{name}.md", made(results), check=check)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
