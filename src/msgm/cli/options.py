"""What several commands share: hardware, methods by name, the images of a model, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..choice import Choice
from ..data import Images, Request, Source, Split, request_of
from ..data.decode import Background, Mode
from ..errors import UserError
from ..experiments.core.evaluate import retain_confidence
from ..forgetting.methods import METHODS, PARTS, Method
from ..formats.native import EMBEDDED
from ..metrics.judge import Judge
from ..metrics.shares import Role, forget_classes
from ..model.score import ScoreModel
from ..processes import here
from ..progress import note
from ..report.results import Results
from ..report.tables import Columns, legend, screen_tables
from ..sampling.filters import FILTERS, Filter
from ..training.earlier import same_classes
from ..training.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images, as a command is told; `Source` with what is left to the record of a model.

    Args:
        dir: where named data sets lie.
        size: crop to a square and resize to this many pixels.
        labels: the column that is the label.
        mode: bring all images to grey or to rgb.
        background: what transparent pixels lie on; white unless the record says otherwise.
        skip_bad: skip images that cannot be read.
        changed: whether images may differ from those that the record names.
    """

    name: str | None = None
    dir: str | None = None
    size: int | None = None
    labels: str | None = None
    mode: Mode | None = None
    background: Background | None = None
    skip_bad: bool = False
    changed: Literal["refuse", "ok"] = "refuse"

    def of(self, model: ScoreModel) -> Source:
        """The images that are named, or else those of the model's record."""
        return Source.of_record(model.record, **self._given)

    @property
    def source(self) -> Source:
        """The images that are named."""
        return Source.of_record({}, **self._given)

    @property
    def _given(self) -> dict[str, Any]:
        return {**asdict(self), "skip_bad": self.skip_bad or None}


def hardware(threads: int | None, device: str = "auto", precision: str = "fp32", compile: bool = False) -> str:
    """Set the number of threads; what ``device`` means here (`Runtime.choose`). Before anything else happens."""
    if threads is not None:
        if not 1 <= threads <= 256:
            raise UserError(f"--threads must lie between 1 and 256; got {threads}")
        torch.set_num_threads(threads)
    return Runtime.choose(device, precision=precision, compile=compile).device.type


def build_method(choice: Choice) -> Method:
    """The recipe of this name with its options and parts: ``combine`` names another part, ``combine.alpha`` sets it."""
    roles = ("retain", *PARTS)
    own = tuple((key, value) for key, value in choice.options if key.split(".")[0] not in roles)
    method = Choice(choice.name, own).maker("method", METHODS)()
    for option, value in choice.options:
        role, _, key = option.partition(".")
        if role not in roles:
            continue
        if method.forget is None and role != "retain":
            raise UserError(f"method {choice.name} has no forget term to set {option} of; choose another method")
        part = replace(getattr(method, role), **{key: value}) if key else Choice(value).maker(role, PARTS[role])()
        method = replace(method, **{role: part})
    return method


def check_weigher(confidence: str | None, method: Method) -> None:
    """UserError for a method that weighs images by a judge's confidence without one, and for another with one."""
    if confidence is not None and not method.power:
        raise UserError(f"method {method.name} does not use --confidence; leave it out")
    if confidence is None and method.power:
        raise UserError(
            f"method {method.name} weighs images by a judge's confidence; name the judge: --confidence FOLDER or demo"
        )


def weights(confidence: str | None, method: Method, split: Split) -> Tensor | None:
    """The judge's P(retain | x_0) of each retained image, for a method that weighs by it."""
    check_weigher(confidence, method)
    return retain_confidence(Judge.load(confidence), split) if confidence is not None else None


def judged_by_package(source: Source) -> bool:
    """Whether the images are those that the judge of the package was trained on, or others of MNIST."""
    return source.name in (EMBEDDED, "mnist") and source.size in (None, 28) and source.mode in (None, "grey")


def judge_for(source: Source, named: str | None, role: Role) -> str:
    """The judge that is named, else that of the package where the images are of its kind; UserError where not."""
    if named is None and not judged_by_package(source):
        raise UserError(
            f"the judge of the package knows MNIST, and the images are of {source.name}; name a {role} that was "
            "trained on them",
            option=role,
        )
    return named or EMBEDDED


def guide_of(choice: Choice, model: ScoreModel, named: str | None, source: Source | None) -> Judge | None:
    """The judge that guides, for the filter of this name; None for one that needs none.

    ``source`` is by default the images that the model's record names.
    """
    if choice.name != "guided":
        return None
    judge = Judge.load(named or judge_for(source or Data().of(model), None, "guide"))
    if judge.shape != model.shape:
        raise UserError(
            f"the guide takes images of shape {judge.shape}, the model makes {model.shape}; name another",
            option="guide",
        )
    return judge.to(model.device)


def build_filter(
    choice: Choice,
    model: ScoreModel,
    *,
    request: Request | None,
    guide: Judge | None,
    against: ScoreModel | None,
    source: Source | None,
) -> Filter:
    """The filter of this name around a model, made from what it needs: a request's images, a judge, another model.

    ``source`` is by default the images that the model's record names.
    """
    name, make = choice.name, choice.maker("filter", FILTERS)
    if name == "contrast":
        if against is None:
            raise UserError("filter contrast needs a second model, one of all the data; name it with --against MODEL")
        return make(model, against.to(model.device))
    if request is None:
        raise UserError(f"filter {name} needs a request: say what is to be avoided with --forget RULE")
    if guide is not None:
        return make(model, guide.log_retain(forget_classes(request, guide, "guide"), model.space))
    split = request.split(meant(model, images_of(model, source or Data().of(model), "train"), request))
    images = model.space.to_model(split.forget.rows())
    return make(model, images) if name == "repel" else make(model, images, model.space.to_model(split.retain.rows()))


def meant(model: ScoreModel, images: Images, request: Request | None) -> Images:
    """The images; UserError where the model's own request means another class of them than of those of its record."""
    own = model.record.get("request")
    if own and images.label_names and request == request_of(own):
        same_classes(request, model.record.get("data") or {}, images)
    return images


def refuse_unused(filter: Choice | None, **given: Any) -> None:
    """UserError for an option that says something to filters, but not to the one chosen."""
    for key, value in given.items():
        if value is not None and (filter is None or key not in FILTERS[filter.name].needs):
            known = [name for name, cls in FILTERS.items() if key in cls.needs]
            raise UserError(
                f"--{key} is for --filter {' or '.join(known)}; got {'no filter' if filter is None else filter.name}"
            )


def opened(source: Source, split: Literal["train", "test"] = "train") -> Images:
    """One split of the images; what was skipped or left out of them is said on stderr."""
    images = source.open(split)
    say(images.notes)
    return images


def say(notes: Sequence[str]) -> None:
    """Lines to be seen that are no result."""
    for each in notes if here().first else ():
        note(each)


def images_of(model: ScoreModel, source: Source, split: Literal["train", "test"]) -> Images:
    """One split of the images, which have to be of the model's shape."""
    if source.size is not None and len(model.shape) == 3 and source.size != model.shape[-1]:
        raise UserError(
            f"the model makes images of {model.shape[-1]} pixels a side, and the data are resized to {source.size}; "
            f"resize them (size {model.shape[-1]})",
            option="data.size",
        )
    try:
        found = opened(source, split)
    except UserError as error:
        named = source.name == model.record.get("data", {}).get("name")
        hint = " (named by the model's record; say where its images are with --data)" if named else ""
        raise UserError(f"{error}{hint}") from error
    found.check_shape(model.shape)
    return found


def show(results: Results, more: Columns | None = None) -> None:
    """Print the tables of results, with ``more`` columns, what they are, and what went wrong with any row."""
    from rich.console import Console

    console = Console()
    for table in screen_tables(results, more, width=console.width):
        console.print(table)
    console.print(legend(results), markup=False, highlight=False)
    for row in results.rows:
        if row.said != "finished":
            print(f"{row.model}: {row.said}")
