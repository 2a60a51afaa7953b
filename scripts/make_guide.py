"""Fill the tables of docs/guide.md from the code: python scripts/make_guide.py.

With --check nothing is written: the exit status says whether the page is up to date.
"""

import re
import sys

from blocks import ROOT, fill, table

from msgm.cli.signature import takes
from msgm.model.networks import MLP
from msgm.model.score import ScoreModel
from msgm.process.sde import VESDE
from msgm.sampling import SAMPLERS, build
from msgm.sampling.filters import FILTERS

WHAT = {"forget": "--forget RULE", "guide": "--guide JUDGE", "against": "--against MODEL"}


def told(thing: object) -> str:
    """The first line of what is documented of it, as plain text."""
    line = (thing.__doc__ or "").strip().partition("\n")[0]
    return re.sub(r"``(.+?)``", r"`\1`", line).replace("|", "\\|").rstrip(":.,")


def samplers() -> str:
    """What each sampler does, what it costs, and its own options."""
    model, rows = ScoreModel(MLP(dim=2, width=4), VESDE(), shape=(2,)), []
    for name, make in SAMPLERS.items():
        few, more = (build(name, model, steps=steps).nfe for steps in (10, 11))
        each = more - few
        cost = f"{each if each > 1 else ''} N{f' - {10 * each - few}' * (few < 10 * each)}" if few else "as it needs"
        own = build(name, model)
        rows.append([
            f"`{name}`", f"`{type(own).__name__}`", told(type(own)), cost.strip(),
            ", ".join(f"{key} {value}" for key, (_, value) in takes(make).items()),
        ])  # fmt: skip
    return table(("`--sampler`", "Python", "what it does", "NFE", "options and their defaults"), rows)


def filters() -> str:
    """What each filter does, needs and takes."""
    rows = [
        [
            f"`{name}`", told(kind), ", ".join(f"`{WHAT[need]}`" for need in kind.needs),
            ", ".join(f"{key} {'auto' if value is None else value}" for key, (_, value) in takes(kind).items()),
        ]
        for name, kind in FILTERS.items()
    ]  # fmt: skip
    return table(("`--filter`", "what it does", "needs", "options and their defaults"), rows)


if __name__ == "__main__":
    made = {"samplers": samplers(), "filters": filters()}
    raise SystemExit(fill(ROOT / "docs/guide.md", made, check="--check" in sys.argv))
