"""Dropout of a training step: a function of its seed, whichever process has which rows of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def dropout_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the generator that dropout draws from; the CPU's is put back after.

    Not by `torch.manual_seed`: it queues a seed, with a stack trace, for each kind of device that was never used.
    """
    with torch.random.fork_rng(devices=[]):
        (torch.cuda.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(seed)
        yield


class OfWhole(TorchFunctionMode):
    """Within it dropout is drawn for a whole batch of ``of`` rows; those with the numbers ``rows`` are at hand."""

    def __init__(self, rows: Tensor, of: int) -> None:
        super().__init__()
        self.rows, self.of = rows, of

    def __torch_function__(
        self,
        asked: Callable[..., Any],
        kinds: object,
        given: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        what = self._dropout if asked is functional.dropout else asked
        return what(*given, **(named or {}))

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not p or len(x) % len(self.rows) or not _plain(x):
            return functional.dropout(x, p, training, inplace)
        each = len(x) // len(self.rows)  # attention has a row for each head
        whole = x.new_ones((self.of * each, *x.shape[1:]))
        if not x.is_contiguous():  # numbers are drawn in the order in which they lie
            whole = whole.to(memory_format=torch.channels_last)
        kept: Tensor = functional.dropout(whole, p).unflatten(0, (self.of, each))
        return x * kept[self.rows].flatten(0, 1)


def _plain(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
