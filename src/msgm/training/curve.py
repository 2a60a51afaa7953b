"""The loss curve of a run: fetched from the device, watched by the guard, written to the log."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .runs import Log
from .settings import TrainSettings
from .step import State, Step


class Exploded(Exception):
    """The retain loss of a step is no number, or passed the guard."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__(f"retain loss {value:.3g} at step {step}")
        self.step, self.value = step, value


class Curve:
    """Takes each step's losses; on a GPU it looks at them only every ``lag`` steps, so as not to wait for each."""

    def __init__(self, state: State, log: Log, settings: TrainSettings, lag: int) -> None:
        self.state, self.log, self.guard, self.lag = state, log, settings.guard, lag
        self.waiting: list[tuple[int, Step]] = []

    def add(self, found: Step) -> None:
        """The losses of the step that follows the state's; raises `Exploded` as `flush` does."""
        self.waiting.append((self.state.step, found))
        if (self.state.step + 1) % self.lag == 0:
            self.flush()

    def flush(self) -> None:
        """Look at all that is waiting: to the guard, then to the log. Raises `Exploded` at the first bad step."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        nothing = torch.full_like(waiting[0][1].retain, math.nan)
        each = [(s.retain, nothing if s.forget is None else s.forget, _sum(s.norms)) for _, s in waiting]
        values = torch.stack([v.float() for line in each for v in line]).view(-1, 3).tolist()
        for (step, found), (retain, forget, norm) in zip(waiting, values, strict=True):
            self._check(step, retain, norm)
            self.log(
                {"step": step + 1, "retain": retain, "forget": None if found.forget is None else forget, "norm": norm}
            )

    def _check(self, step: int, retain: float, norm: float) -> None:
        state = self.state
        state.smooth = retain if math.isnan(state.smooth) else 0.9 * state.smooth + 0.1 * retain
        if step >= 10:
            state.lowest = min(state.lowest, state.smooth)
        if not (math.isfinite(retain) and math.isfinite(norm)) or state.smooth > self.guard * state.lowest:
            raise Exploded(step + 1, retain)

    @property
    def calm(self) -> bool:
        """Whether the loss is not on its way up to the guard."""
        return self.state.smooth < math.sqrt(self.guard) * self.state.lowest


def _sum(norms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(norms)).sum() if len(norms) > 1 else norms[0]
