"""Write README.md's tables and picture: python scripts/make_readme.py runs/demo, a finished demo.

The demo's results.json becomes docs/results/demo.json; without a folder, the tables are made again from that file and
from the commands there are, and with --check nothing is written: the exit status says whether README.md is up to date.
"""

import json
import sys
from pathlib import Path

from blocks import ROOT, fill, table

from msgm.cli.main import COMMANDS
from msgm.metrics import quantities
from msgm.report.results import Result, Results
from msgm.report.tables import judged_sheets


def number(measured: dict[str, float | None], digits: int = 2) -> str:
    if measured["bits_per_dim"] is None:
        return "not reported: fails its step-doubling check"
    return f"{measured['bits_per_dim']:.{digits}f} ± {measured['stderr']:.{digits}f}"


def models(results: dict) -> str:
    heads = (
        "model", "UR of {3, 7}, % [95 %]", "junk %", "kept shares, TV %", "NLL retained, bits/dim", "NLL forgotten",
        "seconds",
    )  # fmt: skip
    rows = []
    for row in results["rows"]:
        rate = row["unlearning_ratio"]
        share = f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
        cells = [
            row["model"] + ("" if row["model"].lower() == row["method"] else f" ({row['method']})"),
            share,
            f"{100 * row['junk']:.1f}",
            bent.number() if (bent := Result.from_dict(row).get(quantities.BENT)) else "–",
            number(row["nll"]["retain"]),
            number(row["nll"]["forget"]),
            f"{row['seconds']:.0f}" if row["seconds"] else "–",
        ]
        rows.append(cells)
    unlearning, evaluation = results["budget"]["unlearning"], results["budget"]["evaluation"]
    return (
        f"{table(heads, rows)}\n\nMade by `{results['command']}`, seed {results['seed']}, "
        f"commit `{str(results['commit'])[:7]}`:\n"
        f"{unlearning['steps']} fine-tuning steps of batch {unlearning['batch']}, "
        f"{evaluation['n']} samples, {evaluation['nll_images']} test images of each set.\n"
        "This is the package's own experiment, not the paper's."
    )


def shares(results: dict) -> str:
    """What the judge took the samples for, class by class."""
    (sheet,) = judged_sheets(Results.from_dict(results))
    return table(("samples, % of", *sheet.headings[2:]), [(row[0], *row[2:]) for row in sheet.rows])


def commands() -> str:
    """Every command and what it does."""
    return table(("command", "what it does"), [(f"`msgm {name}`", what) for name, what in COMMANDS.items()])


def picture(demo: Path, names: list[str]) -> None:
    """The first samples of each model, side by side: the same noise in the same place."""
    from PIL import Image, ImageDraw

    side, scale, gap = 6, 2, 12
    tile = 28 * scale
    sheet = Image.new("L", (len(names) * (side * tile + gap) - gap, side * tile + 24), 255)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        left = column * (side * tile + gap)
        draw.text((left, 4), name, fill=0, font_size=15)
        for k in range(side * side):
            digit = Image.open(demo / "samples" / name.lower() / f"{k:05}.png").resize(
                (tile, tile), Image.Resampling.NEAREST
            )
            sheet.paste(digit, (left + k % side * tile, 24 + k // side * tile))
    sheet.save(ROOT / "docs/images/demo.png", optimize=True)


def main() -> int:
    readme, stored = ROOT / "README.md", ROOT / "docs/results/demo.json"
    folders = [Path(word) for word in sys.argv[1:] if word != "--check"]
    for demo in folders:
        stored.write_text((demo / "results.json").read_text())
        picture(demo, [row["model"] for row in json.loads(stored.read_text())["rows"]])
    return fill(
        readme,
        {
            "results": models(results := json.loads(stored.read_text())),
            "shares": shares(results),
            "commands": commands(),
        },
        check="--check" in sys.argv,
    )


if __name__ == "__main__":
    raise SystemExit(main())
