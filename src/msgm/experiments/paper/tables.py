"""The paper's tables as data: which models each compares, on which request, and what is printed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ProcessName = Literal["vp", "ddpm"]
Origin = Literal["tuned", "scratch"]

METHODS = ("standard", "orthogonal", "obtuse", "unseen", "erasediff")
"""Those that the paper compares, in its order."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Images and what is to be forgotten of them; ``groups`` are what a table counts: classes, alone and together."""

    data: str
    rule: str
    names: tuple[str, ...]
    """Of all labels, in their order."""
    groups: Mapping[str, tuple[int, ...]]


CIFAR10 = Request(
    data="cifar10",
    rule="label in [1, 5]",
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    groups={"automobile": (1,), "dog": (5,), "automobile and dog": (1, 5)},
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of a table that are about one process.

    ``rates`` are the paper's unlearning ratios in per cent, by group in the order of `METHODS`; ``nll`` its
    likelihoods in bits/dim, of retained and of forget test images.
    """

    process: ProcessName
    origin: Origin
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    nll: Mapping[Literal["retain", "forget"], tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the paper, or the rows of it that one data set fills."""

    name: str
    title: str
    request: Request
    parts: tuple[Part, ...]
    note: str = ""


TABLES = {
    table.name: table
    for table in (
        Table(
            name="table2-cifar10",
            title="Table 2, CIFAR-10: trained again from scratch (VP)",
            request=CIFAR10,
            parts=(
                Part(
                    process="vp",
                    origin="scratch",
                    rates={
                        "automobile": (11.2, 1.9, 0.9, 3.4, 9.7),
                        "dog": (13.4, 10.0, 11.5, 10.8, 8.2),
                        "automobile and dog": (24.6, 11.9, 12.4, 14.2, 17.9),
                    },
                    nll={"retain": (3.12, 3.22, 3.28, 3.09, 3.09), "forget": (3.20, 5.94, 4.37, 3.21, 4.10)},
                ),
            ),
        ),
        Table(
            name="table5",
            title="Table 5, CIFAR-10: likelihoods after fine-tuning (VP)",
            request=CIFAR10,
            parts=(
                Part(
                    process="vp",
                    origin="tuned",
                    nll={"retain": (2.89, 3.06, 4.36, 2.92, 3.06), "forget": (2.91, 10.36, 14.96, 2.95, 4.38)},
                ),
            ),
            note=(
                "The paper heads the columns Standard, Unseen, Unlearning, Unseen, EraseDiff. They are read here in "
                "the order of its other tables: Standard, Orthogonal, Obtuse, Unseen, EraseDiff."
            ),
        ),
        Table(
            name="table6",
            title="Table 6, CIFAR-10: unlearning ratios after fine-tuning (VP and DDPM)",
            request=CIFAR10,
            parts=(
                Part(
                    process="vp",
                    origin="tuned",
                    rates={
                        "automobile": (11.2, 2.7, 0.6, 3.4, 9.4),
                        "dog": (13.4, 8.7, 8.9, 10.8, 5.2),
                        "automobile and dog": (24.6, 11.4, 9.5, 14.2, 14.6),
                    },
                ),
                Part(
                    process="ddpm",
                    origin="tuned",
                    rates={
                        "automobile": (13.1, 3.3, 1.6, 2.7, 3.0),
                        "dog": (13.9, 5.4, 3.6, 4.5, 4.4),
                        "automobile and dog": (27.0, 8.7, 5.2, 7.2, 7.4),
                    },
                ),
            ),
        ),
    )
}
