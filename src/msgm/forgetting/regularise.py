"""Regularisers: which weights may move, and how far.

Each is a setting that `prepare` turns into vectors of the model's size: a `Mask` or a `Pull`. Both act on the direction
of a step, after the combiner; a pull's gradient is added as it would be if its penalty stood in the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from ..model.vectors import flat, gradient
from ..progress import bar
from ..sampling import Heun
from .batch import Joined, Recalled, Start
from .prepare import fine_tuned, fisher
from .terms import ForgetTerm


class Prepared(Protocol):
    """A regulariser in action; vectors are those of all weights, (P,)."""

    def direction(self, direction: Tensor, weights: Tensor, forgetting: bool) -> Tensor:
        """What becomes of a step's direction; ``forgetting`` says whether the forget loss took part."""

    def weights(self, weights: Tensor) -> Tensor:
        """What becomes of the weights after the step."""


class Regulariser(Protocol):
    """The settings of a regulariser; ``needs`` says what `prepare` makes of the trained model."""

    @property
    def needs(self) -> str: ...

    def prepare(self, start: Start, term: ForgetTerm) -> Prepared: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """Only weights with ``free`` move. ``always``: the others keep the value of ``before``, bit for bit, through weight
    decay too; else they are spared by the forget loss alone."""

    free: Tensor
    before: Tensor
    always: bool = True

    def direction(self, direction: Tensor, weights: Tensor, forgetting: bool) -> Tensor:
        return direction * self.free if self.always or forgetting else direction

    def weights(self, weights: Tensor) -> Tensor:
        return torch.where(self.free, weights, self.before) if self.always else weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """The penalty ``sum_i stiffness_i (theta_i - centre_i)^2 / 2``."""

    centre: Tensor
    stiffness: Tensor

    def direction(self, direction: Tensor, weights: Tensor, forgetting: bool) -> Tensor:
        return direction + self.stiffness * (weights - self.centre)

    def weights(self, weights: Tensor) -> Tensor:
        return weights


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """SalUn: only the share ``keep`` of the weights with the largest |sum of gradients of the forget term| moves.

    The others are frozen exactly (Fan et al. 2024). The sum is over at most ``batches`` batches.

    Args:
        keep: share of the weights that may move.
        batches: batches of forget images that decide which.
    """

    keep: float = 0.5
    batches: int = 32

    needs: ClassVar[str] = "gradients of the forget term"

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or self.batches < 1:
            raise UserError(f"keep is a share in (0, 1] and batches 1 or more; got {self.keep} and {self.batches}")

    def prepare(self, start: Start, term: ForgetTerm) -> Mask:
        model, total = start.copy(), torch.zeros_like(flat(start.model))
        retained = Recalled(start.retain) if term.recalls else None
        rounds = min(self.batches, -(-len(start.forget) // start.batch))
        with bar("Saliency of the weights", rounds, show=start.show) as tick:
            for _ in range(rounds):
                half = start.noised(model, start.forget, start.batch)
                total += gradient(model, term(replace(half, retained=retained)))
                tick(1)
        n = round(self.keep * total.numel())
        free = torch.zeros_like(total, dtype=torch.bool)
        free[total.abs().topk(n).indices] = True
        return Mask(free=free, before=flat(start.model))


@dataclass(frozen=True, kw_only=True)
class FisherRatio:
    """SFR-on: the forget loss moves only weights with Fisher_f >= threshold Fisher_r (Huang et al. 2024).

    The Fisher information of the denoising loss on each set is estimated from ``samples`` of its images.

    Args:
        threshold: Fisher information of the forget data, over that of the retain data, from which a weight may move.
        samples: images that it is estimated from.
    """

    threshold: float = 1.0
    samples: int = 128

    needs: ClassVar[str] = "Fisher information of both sets"

    def __post_init__(self) -> None:
        if not self.threshold >= 0 or self.samples < 1:
            raise UserError(f"threshold must be 0 or more, samples 1 or more; got {self.threshold}, {self.samples}")

    def prepare(self, start: Start, term: ForgetTerm) -> Mask:
        sets = {"forget": start.forget, "retain": start.retain}
        found = {k: fisher(start, v, self.samples, f"Fisher information, {k} data") for k, v in sets.items()}
        free = found["forget"] >= self.threshold * found["retain"]
        return Mask(free=free, before=flat(start.model), always=False)


@dataclass(frozen=True, kw_only=True)
class Elastic:
    """Selective Amnesia: weight * sum_i F_i (theta_i - theta_i before)^2 (Heng and Soh 2023).

    F is the Fisher information of the denoising loss on ``samples`` of the model's own images: no old data needed.

    Args:
        weight: factor of the penalty.
        samples: images that the Fisher information is estimated from.
    """

    weight: float = 10.0
    samples: int = 128

    needs: ClassVar[str] = "Fisher information of its own samples"

    def __post_init__(self) -> None:
        if not self.weight >= 0 or self.samples < 1:
            raise UserError(f"weight must be 0 or more and samples 1 or more; got {self.weight} and {self.samples}")

    def prepare(self, start: Start, term: ForgetTerm) -> Pull:
        with bar("The model's own samples", self.samples, show=start.show) as tick:
            seed = int(torch.randint(2**31, (), generator=start.generator))
            own = Heun(start.copy(), steps=18).sample(self.samples, seed=seed, tick=tick)
        stiffness = 2 * self.weight * fisher(start, own, self.samples, "Fisher information, own samples")
        return Pull(centre=flat(start.model), stiffness=stiffness)


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """VDU's stability: weight * 2 / (M d) * sum_i (theta_i - mu_i)^2 / (2 v_i) (Panda et al. 2025), M forget images.

    mu and v are mean and variance of each weight over ``checkpoints`` of plain training on all data, ``gap`` steps
    apart at ``lr``, which continue from the model. The factor is that of an ascent term which is a mean over pixels and
    images where the paper's log-likelihood is a sum. Variances are at least ``floor`` times their mean.

    Args:
        weight: factor of the penalty.
        checkpoints: how many the posterior is made of.
        gap: steps from one to the next.
        lr: learning rate between them.
        floor: least variance of a weight, over the mean of all.
    """

    weight: float = 1.0
    checkpoints: int = 5
    gap: int = 20
    lr: float = 2e-4
    floor: float = 0.01

    needs: ClassVar[str] = "several checkpoints"

    def __post_init__(self) -> None:
        if self.checkpoints < 2 or self.gap < 1:
            raise UserError(f"checkpoints must be 2 or more, gap 1 or more; got {self.checkpoints} and {self.gap}")
        if not (self.weight >= 0 and self.lr > 0 and self.floor > 0):
            raise UserError(f"weight must be 0 or more, lr and floor positive; got {self}")

    def prepare(self, start: Start, term: ForgetTerm) -> Pull:
        data, steps = Joined(first=start.retain, second=start.forget), self.checkpoints * self.gap
        path = fine_tuned(start, data, steps=steps, lr=self.lr, title="Checkpoints of the posterior")
        kept = torch.stack([flat(model) for k, model in enumerate(path, 1) if k % self.gap == 0])
        variance = kept.var(0)
        variance = variance.clamp(min=self.floor * float(variance.mean()))
        return Pull(
            centre=kept.mean(0),
            stiffness=2 * self.weight / (len(start.forget) * math.prod(start.model.shape) * variance),
        )
