"""Write the blocks of docs/results/cifar10.md: python scripts/make_tables.py runs/cifar10.

The folder's results.json becomes docs/results/cifar10-vp-gpu.json and its samples docs/images/results/cifar10-*.png.
Without a folder the page is made again from these files, and with --check nothing is written: the exit status says
whether it is up to date.
"""

import json
import shutil
import sys
from pathlib import Path

from blocks import ROOT, fill, picture, table

from msgm.experiments.paper.budgets import BUDGETS
from msgm.experiments.paper.claims import agreements, claims, findings
from msgm.experiments.paper.pieces import Aim
from msgm.experiments.paper.report import Results, name_of, sheets
from msgm.report.tables import Sheet

STORED, PAGE = ROOT / "docs/results/cifar10-vp-gpu.json", ROOT / "docs/results/cifar10.md"
IMAGES = ROOT / "docs/images/results"


def markdown(sheet: Sheet) -> str:
    return f"### {sheet.title}\n\n{table(sheet.headings, sheet.rows)}\n\n{sheet.legend}"


def made_by(results: Results) -> str:
    budget, audit, device = results["budget"], results["budget"]["audit"], results["device"]
    drawn = " and ".join(f"{d['n']:,} by {d['sampler']} in {d['steps']} steps" for d in audit["draws"])
    told = []
    for name, kind in budget["kinds"].items():
        rows = [row for row in results["rows"] if row["process"] == name]
        steps = {row["method"]: row["made"]["settings"]["steps"] for row in rows if row["origin"] == "scratch"}
        tuned = next((row["made"]["settings"] for row in rows if row["origin"] == "tuned"), None)
        if "standard" not in steps:
            told.append(f"{name.upper()}: not run yet")
            continue
        told.append(
            f"{name.upper()}: {steps['standard']:,} steps at batch {kind['train']['batch']} "
            f"({steps['standard'] * kind['train']['batch'] / 1e6:.1f} M images)"
            + (f", fine-tuned for {tuned['steps']:,} at {tuned['batch']} of each set" if tuned else "")
        )
    seeds = sorted({row["seed"] for row in results["rows"]})
    return (
        f"`{results['command']}`, commit `{results['commit'][:7]}`, {results['date']}, one {device['device']}, "
        f"{device['precision']}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}. Network "
        f"{budget['network']} ({results['speed']['parameters'] / 1e6:.1f} M parameters), "
        f"{budget['image_size']}x{budget['image_size']}. {'; '.join(told)}. Samples of each model: {drawn}; "
        f"likelihoods of {audit['nll_images']} test images of each set in {audit['nll_steps']} steps and float32, "
        f"{audit['nll_check']} of them again with twice the steps."
    )


def limits(results: Results) -> str:
    paper = BUDGETS["paper"]["cifar10"].kinds["vp"]
    tuned = next(row["made"]["settings"] for row in results["rows"] if row["origin"] == "tuned")
    standard = next(row["made"]["settings"] for row in results["rows"] if row["method"] == "standard")
    return (
        f"**This is not the paper's run.** {standard['steps'] * standard['batch'] / 1e6:.1f} M images in training (the "
        f"paper budget has {paper.train.steps * paper.train.batch / 1e6:.0f} M) and {tuned['steps']} steps of "
        f"fine-tuning ({paper.tune.steps:,}), a network of {results['speed']['parameters'] / 1e6:.1f} M parameters, "
        "one seed, images that were JPEG files, a judge and a Fréchet distance of our own. So what is compared is the "
        "order of the methods, not their numbers."
    )


def verdicts(results: Results) -> str:
    rows = [(c.claim, c.verdict, c.evidence) for c in claims(results)]
    return table(("the paper says", "here", "measured (95 % intervals)"), rows)


def bullets(lines: list[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def pictures(results: Results) -> str:
    lines = []
    for row in results["rows"]:
        name = picture_name(row)
        if (IMAGES / name).exists():
            how = " from scratch" if row["origin"] == "scratch" and row["method"] != "standard" else ""
            title = f"{row['process'].upper()}, {name_of(row['method'])}{how}"
            lines.append(f"**{title}**\n\n![Samples: {title}](../images/results/{name})")
    return "\n\n".join(lines)


def picture_name(row: dict) -> str:
    return f"cifar10-{row['process']}-{row['origin']}-{row['method']}.png"


def main() -> int:
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        shutil.copy(folder / "results.json", STORED)
        IMAGES.mkdir(exist_ok=True)
        for row in json.loads(STORED.read_text())["rows"]:
            if row["seed"] == 0:
                aim = Aim(**{key: row[key] for key in ("process", "origin", "method", "seed")})
                picture(folder / aim.key / "samples.png", f"results/{picture_name(row)}", colours=256)
    results = json.loads(STORED.read_text())
    made = {
        "findings": bullets(findings(results)),
        "agreements": bullets(agreements(results)),
        "claims": verdicts(results),
        "limits": limits(results),
        "made-by": made_by(results),
        "tables": "\n\n".join(markdown(sheet) for sheet in sheets(results)),
        "pictures": pictures(results),
    }
    return fill(PAGE, made, check="--check" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
