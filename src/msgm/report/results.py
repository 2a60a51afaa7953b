"""What results.json holds: for each model its method, how the run ended, and its measured numbers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..metrics import quantities
from ..metrics.measured import Measured, Quantity
from ..metrics.worth import Worth
from ..status import FINISHED, Status, diverged, refused

_NUMBERS = {
    "seconds": quantities.SECONDS,
    "frechet_distance": quantities.FRECHET,
    "evaluation_seconds": quantities.AUDIT_SECONDS,
    "steps": quantities.STEPS,
    "images": quantities.IMAGES,
}
"""Keys of a row that are a number each; what has no key of its own stands in ``measured``."""
_INTERVALS = {
    "junk": quantities.JUNK,
    "retained": quantities.RETAINED,
    "nll_retain": quantities.NLL["retain"],
    "nll_forget": quantities.NLL["forget"],
    "frechet_distance": quantities.FRECHET,
}
_KEYED = {
    each.name
    for each in (
        quantities.UR, quantities.JUNK, quantities.RETAINED, *quantities.NLL.values(), *quantities.DOUBLING.values(),
        *_NUMBERS.values(),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known of one model, or of the mean of several ``runs``.

    Args:
        model: its name.
        method: that made it.
        status: how its run ended; of a mean, that of its runs is asked.
        measured: the numbers, by their names.
        judged: how many samples the judge took for each class, and for junk.
        seed: of the run.
        sampler: by which the samples were drawn.
        options: of the method, where they are not its own defaults.
        front: whether no other row is better in everything; None where that was not asked.
        runs: the results that this is the mean of.
    """

    model: str
    method: str
    status: Status = FINISHED
    measured: Mapping[str, Measured] = field(default_factory=dict)
    judged: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None
    sampler: str = ""
    options: Mapping[str, Any] | None = None
    front: bool | None = None
    runs: Sequence[Result] = ()

    def get(self, quantity: Quantity) -> Measured | None:
        """What was measured of it."""
        return self.measured.get(quantity.name)

    def value(self, quantity: Quantity) -> float | None:
        """Its number, if there is one."""
        found = self.get(quantity)
        return None if found is None else found.value

    @property
    def whole(self) -> bool:
        """Whether everything that can be better or worse was measured, and every run finished."""
        counted = [each.value for each in self.measured.values() if each.better is not None]
        return bool(counted) and None not in counted and not self.troubles

    @property
    def troubles(self) -> list[str]:
        """What went wrong: how the run ended, or what could not be measured; for a mean, in how many of its runs."""
        if not self.runs:
            lost = [m.reason for m in self.measured.values() if m.value is None and m.reason and m.better is not None]
            return lost if self.status.finished else [str(self.status)]
        said = [trouble for run in self.runs for trouble in run.troubles]
        return [f"{each} ({said.count(each)} of {len(self.runs)} seeds)" for each in dict.fromkeys(said)]

    @property
    def said(self) -> str:
        """``finished``, or the troubles in a line."""
        return "; ".join(self.troubles) or "finished"

    def to_dict(self) -> dict[str, Any]:
        """The row of results.json; the keys up to ``seconds`` are there whatever was measured."""
        rate, others = self.get(quantities.UR), {k: m for k, m in self.measured.items() if k not in _KEYED}
        doubling = {key: self.value(q) for key, q in quantities.DOUBLING.items() if q.name in self.measured}
        known = {
            **{key: self.value(q) for key, q in _NUMBERS.items() if q.name in self.measured},
            "judged": dict(self.judged) or None,
            "nll_doubling": doubling or None,
            "sampler": self.sampler or None,
            "status": self.said if self.runs else str(self.status),
            "ended": None if self.status.finished else self.status.to_dict(),
            "seed": self.seed,
            "measured": {name: measured.to_dict() for name, measured in others.items()} or None,
            "intervals": self._intervals() if self.runs else None,
            "options": self.options if self.options is None else dict(self.options),
            "front": self.front,
            "runs": [run.to_dict() for run in self.runs] or None,
        }
        return {
            "model": self.model,
            "method": self.method,
            "unlearning_ratio": {key: getattr(rate, key, None) for key in ("value", "low", "high", "n")},
            "junk": self.value(quantities.JUNK),
            "retained": self.value(quantities.RETAINED),
            "nll": {
                key: {"bits_per_dim": getattr(nll, "value", None), "stderr": getattr(nll, "stderr", None)}
                for key, nll in ((key, self.get(q)) for key, q in quantities.NLL.items())
            },
            "seconds": None,
            **{key: value for key, value in known.items() if value is not None},
        }

    def _intervals(self) -> dict[str, list[float]]:
        found = {key: self.get(quantity) for key, quantity in _INTERVALS.items()}
        return {key: list(each.interval) for key, each in found.items() if each is not None and each.interval}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Result:
        """The inverse of `to_dict`, for older rows as well; a likelihood comes back without its number of images."""
        options = {key: row[key] for key in ("seed", "sampler", "options", "front") if key in row}
        return cls(
            model=row["model"],
            method=row["method"],
            status=_status(row),
            measured=_measured(row),
            judged=row.get("judged", {}),
            runs=tuple(cls.from_dict(run) for run in row.get("runs", ())),
            **options,
        )


def _status(row: Mapping[str, Any]) -> Status:
    """How a run ended; rows written before there were values for it say so in words only."""
    if "ended" in row or row.get("runs"):
        return Status.from_dict(row["ended"]) if "ended" in row else FINISHED
    said = str(row.get("status", "finished"))
    if said.startswith("refused"):
        return refused(said.removeprefix("refused: "))
    if said.startswith("diverged"):
        return diverged(int(said.rsplit(" ", 1)[1]))
    return FINISHED


def _measured(row: Mapping[str, Any]) -> dict[str, Measured]:
    """In the order of tables."""
    ends = {_INTERVALS[key].name: pair for key, pair in (row.get("intervals") or {}).items()}

    def errors(quantity: Quantity) -> dict[str, float]:
        return dict(zip(("low", "high"), ends.get(quantity.name, ()), strict=False))

    rate, found = row["unlearning_ratio"], {}
    if rate["value"] is not None:
        hits = round(rate["value"] * rate["n"])
        found[quantities.UR.name] = quantities.UR.of(**rate, hits=hits)
    for key, quantity in (("junk", quantities.JUNK), ("retained", quantities.RETAINED)):
        if row[key] is not None and rate["n"]:
            exact = quantity.share(round(row[key] * rate["n"]), rate["n"])
            own = {"low": exact.low, "high": exact.high} | errors(quantity)
            found[quantity.name] = quantity.of(row[key], n=exact.n, hits=exact.hits, **own)
    for key, quantity in quantities.NLL.items():
        nll, checked = row["nll"][key], (row.get("nll_doubling") or {}).get(key)
        if nll["bits_per_dim"] is not None:
            found[quantity.name] = quantity.of(nll["bits_per_dim"], stderr=nll["stderr"], **errors(quantity))
        elif checked is not None or _lost(row, key):
            found[quantity.name] = quantity.missing(f"likelihood of {key} images fails its check")
    for key, value in (row.get("nll_doubling") or {}).items():
        quantity = quantities.DOUBLING[key]
        found[quantity.name] = quantity.of(value) if value is not None else quantity.missing("it is no number")
    for key, quantity in _NUMBERS.items():
        if row.get(key) is not None:
            found[quantity.name] = quantity.of(row[key], **errors(quantity))
    found |= {name: Measured.from_dict(each) for name, each in row.get("measured", {}).items()}
    order = {name: place for place, name in enumerate(quantities.ABOUT)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _lost(row: Mapping[str, Any], key: str) -> bool:
    return any((run.get("nll_doubling") or {}).get(key) is not None for run in row.get("runs", ()))


@dataclass(frozen=True, kw_only=True)
class Results:
    """What results.json holds: the command, what it ran with, what the judge is worth, and a row for each model."""

    command: str
    seed: int
    commit: str | None
    budget: Mapping[str, Any]
    rows: Sequence[Result]
    judge: Worth | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        judge = {} if self.judge is None else {"judge": self.judge.to_dict()}
        return {
            "command": self.command,
            "seed": self.seed,
            "commit": self.commit,
            "budget": dict(self.budget),
            **judge,
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, results: Mapping[str, Any]) -> Results:
        """The inverse of `to_dict`."""
        rows = tuple(Result.from_dict(row) for row in results["rows"])
        judge = Worth.from_dict(results["judge"]) if "judge" in results else None
        return cls(**{key: results[key] for key in ("command", "seed", "commit", "budget")}, rows=rows, judge=judge)
