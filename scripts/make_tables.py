"""Write the blocks of docs/results/cifar10.md: python scripts/make_tables.py runs/cifar10.

The folder's results.json becomes docs/results/cifar10-gpu.json and its samples docs/images/cifar10-*.png. Without a
folder the page is made again from these files, and with --check nothing is written: the exit status says whether it is
up to date.
"""

import json
import shutil
import sys
from pathlib import Path

from blocks import ROOT, fill, table

from msgm.experiments.paper.report import NAMES, Results, claims, sheets
from msgm.report.page import Sheet

STORED, PAGE = ROOT / "docs/results/cifar10-gpu.json", ROOT / "docs/results/cifar10.md"


def markdown(sheet: Sheet) -> str:
    return f"### {sheet.title}\n\n{table(sheet.headings, sheet.rows)}\n\n{sheet.legend}"


def made_by(results: Results) -> str:
    budget, audit = results["budget"], results["budget"]["audit"]
    drawn = " and ".join(f"{d['n']:,} by {d['sampler']} in {d['steps']} steps" for d in audit["draws"])
    told = []
    for name, kind in budget["kinds"].items():
        rows = [row for row in results["rows"] if row["process"] == name]
        steps = {row["method"]: row["made"]["settings"]["steps"] for row in rows if row["origin"] == "scratch"}
        tuned = next((row["made"]["settings"] for row in rows if row["origin"] == "tuned"), None)
        if "standard" in steps:
            told.append(
                f"{name.upper()}: {steps['standard']:,} steps at batch {kind['train']['batch']} "
                f"({steps['standard'] * kind['train']['batch'] / 1e6:.1f} M images)"
                + (f", fine-tuned for {tuned['steps']:,} at {tuned['batch']} of each set" if tuned else "")
            )
    return (
        f"`{results['command']}`, commit `{str(results['commit'])[:7]}`, {results['date']}, one "
        f"{results['device']['device']}, {results['device']['precision']}. Network {budget['network']} "
        f"({results['speed']['parameters'] / 1e6:.1f} M parameters). {'; '.join(told)}. Samples of each model: "
        f"{drawn}; likelihoods of {audit['nll_images']} test images of each set in float32, {audit['nll_check']} of "
        f"them again with twice the steps."
    )


def verdicts(results: Results) -> str:
    rows = [(c.claim, c.verdict, c.evidence) for c in claims(results)]
    return table(("the paper says", "here", "measured (95 % intervals)"), rows)


def speed(results: Results) -> str:
    found = results["speed"]
    rows = [
        ("training, images a second", f"{found['images_per_second']:,.0f}"),
        ("training, share of the matrix peak", f"{found['training_share_of_peak']:.1%}"),
        ("matrix peak, TFLOP/s", f"{found['peak_flops'] / 1e12:.0f}"),
        *((f"samples a second, {name}", f"{rate:,.0f}") for name, rate in found["samples_per_second"].items()),
        ("likelihoods a second", f"{found['likelihoods_per_second']:,.1f}"),
        *((f"steps a second, {name}", f"{rate:.1f}") for name, rate in found["steps_per_second"].items()),
    ]
    return table(("what", "measured"), rows)


def pictures(results: Results) -> str:
    lines = []
    for row in results["rows"]:
        name = picture_name(row)
        if (ROOT / "docs/images" / name).exists():
            how = " from scratch" if row["origin"] == "scratch" and row["method"] != "standard" else ""
            title = f"{row['process'].upper()}, {NAMES.get(row['method'], row['method'])}{how}"
            lines.append(f"**{title}**\n\n![Samples: {title}](../images/{name})")
    return "\n\n".join(lines)


def picture_name(row: dict) -> str:
    return f"cifar10-{row['process']}-{row['origin']}-{row['method']}.png"


def main() -> int:
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        shutil.copy(folder / "results.json", STORED)
        for row in json.loads(STORED.read_text())["rows"]:
            one = f"{row['process']}/{row['origin']}/{row['method']}/seed-{row['seed']}/audit/samples.png"
            place = folder / (one if row["method"] != "standard" else f"{row['process']}/standard/audit/samples.png")
            if row["seed"] == 0:
                shutil.copy(place, ROOT / "docs/images" / picture_name(row))
    results = json.loads(STORED.read_text())
    made = {
        "made-by": made_by(results),
        "claims": verdicts(results),
        "tables": "\n\n".join(markdown(sheet) for sheet in sheets(results)),
        "speed": speed(results),
        "pictures": pictures(results),
    }
    return fill(PAGE, made, check="--check" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
