"""How well a number tells two sets apart, and whether two numbers differ: areas, rates and differences with intervals.

An adversary who has a statistic of each image guesses from it which set the image is from. The area under the
receiver's curve is the probability that of one image of each set the right one has the larger value.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from ..errors import UserError
from .measured import Measured, Quantity


def area(positive: Tensor, negative: Tensor) -> float:
    """P(positive > negative) + P(positive = negative) / 2, of finite values (n,) and (m,) (Mann and Whitney 1947)."""
    for name, values in (("positive", positive), ("negative", negative)):
        if values.ndim != 1 or len(values) < 2 or not bool(values.isfinite().all()):
            raise UserError(f"{name} must be two or more finite numbers (n,), got {tuple(values.shape)}")
    order = negative.double().sort().values
    x = positive.double()
    below, upto = (torch.searchsorted(order, x, right=right) for right in (False, True))
    return float((below + upto).double().mean() / (2 * len(order)))


def area_interval(value: float, n: int, m: int, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's interval (2006, method 5) of an `area` from n and m values; it does not collapse at 0 and 1.

    The ends are the areas a with ``|value - a| = z s(a)``, where, with N = (n + m) / 2 - 1,

        s(a)^2 = a (1 - a) (1 + N (1 - a) / (2 - a) + N a / (1 + a)) / (n m).
    """
    z, size = NormalDist().inv_cdf((1 + confidence) / 2), (n + m) / 2 - 1

    def spread(a: float) -> float:
        return math.sqrt(a * (1 - a) * (1 + size * (1 - a) / (2 - a) + size * a / (1 + a)) / (n * m))

    def end(edge: float) -> float:
        inside, outside = value, edge
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(value - middle) < z * spread(middle) else (inside, middle)
        return inside

    return end(0.0), end(1.0)


def separated(quantity: Quantity, positive: Tensor, negative: Tensor) -> Measured:
    """The `area` of two sets of values as a measured number, with its interval."""
    value = area(positive, negative)
    low, high = area_interval(value, len(positive), len(negative))
    return quantity.of(value, low=low, high=high, n=len(positive) + len(negative))


def caught(quantity: Quantity, positive: Tensor, negative: Tensor, false: float = 0.01) -> Measured:
    """The share of ``positive`` values above the threshold that at most ``false`` of the negative ones pass.

    Its interval is that of the share; that the threshold is estimated, too, is left out.
    """
    allowed = math.floor(false * len(negative))
    threshold = negative.double().sort(descending=True).values[allowed]
    return quantity.share(int((positive.double() > threshold).sum()), len(positive))


def difference(a: Measured, b: Measured) -> tuple[float, float, float]:
    """a - b with the interval that follows from those of both (Zou and Donner 2008; Newcombe 1998 for shares).

        low = d - sqrt((a - a_low)^2 + (b_high - b)^2),    high = d + sqrt((a_high - a)^2 + (b - b_low)^2)

    Exact enough for independent estimates; where both models were shown the same images and noise it is too wide.
    Raises UserError where one of them has no value or no interval.
    """
    for each in (a, b):
        if each.value is None or each.interval is None:
            raise UserError(f"{each.name} has no value with an interval; there is nothing to compare")
    assert a.value is not None and b.value is not None and a.interval is not None and b.interval is not None
    (a_low, a_high), (b_low, b_high), change = a.interval, b.interval, a.value - b.value
    low = change - math.hypot(a.value - a_low, b_high - b.value)
    high = change + math.hypot(a_high - a.value, b.value - b_low)
    return change, low, high
