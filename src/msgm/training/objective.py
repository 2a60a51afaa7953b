"""The losses of one training step: a function of the step's number, the seed and the weights as they are now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ..forgetting.batch import Noised, Start
from ..forgetting.methods import Method
from ..forgetting.regularise import Prepared
from ..model.score import ScoreModel
from ..process.times import Clock
from .batches import Shuffled, clean, draw, mix


@dataclass(kw_only=True, eq=False)
class Objective:
    """``objective(step)``: the retain loss and, on steps where it takes part, the forget loss (else None).

    All that is random is a function of (seed, step): asked again, at other weights, it takes the same batch.

    Args:
        method: its terms and its combiner, which says when the forget loss is due.
        model: the model in training; ``network`` is the same, wrapped or not.
        retain: (N, *), as stored; ``weights`` (N,) is what each row counts.
        forget: (M, *), as stored, where the method has a forget term.
        clock: training times from the numbers in [0, 1) that ``numbers(n, generator)`` draws.
        batch: rows of each set a step; ``steps`` in the run.
        flip: mirror images at random.
    """

    method: Method
    model: ScoreModel
    network: nn.Module
    retain: Tensor
    forget: Tensor | None
    weights: Tensor | None
    clock: Clock
    numbers: Callable[[int, torch.Generator], Tensor]
    batch: int
    steps: int
    flip: bool
    seed: int
    device: torch.device

    @cached_property
    def rows(self) -> dict[str, Shuffled]:
        """Which rows of each set a step takes."""
        sets = {"retain": (self.retain, self.seed), "forget": (self.forget, self.seed + 1)}
        return {k: Shuffled(len(data), self.batch, seed) for k, (data, seed) in sets.items() if data is not None}

    @cached_property
    def retained(self) -> Tensor:
        """All retained rows in model space, for the forget term."""
        return clean(self.retain, self.device)

    def due(self, step: int) -> bool:
        """Whether the forget loss takes part in this step."""
        return self.forget is not None and self.method.combine.due(step)

    def prepare(self, show: bool = False) -> Prepared | None:
        """Let the parts of the method work out what they need of the model as it is; its regulariser, if it has one."""
        method = self.method
        if self.forget is None or method.forget is None or not method.fine_tunes:
            return None
        generator = torch.Generator().manual_seed(mix(self.seed, -(2**40)))
        start = Start(
            model=self.model, retain=self.retained, forget=clean(self.forget, self.device), clock=self.clock,
            batch=self.batch, generator=generator, show=show,
        )  # fmt: skip
        forget = method.forget.prepare(start)
        self.method = replace(method, forget=forget)
        return method.regularise.prepare(start, forget) if method.regularise is not None else None

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        generator = torch.Generator().manual_seed(mix(self.seed, step))
        rows, method, due = self.rows["retain"](step), self.method, self.due(step)

        # Both halves share their times and go through the network together.
        x0 = draw(self.retain, rows, generator, self.flip)
        t = self.clock(self.numbers(len(x0), generator), self.model.sde)
        if due:
            assert self.forget is not None
            x0 = torch.cat([x0, draw(self.forget, self.rows["forget"](step), generator, self.flip)])
            t = torch.cat([t, t])
        eps = torch.randn(x0.shape, generator=generator)
        if due and method.pairs:
            eps[self.batch :] = eps[: self.batch]
        x0, t, eps = (v.to(self.device, torch.float32) for v in (x0, t, eps))
        x = self.model.sde.marginal(x0, t, eps)
        with dropout_seed(mix(self.seed, step), self.device):
            noise = self.network(x, t)

        retain, *forget = (
            Noised(x=a, t=b, eps=c, predicted=d, model=self.model, generator=generator, progress=step / self.steps)
            for a, b, c, d in zip(*(v.split(self.batch) for v in (x, t, eps, noise)), strict=True)
        )
        if self.weights is not None:
            retain = replace(retain, weight=self.weights[rows].to(x))
        if method.forget is None or not forget:
            return method.retain(retain), None
        if method.pairs:
            retain, forget = replace(retain, pair=forget[0]), [replace(forget[0], pair=retain)]
        return method.retain(retain), method.forget(forget[0], self.retained)


@contextmanager
def dropout_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the generator that dropout draws from; the CPU's is put back after.

    Not by `torch.manual_seed`: it queues a seed, with a stack trace, for each kind of device that was never used.
    """
    with torch.random.fork_rng(devices=[]):
        (torch.cuda.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(seed)
        yield
