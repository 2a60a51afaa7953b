"""What is measured: a model, its samples, the test images in two, and the judge, each asked once."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..data import Images, Request
from ..progress import bar
from ..sampling import Sampler
from .judge import Judge
from .worth import Worth, by_rules, verdicts_on, worth


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A model to be measured; its samples are drawn when a measure first asks for them.

    Args:
        name: what it is called in progress bars.
        sampler: of the model.
        n: samples.
        seed: of the samples.
        retained: images to be retained: test images, or training images where the request names some of these.
        forgotten: such images to be forgotten.
        progress: show bars.
    """

    name: str
    sampler: Sampler
    n: int
    seed: int
    retained: Images
    forgotten: Images
    progress: bool = True

    @cached_property
    def pixels(self) -> Tensor:
        """The samples, uint8 (n, C, H, W)."""
        with bar(f"{self.name}: {self.n} samples", self.n, show=self.progress) as tick:
            return self.sampler.model.space.to_pixels(self.sampler.sample(self.n, seed=self.seed, tick=tick)).cpu()


@dataclass(frozen=True, kw_only=True)
class Subject(Drawn):
    """With a judge of its samples.

    Args:
        judge: who judges them.
        forget: the judge's classes that are to be forgotten.
        request: what was to be forgotten.
    """

    judge: Judge
    request: Request
    forget: Set[int]

    @cached_property
    def verdicts(self) -> Tensor:
        """The judge's label value of each sample, (n,)."""
        return self.judge.predict(self.pixels)

    @cached_property
    def verdicts_on_real(self) -> tuple[Tensor, Tensor]:
        """The judge's label values of the test images: the retained, the forgotten."""
        return verdicts_on(self.judge, self.retained), verdicts_on(self.judge, self.forgotten)

    @cached_property
    def worth(self) -> Worth:
        """How far the judge can be trusted with this request."""
        retained, forgotten = self.verdicts_on_real
        return worth(self.judge, self.forget, retained, forgotten[by_rules(self.request, self.forgotten)])

    def kept_counts(self, verdicts: Tensor) -> list[int]:
        """How many of these label values are of each class that is to be kept; junk is none."""
        kept = [label for label in self.judge.classes if label not in self.forget]
        return [int(torch.eq(verdicts, label).sum()) for label in kept]
