"""Write the tables of docs/toy.md from finished toy experiments: python scripts/make_toy.py runs/toy runs/toy-fresh.

The results.json of seed 0 becomes docs/results/toy.json and its pictures docs/images/toy-*.png; that of another seed,
which chose nothing, docs/results/toy-fresh.json. Without folders the tables are made again from these files, and with
--check nothing is written: the exit status says whether docs/toy.md is up to date.
"""

import json
import sys
from pathlib import Path

from blocks import ROOT, fill, picture, table

from msgm.experiments.toy.report import in_papers_unit, sheets
from msgm.report.tables import Sheet


def markdown(sheet: Sheet) -> str:
    return f"### {sheet.title}\n\n{table(sheet.headings, sheet.rows)}\n\n{sheet.legend}"


def claims(results: dict, about: str = "") -> str:
    chosen = [c for c in results["claims"] if about in c["claim"]]
    rows = [(c["claim"], "yes" if c["holds"] else "**no**", c["evidence"]) for c in chosen]
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
    stored, other = ROOT / "docs/results/toy.json", ROOT / "docs/results/toy-fresh.json"
    for folder in [Path(word) for word in sys.argv[1:] if word != "--check"]:
        text = (folder / "results.json").read_text()
        first = json.loads(text)["seed"] == 0
        (stored if first else other).write_text(text)
        for figure in (folder / "figures").glob("*.png") if first else ():
            picture(figure, f"toy-{figure.name}")
    results, fresh = (json.loads(path.read_text()) for path in (stored, other))
    found = {**blocks(results), "fresh": f"{made_by(fresh)}\n\n{claims(fresh, about='enclose')}"}
    return fill(ROOT / "docs/toy.md", found, check="--check" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
