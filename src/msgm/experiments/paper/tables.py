"""The paper's tables and figures as data: the models each compares, on which request, and what is printed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...choice import Choice
from ...forgetting.methods import METHODS as RECIPES
from ...forgetting.methods import Method
from .printed import EDITED, Edit, Printed

ProcessName = Literal["ve", "vp", "ddpm"]
Origin = Literal["tuned", "scratch"]

METHODS = ("standard", "orthogonal", "obtuse", "unseen", "erasediff")
"""Those that the paper compares, in its order."""
OURS = ("moderate", "deflect", "steer")

VARIANTS = {
    str(variant): variant
    for variant in (
        Choice.of("orthogonal", alpha=0.7),
        Choice.of("orthogonal", alpha=0.9),
        Choice.of("orthogonal", alpha=0.7, every=1),
    )
}


def recipe(name: str) -> Method:
    """The method of this name as it stands, or with the options of `VARIANTS`."""
    return VARIANTS.get(name, Choice(name)).maker("method", RECIPES)()


@dataclass(frozen=True, kw_only=True)
class Request:
    """Images and what is to be forgotten of them; ``groups`` are what a table counts: classes, alone and together.

    ``names`` are of all values of ``column``, in their order. ``mask`` is what is filled in of an image. Without
    ``pictures`` no sample may be shown: the images' licence, and the people on them, forbid it.
    """

    data: str
    rule: str
    names: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]
    column: str = "label"
    mask: str = "upper-half"
    pictures: bool = True


MNIST = Request(
    data="mnist",
    rule="label in [3, 7]",
    names=tuple("0123456789"),
    groups={"3": (3,), "7": (7,), "3 and 7": (3, 7)},
)
CIFAR10 = Request(
    data="cifar10",
    rule="label in [1, 5]",
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    groups={"automobile": (1,), "dog": (5,), "automobile and dog": (1, 5)},
)
STL10 = Request(
    data="stl10",
    rule="label == 0",
    names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    groups={"airplane": (0,)},
)
AIRPLANE = Request(data="cifar10-airplane", rule="label == 0", names=CIFAR10.names, groups={"airplane": (0,)})
CELEBA = Request(
    data="celeba",
    rule="Bangs == 1",
    names=("no bangs", "bangs"),
    groups={"bangs": (1,)},
    column="Bangs",
    mask="band",
    pictures=False,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of a table that are about one process.

    ``methods`` are the table's columns, ``ours`` what is compared with them where models are fine-tuned. ``rates`` are
    the paper's unlearning ratios in per cent, by group in the order of ``methods`` (None: not printed); ``nll`` its
    likelihoods in bits/dim, of retained and of forget test images. ``edits`` are ways in which each model edits images,
    with what the paper prints of them: accuracies of both sets in per cent, and four numbers of the retained images.
    """

    process: ProcessName
    origin: Origin
    methods: tuple[str, ...] = METHODS
    ours: tuple[str, ...] = OURS
    rates: Mapping[str, Printed] = field(default_factory=dict)
    nll: Mapping[Literal["retain", "forget"], Printed] = field(default_factory=dict)
    edits: Mapping[Edit, Mapping[str, Printed]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table or figure of the paper, or the rows of it that one data set fills."""

    name: str
    title: str
    request: Request
    parts: tuple[Part, ...]
    note: str = ""


_ALPHAS = ("orthogonal alpha=0.7", "orthogonal alpha=0.9", "orthogonal", "unseen")
_AIRPLANE = (
    Part(
        process="vp",
        origin="scratch",
        rates={"airplane": (12.1, 2.4, 3.6, 3.8, None)},
        nll={"retain": (2.90, 2.90, 2.92, 2.90, None), "forget": (2.19, 8.94, 9.25, 2.32, None)},
    ),
    Part(process="vp", origin="tuned"),
)


def _edited(name: str, title: str, request: Request, edit: Edit) -> Table:
    """A table of edited images: as the paper has it, and of fine-tuned models."""
    process: ProcessName = "ve" if request is MNIST else "vp"
    return Table(
        name=name,
        title=title,
        request=request,
        parts=(
            Part(process=process, origin="scratch", edits=EDITED.get(name, {edit: {}})),
            Part(process=process, origin="tuned", edits={edit: {}}),
        ),
    )


TABLES = {
    table.name: table
    for table in (
        Table(
            name="table2-mnist",
            title="Table 2, MNIST (VE)",
            request=MNIST,
            parts=(
                Part(process="ve", origin="tuned"),
                Part(
                    process="ve",
                    origin="scratch",
                    rates={
                        "3": (11.0, 0.4, 1.5, 1.8, 1.4),
                        "7": (15.8, 0.8, 3.6, 2.3, 1.1),
                        "3 and 7": (26.8, 1.2, 5.1, 4.1, 2.5),
                    },
                    nll={"retain": (2.82, 3.92, 3.70, 3.07, 3.30), "forget": (2.78, 13.23, 12.08, 3.01, 3.74)},
                ),
            ),
        ),
        Table(
            name="table7",
            title="Table 7, MNIST: alpha (VE, Orthogonal)",
            request=MNIST,
            parts=(
                Part(
                    process="ve",
                    origin="tuned",
                    methods=_ALPHAS,
                    ours=(),
                    rates={"3": (0.7, 0.5, 0.4, 1.8), "7": (1.2, 0.9, 0.8, 2.3), "3 and 7": (1.9, 1.4, 1.2, 4.1)},
                    nll={"retain": (4.17, 4.05, 3.92, 3.07), "forget": (13.32, 13.88, 14.75, 3.01)},
                ),
            ),
            note=(
                "The paper's columns for 0.99 and 1 are those of its Table 2, models trained from scratch; ours are "
                "fine-tuned. Its D_f for 0.99 is 14.75 here and 13.23 there."
            ),
        ),
        Table(
            name="figure3",
            title="Figure 3: what Unseen still generates (MNIST, VE, trained from scratch)",
            request=MNIST,
            parts=(Part(process="ve", origin="scratch", methods=("unseen",), ours=()),),
        ),
        Table(
            name="figure4",
            title="Figure 4: samples of each method (MNIST, VE, trained from scratch)",
            request=MNIST,
            parts=(Part(process="ve", origin="scratch", methods=("unseen", "orthogonal", "obtuse"), ours=()),),
        ),
        Table(
            name="figure7",
            title="Figure 7, MNIST: a forget loss on every step, and on every fourth (VE, Orthogonal, alpha 0.7)",
            request=MNIST,
            parts=(
                Part(
                    process="ve",
                    origin="tuned",
                    methods=("orthogonal alpha=0.7 every=1", "orthogonal alpha=0.7"),
                    ours=(),
                ),
            ),
        ),
        _edited("table3-mnist", "Table 3 and Figure 5, MNIST: the upper half filled in (VE)", MNIST, "inpaint"),
        _edited("table4-mnist", "Table 4 and Figure 6, MNIST: rebuilt from latents (VE)", MNIST, "reconstruct"),
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
        _edited("table3-cifar10", "Table 3 and Figure 5, CIFAR-10: the upper half filled in (VP)", CIFAR10, "inpaint"),
        _edited("table4-cifar10", "Table 4 and Figure 6, CIFAR-10: rebuilt from latents (VP)", CIFAR10, "reconstruct"),
        _edited("table3-celeba", "Table 3, CelebA: a band of the picture filled in (VP)", CELEBA, "inpaint"),
        Table(
            name="table2-celeba",
            title="Tables 2 and 6, CelebA: Bangs (VP)",
            request=CELEBA,
            parts=(
                Part(process="vp", origin="tuned", rates={"bangs": (19.6, 2.6, 0.1, 6.7, None)}),
                Part(process="vp", origin="scratch", rates={"bangs": (19.6, 3.5, 0.7, 6.7, None)}),
            ),
        ),
        Table(name="table2-stl10", title="Table 2, STL-10: airplanes (VP)", request=STL10, parts=_AIRPLANE),
        Table(
            name="table2-airplane",
            title="Table 2, STL-10's airplanes on CIFAR-10 (VP), a stand-in",
            request=AIRPLANE,
            parts=_AIRPLANE,
            note="A stand-in: these are CIFAR-10's airplanes, and the paper's numbers are of STL-10.",
        ),
    )
}

GROUPS = {
    "mnist": ("table2-mnist", "table7", "figure3", "figure4", "figure7", "table3-mnist", "table4-mnist"),
    "cifar10": ("table2-cifar10", "table5", "table6", "table3-cifar10", "table4-cifar10"),
    "celeba": ("table2-celeba", "table3-celeba"),
}
"""Tables that are about one request and share their runs: made together they are one grid."""
