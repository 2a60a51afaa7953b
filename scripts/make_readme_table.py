"""Write the results table of README.md from docs/results/demo.json: python scripts/make_readme_table.py [--check]."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def number(measured: dict[str, float | None], digits: int = 2) -> str:
    if measured["bits_per_dim"] is None:
        return "not reported: fails its step-doubling check"
    return f"{measured['bits_per_dim']:.{digits}f} ± {measured['stderr']:.{digits}f}"


def table(results: dict) -> str:
    lines = [
        "| model | UR of {3, 7}, % [95 %] | junk % | retained % | NLL retained, bits/dim | NLL forgotten | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        rate = row["unlearning_ratio"]
        share = f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
        cells = [
            f"{row['model']} ({row['method']})",
            share,
            f"{100 * row['junk']:.1f}",
            f"{100 * row['retained']:.1f}",
            number(row["nll"]["retain"]),
            number(row["nll"]["forget"]),
            f"{row['seconds']:.0f}" if row["seconds"] else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    unlearning, evaluation = results["budget"]["unlearning"], results["budget"]["evaluation"]
    lines.append(
        f"\n`{results['command']}`, seed {results['seed']}, commit `{str(results['commit'])[:7]}`, "
        f"{results['budget']['size']} budget: {unlearning['steps']} fine-tuning steps of batch {unlearning['batch']}, "
        f"{evaluation['n']} samples, {evaluation['nll_images']} test images a set. "
        "This package's own experiment, not the paper's."
    )
    return "\n".join(lines)


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = f"{before}{BEGIN}\n{table(json.loads((ROOT / 'docs/results/demo.json').read_text()))}\n{END}{after}"
    if "--check" in sys.argv:
        return int(made != text)
    readme.write_text(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
