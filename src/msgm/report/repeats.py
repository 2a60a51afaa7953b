"""What several runs say that differ in their seed alone: means with intervals over the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..errors import UserError
from ..metrics.shares import Rate, wilson
from .page import Measured, Row


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean of n values, its standard error, and its confidence interval; a single value has no error (nan)."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def mean(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """The mean with Student's interval: ``m ± t s / √n``, t the quantile for n - 1 degrees of freedom."""
    from scipy.stats import t

    if not values:
        raise UserError("a mean needs at least one value")
    m, n = fmean(values), len(values)
    if n == 1:
        return Mean(value=m, stderr=math.nan, low=math.nan, high=math.nan, n=1)
    error = stdev(values, m) / math.sqrt(n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return Mean(value=m, stderr=error, low=m - half, high=m + half, n=n)


def rate(rates: Sequence[Rate]) -> Rate:
    """The mean of several runs' rates. Its interval is the wider, at each end, of Student's over the runs and of
    Wilson's for all samples together: runs that agree by chance (0 of 200 three times) are no proof of 0."""
    pooled = wilson(sum(round(r.value * r.n) for r in rates), sum(r.n for r in rates))
    over = mean([r.value for r in rates])
    low = pooled.low if math.isnan(over.low) else max(0.0, min(pooled.low, over.low))
    high = pooled.high if math.isnan(over.high) else min(1.0, max(pooled.high, over.high))
    return Rate(value=over.value, low=low, high=high, n=pooled.n)


def over_seeds(rows: Sequence[Row]) -> Row:
    """One row for the runs of several seeds (by ``extra["seed"]``), those that diverged included.

    Rates are means with the interval of `rate`; NLLs are means, ± their standard error over the seeds (of one seed:
    over its images). An NLL that fails its check in one of the runs is not reported. ``extra`` keeps the mean Fréchet
    distance and cost, the samples of each class by all runs, the intervals over the seeds, what went wrong in how many
    of them, and every run's own row.
    """
    done = [row for row in rows if row.unlearning_ratio is not None]
    found: dict[str, Mean] = {}

    def average(name: str, values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if not known or len(known) < len(done):
            return None
        found[name] = mean(known)
        return found[name].value

    def likelihood(name: str, values: Sequence[Measured | None]) -> Measured | None:
        value = average(name, [v[0] if v is not None else None for v in values])
        if value is None:
            return None
        first = values[0]
        return value, found[name].stderr if len(done) > 1 else first[1] if first is not None else None

    def extra(key: str, of: Sequence[Row]) -> list[float | None]:
        return [row.extra.get(key) for row in of]

    junk, retained = (
        rate([wilson(round(float(row.to_dict()[key]) * r.n), r.n) for row in done if (r := row.unlearning_ratio)])
        if done else None for key in ("junk", "retained")
    )  # fmt: skip
    seconds = [row.seconds for row in rows if row.seconds is not None]
    retain = likelihood("nll_retain", [row.nll_retain for row in done])
    forget = likelihood("nll_forget", [row.nll_forget for row in done])
    distance = average("frechet_distance", extra("frechet_distance", done))
    judged = [row.extra["judged"] for row in done] if all("judged" in row.extra for row in done) else []
    intervals = {key: [m.low, m.high] for key, m in found.items() if m.n > 1}
    if junk is not None:
        intervals["junk"] = [junk.low, junk.high]
    return Row(
        model=rows[0].model,
        method=rows[0].method,
        unlearning_ratio=rate([r for row in done if (r := row.unlearning_ratio)]) if done else None,
        junk=junk,
        retained=retained,
        nll_retain=retain,
        nll_forget=forget,
        seconds=fmean(seconds) if seconds else None,
        extra={
            "frechet_distance": distance,
            "judged": {name: sum(counts[name] for counts in judged) for name in (judged[0] if judged else ())},
            "steps": max((s for s in extra("steps", rows) if s is not None), default=None),
            "images": max((s for s in extra("images", rows) if s is not None), default=None),
            "status": status(rows),
            "intervals": intervals,
            "runs": [row.to_dict() for row in rows],
        },
    )


def status(rows: Sequence[Row]) -> str:
    """``finished``, or what went wrong and in how many of the runs."""
    wrong: list[str] = []
    for row in rows:
        said = str(row.extra.get("status", "finished"))
        if said != "finished":
            wrong.append(said)
        elif row.extra.get("nll_doubling"):
            wrong += [
                f"likelihood of {name} images fails its check"
                for name, value in (("retain", row.nll_retain), ("forget", row.nll_forget))
                if value is None
            ]
    many = f" of {len(rows)} seeds)"
    return "; ".join(f"{said} ({wrong.count(said)}{many}" for said in dict.fromkeys(wrong)) or "finished"
