"""Fill the table of judges in docs/judges.md: python scripts/make_judges.py celeba-bangs=runs/bangs-64/config.json ...

What each config.json says of the judge's data, settings and errors goes into docs/judges.json, by the name
before the =. Without a file the page is made again from it, and with --check nothing is written: the exit status says
whether the page is up to date.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from blocks import ROOT, fill, table

STORED = ROOT / "docs/judges.json"
KEPT = ("confusion", "settings", "versions", "command")


def told(config: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a judge."""
    record = config["record"]
    images = {part: record["data"][part]["images"] for part in ("train", "test")}
    kept = {key: record[key] for key in KEPT if key in record}
    return {"column": config["column"], "shape": config["shape"], "images": images, **kept}


def row(name: str, judge: dict[str, Any]) -> list[str]:
    """One judge: how it was trained and how often it errs on test images."""
    real = torch.tensor(judge["confusion"])[:-1].double()
    right = real.diagonal() / real.sum(1)
    settings, side = judge["settings"], judge["shape"][1]
    how = [f"{settings['epochs']} epochs", f"junk {settings['junk_share']:g}"]
    how += ["balanced"] if settings.get("balance") else []
    return [
        name, f"`{judge['column']}`", f"{side}x{side}", f"{judge['images']['train']:,}", ", ".join(how),
        f"{judge['images']['test']:,}", f"{100 * real.diagonal().sum() / real.sum():.1f}", f"{100 * right.mean():.1f}",
        f"{100 * right.min():.1f}", f"{100 * real[:, -1].sum() / real.sum():.1f}",
    ]  # fmt: skip


def main() -> int:
    check = "--check" in sys.argv
    judges = json.loads(STORED.read_text()) if STORED.exists() else {}
    for word in sys.argv[1:]:
        if word != "--check":
            name, path = word.split("=", 1)
            judges[name] = told(json.loads(Path(path).read_text()))
            STORED.write_text(json.dumps(judges, indent=1) + "\n")
    headings = [
        "judge of", "column", "images", "trained on", "how", "tested on", "right %", "classes alike %", "worst class %",
        "called junk %",
    ]  # fmt: skip
    rows = [row(name, judge) for name, judge in judges.items()]
    return fill(ROOT / "docs/judges.md", {"judges": table(headings, rows)}, check=check)


if __name__ == "__main__":
    raise SystemExit(main())
