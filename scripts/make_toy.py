"""Write the tables of docs/toy.md from a finished toy experiment: python scripts/make_toy.py runs/toy.

Its results.json becomes docs/results/toy.json and its pictures docs/images/toy-*.png. Without a folder the tables are
made again from that file, and with --check nothing is written: the exit status says whether docs/toy.md is up to date.
"""

import json
import sys
from pathlib import Path

from blocks import ROOT, fill, picture, table

from msgm.evaluation.report import Sheet
from msgm.experiments.toy.report import in_papers_unit, sheets


def markdown(sheet: Sheet) -> str:
    return f"### {sheet.title}\n\n{table(sheet.headings, sheet.rows)}\n\n{sheet.legend}"


def claims(results: dict) -> str:
    rows = [(c["claim"], "yes" if c["holds"] else "**no**", c["evidence"]) for c in results["claims"]]
    return table(("claim", "holds", "measured"), rows)


def exact(results: dict) -> str:
    """What p_data and p_g give on the test points, in closed form."""
    rows = []
    for name, toy in results["toys"].items():
        for density, nll in toy["nll"].items():
            numbers = [nll["retain"], nll["forget"], *(in_papers_unit(nll[k]) for k in ("retain", "forget"))]
            rows.append((f"{density}, {name}", *(f"{v:.2f}" for v in numbers)))
    shares = ", ".join(f"{toy['own_share']:.2%} ({name})" for name, toy in results["toys"].items())
    heads = ("", "D_g, nats", "D_f, nats", "D_g, paper's unit", "D_f, paper's unit")
    return f"{table(heads, rows)}\n\nShare of p_g itself nearest the forgotten mode: {shares}."


def made_by(results: dict) -> str:
    budget, minutes = results["budget"], results["cpu_seconds"] / 60
    return (
        f"`{results['command']}`, seed {results['seed']}, commit `{str(results['commit'])[:7]}`: "
        f"{budget['steps']} steps of re-training and {budget['tuning']} of fine-tuning at batch {budget['batch']}, "
        f"{budget['seeds']} seeds ({budget['study_seeds']} in the studies), {budget['test']} test points of each set, "
        f"{budget['samples']} samples of each model by each sampler; {minutes:.0f} minutes of CPU time in all."
    )


def blocks(results: dict) -> dict[str, str]:
    found = {"made-by": made_by(results), "claims": claims(results), "exact": exact(results)}
    for sheet in sheets(results):
        kind, toy = sheet.title.split(", ")
        study = kind.startswith(("How", "When"))
        key = f"{'studies' if study else 'tables'}-{toy.split()[0]}"
        found[key] = "\n\n".join(filter(None, [found.get(key), markdown(sheet)]))
    return found


def main() -> int:
    page, stored = ROOT / "docs/toy.md", ROOT / "docs/results/toy.json"
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        stored.write_text((folder / "results.json").read_text())
        for figure in (folder / "figures").glob("*.png"):
            picture(figure, f"toy-{figure.name}")
    return fill(page, blocks(json.loads(stored.read_text())), check="--check" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
