"""A measured number: its name, its error, its unit, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Protocol

from ..errors import UserError
from .rates import wilson

Better = Literal["higher", "lower"]

_SCALE = {"%": 100.0}
"""By which a value is multiplied to be shown in its unit; shares are stored in [0, 1]."""
_DIGITS = {"bits/dim": 3, "steps": 0, "images": 0, "dB": 2, "AUC": 2}
"""Decimals of what is shown; others have one."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number that was measured of a model.

    Args:
        name: what it is, short: the heading of its column.
        value: the number; None where nothing could be measured, and ``reason`` says why.
        low: lower end of its 95 % interval.
        high: upper end.
        stderr: its standard error.
        n: draws, images or runs that it is a mean of.
        hits: of a share of n independent draws, how many; shares of several runs are then added up exactly.
        unit: "%" (stored as a share in [0, 1]), "bits/dim", "dB", "s", "steps", "images", or none.
        better: which way is better; None for what is neither.
        detail: it stands in results.json and in no table.
        reason: why there is no value.

    Raises UserError for a value that is not finite. An error that is not finite is no error: None.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    stderr: float | None = None
    n: int | None = None
    hits: int | None = None
    unit: str = ""
    better: Better | None = None
    detail: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise UserError(f"{self.name} is {self.value}: what could not be measured has the value None and a reason")
        for error in ("low", "high", "stderr"):
            number = getattr(self, error)
            if number is not None and not math.isfinite(number):
                object.__setattr__(self, error, None)

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), where both are known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def cost(self) -> float | None:
        """The value turned so that lower is better; None where there is no value or no better."""
        if self.value is None or self.better is None:
            return None
        return -self.value if self.better == "higher" else self.value

    @property
    def heading(self) -> str:
        """The name and, where the numbers need it, the unit."""
        return f"{self.name} %" if self.unit == "%" else self.name

    def number(self) -> str:
        """The value as text; an en dash where there is none."""
        return "–" if self.value is None else self._shown(self.value)

    def text(self) -> str:
        """The value with its error: ``0.3 [0.1, 0.9]`` or ``2.471 ± 0.040``."""
        if self.value is not None and self.stderr is not None:
            return f"{self.number()} ± {self._shown(self.stderr)}"
        if self.value is not None and self.interval is not None:
            low, high = map(self._shown, self.interval)
            return f"{self.number()} [{low}, {high}]"
        return self.number()

    def _shown(self, value: float) -> str:
        digits = (0 if value >= 10 else 1) if self.unit == "s" else _DIGITS.get(self.unit, 1)
        return f"{_SCALE.get(self.unit, 1) * value:.{digits}f}"

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not their default, for JSON; ``value`` always."""
        found = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {key: value for key, (value, default) in found.items() if default is MISSING or value != default}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Measured:
        """The inverse of `to_dict`."""
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What can be measured: all of a `Measured` but its number, and ``about``, a sentence for legends."""

    name: str
    about: str
    unit: str = ""
    better: Better | None = None
    detail: bool = False

    def of(self, value: float | None, **errors: Any) -> Measured:
        """The quantity with this value; ``errors`` are the other fields of `Measured`."""
        return Measured(
            name=self.name, value=value, unit=self.unit, better=self.better, detail=self.detail, **errors
        )  # fmt: skip

    def share(self, k: int, n: int) -> Measured:
        """k of n independent draws, with Wilson's interval."""
        rate = wilson(k, n)
        return self.of(rate.value, low=rate.low, high=rate.high, n=n, hits=k)

    def missing(self, reason: str) -> Measured:
        """It could not be measured, for this reason."""
        return self.of(None, reason=reason)


class Measure(Protocol):
    """Something that measures one or several quantities of a subject."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of what it measures, in the order of tables."""
        ...

    def measure(self, subject: Any) -> dict[str, Measured]:
        """The numbers by name: all of ``names``, those that could not be measured without a value."""
        ...
