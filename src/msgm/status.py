"""How a run ended, as a value: it finished, it diverged at a step, or it was refused for a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Status:
    """``kind``, and what belongs to it: the ``step`` at which a run diverged, the ``reason`` of a refusal."""

    kind: Literal["finished", "diverged", "refused"] = "finished"
    step: int | None = None
    reason: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.kind == "finished"

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Status:
        """The inverse of `to_dict`."""
        return cls(**fields)

    def __str__(self) -> str:
        if self.kind == "diverged" and self.step is not None:
            return f"diverged at step {self.step}"
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


FINISHED = Status()


def diverged(step: int) -> Status:
    """The run's loss was no number, or far too large, at this step."""
    return Status(kind="diverged", step=step)


def refused(reason: str) -> Status:
    """There was no run, for this reason."""
    return Status(kind="refused", reason=reason)
