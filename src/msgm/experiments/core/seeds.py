"""What several runs say that differ in their seed alone: means with intervals over the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from ...errors import UserError
from ...metrics.measured import Measured
from ...metrics.rates import wilson
from ...report.results import Result


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


def mean_measured(found: Sequence[Measured]) -> Measured:
    """The mean of one quantity over runs; without a value where any run has none, for that run's reason.

    Of shares of independent draws (``hits``) the interval is the wider, at each end, of Student's over the runs and
    of Wilson's for all draws together: runs that agree by chance (0 of 200 three times) are no proof of 0. Of others
    it is Student's, and n is the number of runs. What one run measured keeps its own error, and what has neither an
    error of its own nor a better, as the seconds, has none.
    """
    first = found[0]
    lost = [each.reason for each in found if each.value is None]
    if lost:
        return replace(first, value=None, low=None, high=None, stderr=None, n=None, hits=None, reason=lost[0])
    if len(found) == 1:
        return first
    values = [each.value for each in found if each.value is not None]
    over = mean(values)
    draws = [(each.hits, each.n) for each in found if each.hits is not None and each.n is not None]
    if len(draws) == len(found):
        pooled = wilson(sum(hits for hits, _ in draws), sum(n for _, n in draws))
        low, high = max(0.0, min(pooled.low, over.low)), min(1.0, max(pooled.high, over.high))
        return replace(first, value=over.value, low=low, high=high, n=pooled.n, hits=sum(hits for hits, _ in draws))
    bare = first.better is None and first.interval is None and first.stderr is None
    if bare or len(set(values)) == 1:
        same = values[0] if len(set(values)) == 1 else over.value
        return replace(first, value=same, low=None, high=None, stderr=None, n=len(found))
    low, high = (max(0.0, over.low), min(1.0, over.high)) if first.unit == "%" else (over.low, over.high)
    error = None if first.unit == "%" else over.stderr
    return replace(first, value=over.value, low=low, high=high, stderr=error, n=len(found))


def over_seeds(runs: Sequence[Result]) -> Result:
    """One result for the runs of several seeds, those that did not finish included: means of what all others measured.

    The samples of each class are added up, where all of these counted them. Every run's own result is kept.
    """
    done = [run for run in runs if run.status.finished and run.measured]
    names = [name for name in (done[0].measured if done else ()) if all(name in run.measured for run in done)]
    judged = [run.judged for run in done] if all(run.judged for run in done) else []
    return Result(
        model=runs[0].model,
        method=runs[0].method,
        measured={name: mean_measured([run.measured[name] for run in done]) for name in names},
        judged={name: sum(counts[name] for counts in judged) for name in (judged[0] if judged else ())},
        sampler="",
        options=runs[0].options,
        runs=tuple(runs),
    )
