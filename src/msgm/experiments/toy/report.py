"""From the runs of the toy to rows with intervals over seeds, tables, and claims that hold or do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ...report.tables import Sheet
from ..core.seeds import mean
from .measure import bound
from .runs import Run
from .setup import OBJECTIVES, TOYS, Setting

Measured = Mapping[str, Any]
Cell = Callable[[Measured], str]

INTERVAL = "[95 % interval over seeds]"
MODES = {"retrain": "re-trained", "fine-tune": "fine-tuned"}


def in_papers_unit(nats: float) -> float:
    """Table 1's unit: nats / (2 ln 2) + 8."""
    return nats / (2 * math.log(2)) + 8


def rows_of(runs: Sequence[tuple[Run, Measured]], exact: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """A row for each setting and mode, over its seeds, with the exact optimum of the setting beside it."""
    groups: dict[tuple[Setting, str], list[tuple[Run, Measured]]] = {}
    for run, found in runs:
        groups.setdefault((run.setting, run.mode), []).append((run, found))
    return [_row(setting, mode, group, exact.get(setting.key)) for (setting, mode), group in groups.items()]


def _row(setting: Setting, mode: str, group: Sequence[tuple[Run, Measured]], exact: Measured | None) -> dict[str, Any]:
    title, method = OBJECTIVES[setting.objective][0], setting.method
    found = [each for _, each in group]
    weights = {"alpha": setting.alpha, "every": setting.every, "separate": setting.separate}
    nll = {name: _nll([each["nll"][name] for each in found]) for name in ("retain", "forget", "outside")}
    row: dict[str, Any] = {
        "model": f"{title}, {MODES[mode]}",
        "method": method.name,
        "toy": setting.toy,
        "objective": setting.objective,
        "mode": mode,
        "studies": list(group[0][0].studies),
        **(weights if method.forget is not None else dict.fromkeys(weights)),
        "seeds": len(group),
        "diverged": [each["status"]["step"] for each in found if each["status"]["kind"] == "diverged"],
        "nll": nll,
        **{kind: _samples([each[kind] for each in found]) for kind in ("ode", "sde")},
        "seconds": fmean(each["seconds"] for each in found),
        "optimum": exact and _optimum(exact, [run.seed for run, _ in group]),
    }
    row["inside"] = _inside(row) if exact else None
    row["gap"] = _gap(row) if exact else None
    row["bound"] = bound(TOYS[setting.toy], nll["retain"]["nats"]) if nll["retain"]["nats"] is not None else None
    return row


def over_seeds(values: Iterable[float | None]) -> dict[str, float | None]:
    """Mean of one number for each seed with Student's 95 % interval; nothing if any of them is no number.

    Seeds differ in everything drawn: training points, test points, weights, noise. One seed has no interval.
    """
    known = list(values)
    numbers = [value for value in known if value is not None]
    if len(numbers) < len(known):
        return {"value": None, "low": None, "high": None}
    found = mean(numbers)
    ends = {"low": found.low, "high": found.high} if len(numbers) > 1 else {"low": None, "high": None}
    return {"value": found.value, **ends}


def _nll(found: Sequence[Measured]) -> dict[str, Any]:
    """Over the seeds; values that fail their step-doubling check for any of them are not reported, but counted."""
    failed = sum(not each["reliable"] for each in found)
    nats = [None if failed else each["nats"] for each in found]
    whole = over_seeds(nats)
    return {
        "nats": whole["value"],
        "low": whole["low"],
        "high": whole["high"],
        "by_seed": nats,
        **{key: over_seeds(None if failed else each[key] for each in found)["value"] for key in ("median", "stderr")},
        "maximum": None if failed else max(each["maximum"] for each in found),
        "doubling": None if failed else max((each["doubling"] for each in found), key=abs),
        "failed_doubling": failed,
    }


def _samples(found: Sequence[Measured]) -> dict[str, Any]:
    return {key: over_seeds(each[key] for each in found) for key in ("share", "outliers", "distance")}


def _optimum(exact: Measured, seeds: Sequence[int]) -> dict[str, Any]:
    """What the exact optimum gives on the test points of these seeds."""
    nll = {}
    for name, found in exact["nll"].items():
        nats = [found["by_seed"][seed] for seed in seeds] if found["reliable"] else [None]
        nll[name] = {"nats": over_seeds(nats)["value"], "by_seed": nats, "reliable": found["reliable"]}
    return {"nll": nll, "ode": exact["ode"], "sde": exact["sde"]}


def _gap(row: Measured) -> dict[str, Any]:
    """Trained minus optimum on the same points, so that what the points add to both is left out; over the seeds."""
    found = {}
    for name in ("retain", "forget"):
        ours, exact = row["nll"][name]["by_seed"], row["optimum"]["nll"][name]["by_seed"]
        known = None not in ours and None not in exact
        found[name] = over_seeds([a - b for a, b in zip(ours, exact, strict=True)] if known else [None])
    return found


def _inside(row: Measured) -> dict[str, bool | None]:
    """Whether the optimum's value lies in the interval over the seeds; None where one is not known."""
    exact = row["optimum"]
    pairs = {f"nll.{name}": (row["nll"][name], exact["nll"][name]["nats"]) for name in ("retain", "forget")}
    pairs |= {f"{kind}.share": (row[kind]["share"], exact[kind]["share"]) for kind in ("ode", "sde")}
    return {
        name: None if value is None or seeds["low"] is None else seeds["low"] <= value <= seeds["high"]
        for name, (seeds, value) in pairs.items()
    }


# Tables.


def sheets(results: Measured) -> list[Sheet]:
    """All tables: for each toy likelihoods, their spread, samples; the studies; the claims."""
    found = []
    for toy in TOYS:
        main = _rows(results, toy, "main")
        found += [_table(f"{title}, {toy} modes", columns, main, note) for title, columns, note in _MAIN]
        for study, note in (("alpha", "Fine-tuned."), ("schedule", "Fine-tuned, alpha = 0.7.")):
            title = "How much alpha matters" if study == "alpha" else "When the forget loss takes part"
            found.append(_table(f"{title}, {toy} modes", _STUDY, _rows(results, toy, study), note))
    return found


def _rows(results: Measured, toy: str, study: str) -> list[Measured]:
    rows = [row for row in results["rows"] if row["toy"] == toy and study in row["studies"]]
    if study == "main":
        return rows
    tuned = [row for row in rows if row["mode"] == "fine-tune"]
    return sorted(tuned, key=lambda r: (list(OBJECTIVES).index(r["objective"]), r["alpha"], r["every"], r["separate"]))


def _table(title: str, columns: Mapping[str, Cell], rows: Sequence[Measured], note: str) -> Sheet:
    cells = [tuple(cell(row) for cell in columns.values()) for row in rows]
    return Sheet(title=title, headings=tuple(columns), rows=cells, legend=note)


def number(value: float | None, digits: int = 2) -> str:
    """A dash for what is not known; minus signs as they are set."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval(found: Measured, key: str = "value", scale: float = 1.0, digits: int = 2) -> str:
    """``mean [low, high]``."""
    if found[key] is None:
        return f"fails its check ({found['failed_doubling']})" if "failed_doubling" in found else "–"
    if found["low"] is None:
        return number(scale * found[key], digits)
    value, low, high = (number(scale * found[k], digits) for k in (key, "low", "high"))
    return f"{value} [{low}, {high}]"


def _name(row: Measured) -> str:
    stopped = f"; stopped in {len(row['diverged'])} of {row['seeds']}" if row["diverged"] else ""
    return f"{row['model']}{stopped}"


def _weights(row: Measured) -> str:
    schedule = "every step" if row["every"] == 1 else f"every {row['every']}th step"
    return f"{row['alpha']:g}, {schedule}{', optimiser of its own' if row['separate'] else ''}"


def _optimal(name: str) -> Cell:
    return lambda row: "–" if row["optimum"] is None else number(row["optimum"]["nll"][name]["nats"])


def _gap_cell(name: str) -> Cell:
    return lambda row: "–" if row["gap"] is None else interval(row["gap"][name], digits=3)


def _optimal_share(kind: str) -> Cell:
    return lambda row: "–" if row["optimum"] is None else number(100 * row["optimum"][kind]["share"], 1)


def _distance(samples: Measured) -> str:
    """A few samples that flew away decide it, once it is large."""
    value = samples["distance"]["value"]
    return "over 100" if value is not None and value > 100 else number(value)


def _unit(name: str) -> Cell:
    def cell(row: Measured) -> str:
        nats = row["nll"][name]["nats"]
        return "–" if nats is None else number(in_papers_unit(nats))

    return cell


_CHECKED = (
    "A likelihood whose step-doubling check fails for any seed is not reported; in brackets, for how many it did."
)
_MAIN: list[tuple[str, dict[str, Cell], str]] = [
    (
        "Likelihoods",
        {
            "Objective": _name,
            f"D_g, nats {INTERVAL}": lambda row: interval(row["nll"]["retain"], "nats"),
            "optimum": _optimal("retain"),
            "D_f, nats": lambda row: interval(row["nll"]["forget"], "nats"),
            "optimum ": _optimal("forget"),
            "D_g outside the zone": lambda row: interval(row["nll"]["outside"], "nats"),
            "D_g, paper's unit": _unit("retain"),
            "D_f, paper's unit": _unit("forget"),
        },
        f"Mean negative log-likelihoods of test points. {_CHECKED}",
    ),
    (
        "Samples",
        {
            "Objective": _name,
            f"ODE, % {INTERVAL}": lambda row: interval(row["ode"]["share"], scale=100, digits=1),
            "optimum": _optimal_share("ode"),
            "SDE, %": lambda row: interval(row["sde"]["share"], scale=100, digits=1),
            "optimum ": _optimal_share("sde"),
            "outliers, %: ODE": lambda row: number(100 * row["ode"]["outliers"]["value"], 1),
            "SDE": lambda row: number(100 * row["sde"]["outliers"]["value"], 1),
            "distance to p_g: ODE": lambda row: _distance(row["ode"]),
            "SDE ": lambda row: _distance(row["sde"]),
        },
        "Share of samples nearest the forgotten mode; outliers elsewhere; sliced Wasserstein distance.",
    ),
    (
        "Spread of the likelihoods and gaps to the optimum",
        {
            "Objective": _name,
            "D_g: median": lambda row: number(row["nll"]["retain"]["median"]),
            "maximum": lambda row: number(row["nll"]["retain"]["maximum"], 1),
            "D_f: median": lambda row: number(row["nll"]["forget"]["median"]),
            "maximum ": lambda row: number(row["nll"]["forget"]["maximum"], 1),
            "doubling: D_g": lambda row: number(row["nll"]["retain"]["doubling"], 3),
            "D_f": lambda row: number(row["nll"]["forget"]["doubling"], 3),
            f"gap to the optimum: D_g {INTERVAL}": _gap_cell("retain"),
            "D_f ": _gap_cell("forget"),
        },
        "Nats. Maximum over points and seeds; doubling: the largest change of any seed's mean on doubling the steps; "
        "gap: trained minus optimum on the same points.",
    ),
]
_STUDY: dict[str, Cell] = {
    "Objective": lambda row: (
        OBJECTIVES[row["objective"]][0]
        + (f"; stopped in {len(row['diverged'])} of {row['seeds']}" if row["diverged"] else "")
    ),
    "alpha, forget loss": _weights,
    f"D_g, nats {INTERVAL}": lambda row: interval(row["nll"]["retain"], "nats"),
    "optimum": _optimal("retain"),
    "D_f, nats": lambda row: interval(row["nll"]["forget"], "nats"),
    "optimum ": _optimal("forget"),
    "share by ODE, %": lambda row: interval(row["ode"]["share"], scale=100, digits=1),
    "optimum  ": _optimal_share("ode"),
    "outliers, %": lambda row: number(100 * row["ode"]["outliers"]["value"], 1),
}
