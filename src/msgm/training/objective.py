"""The losses of one training step: a function of the step's number, the seed and the weights as they are now."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..forgetting.batch import Noised, Recalled, Start
from ..forgetting.methods import Method
from ..forgetting.regularise import Prepared
from ..model.score import ScoreModel
from ..process.times import Clock
from ..processes import Share, here
from .batches import Pixels, Shuffled, mix
from .dropout import OfWhole, dropout_seed
from .runtime import Runtime


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The images of a step under noise: retained ones, then, on steps with a forget loss, as many to forget.

    Of each set these are the rows in ``share``; other processes have the others.
    ``weight`` (B,) is what each retained image counts. The terms' own random numbers start from ``generator``, which
    is never used up: the losses of one batch may be asked for at several weights.
    """

    step: int
    x: Tensor
    t: Tensor
    eps: Tensor
    weight: Tensor | None
    share: Share
    generator: torch.Generator

    def part(self, rows: range) -> Batch:
        """Some of its rows, numbered as in the whole batch."""
        share, first, size = self.share, self.share.first, self.share.end - self.share.first
        if len(rows) == size:
            return self
        own = slice(rows.start - first, rows.stop - first)
        x, t, eps = (torch.cat([half[own] for half in value.split(size)]) for value in (self.x, self.t, self.eps))
        weight = None if self.weight is None else self.weight[own]
        return replace(self, x=x, t=t, eps=eps, weight=weight, share=replace(share, first=rows.start, end=rows.stop))


@dataclass(kw_only=True, eq=False)
class Objective:
    """``losses(batch(step))``: the retain loss and, on steps where it takes part, the forget loss (else None).

    Args:
        method: its terms and its combiner, which says when the forget loss is due.
        model: the model in training.
        retain: the images to keep; ``weights`` (N,) is what each row counts.
        forget: those to forget, where the method has a forget term.
        clock: training times from the numbers in [0, 1) that ``numbers(n, generator)`` draws.
        batch_size: rows of each set a step; ``steps`` in the run.
        flip: mirror images at random.
        regularise: what `prepare` made of the method's regulariser, if it has one.
    """

    method: Method
    model: ScoreModel
    retain: Pixels
    forget: Pixels | None
    weights: Tensor | None
    clock: Clock
    numbers: Callable[[int, torch.Generator], Tensor]
    batch_size: int
    steps: int
    flip: bool
    seed: int
    runtime: Runtime
    regularise: Prepared | None = None

    @cached_property
    def rows(self) -> dict[str, Shuffled]:
        """Which rows of each set a step takes."""
        sets = {"retain": (self.retain, self.seed), "forget": (self.forget, self.seed + 1)}
        return {
            k: Shuffled(len(data), self.batch_size, seed, data.device)
            for k, (data, seed) in sets.items()
            if data is not None
        }

    @cached_property
    def retained(self) -> Recalled | None:
        """The retained rows, for a term that recalls them."""
        recalls = self.method.forget is not None and self.method.forget.recalls
        return Recalled(self.retain) if recalls else None

    def due(self, step: int) -> bool:
        """Whether the forget loss takes part in this step."""
        return self.forget is not None and self.method.combine.due(step)

    def prepare(self, show: bool = False) -> None:
        """Let the parts of the method work out what they need of the model as it is: the same in every process."""
        method = self.method
        if self.forget is None or method.forget is None or not method.fine_tunes:
            return
        generator = torch.Generator().manual_seed(mix(self.seed, -(2**40)))
        start = Start(
            model=self.model, retain=self.retain, forget=self.forget, clock=self.clock,
            batch=self.batch_size, generator=generator, compile=self.runtime.compile, show=show,
        )  # fmt: skip
        forget = method.forget.prepare(start)
        self.method = replace(method, forget=forget)
        self.regularise = method.regularise.prepare(start, forget) if method.regularise is not None else None

    def batch(self, step: int) -> Batch:
        """The batch of a step; both halves share their times. All processes draw all of it, and keep their rows."""
        generator, rows = self.runtime.generator(mix(self.seed, step)), self.rows["retain"](step)
        x0 = self.retain.draw(rows, generator, self.flip)
        t = self.clock(self.numbers(len(x0), generator), self.model.sde)
        due = self.due(step)
        if due:
            assert self.forget is not None
            x0 = torch.cat([x0, self.forget.draw(self.rows["forget"](step), generator, self.flip)])
            t = torch.cat([t, t])
        eps = torch.randn(x0.shape, generator=generator, device=generator.device)
        if due and self.method.pairs:
            eps[self.batch_size :] = eps[: self.batch_size]
        share = here().share(self.batch_size)
        if share.part < 1:
            own = self._own(share, len(x0), x0.device)
            x0, t, eps = x0[own], t[own], eps[own]
        x0, t, eps = x0.float(), t.float(), eps.float()
        return Batch(
            step=step, x=self.model.sde.marginal(x0, t, eps), t=t, eps=eps, generator=generator, share=share,
            weight=None if self.weights is None else self.weights[rows][share.rows].to(x0),
        )  # fmt: skip

    def _own(self, share: Share, rows: int, device: torch.device) -> Tensor:
        """The numbers of this process' rows in a batch of one set, or of both."""
        numbers = torch.arange(rows, device=device).view(-1, self.batch_size)
        return numbers[:, share.rows].flatten()

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The losses at the weights as they are; both halves go through the network together."""
        share = batch.share
        size = share.end - share.first
        with ExitStack() as stack:
            stack.enter_context(dropout_seed(mix(self.seed, batch.step), self.runtime.device))
            if share.part < 1:
                whole = share.of * len(batch.x) // size
                own = self._own(share, whole, batch.x.device)
                # A row by itself may lie in the memory in another order than several, and dropout is drawn in that.
                twice = 2 if len(own) == 1 else 1
                stack.enter_context(OfWhole(own.repeat(twice), whole))
                predicted = self.model(torch.cat([batch.x] * twice), batch.t.repeat(twice))[: len(own)]
            else:
                predicted = self.model(batch.x, batch.t)
        generator, done, method = batch.generator.clone_state(), batch.step / self.steps, self.method
        retain, *forget = (
            Noised(x=x, t=t, eps=eps, predicted=said, model=self.model, generator=generator, progress=done, share=share)
            for x, t, eps, said in zip(*(v.split(size) for v in (batch.x, batch.t, batch.eps, predicted)), strict=True)
        )
        retain = replace(retain, weight=batch.weight)
        if method.forget is None or not forget:
            return method.retain(retain), None
        if method.pairs:
            retain, forget = replace(retain, pair=forget[0]), [replace(forget[0], pair=retain)]
        return method.retain(retain), method.forget(replace(forget[0], retained=self.retained))
