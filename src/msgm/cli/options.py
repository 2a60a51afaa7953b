"""What several commands share: hardware, methods by name, the images of a model, tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from ..data import ForgetRequest, Images, Source, Split
from ..errors import UserError
from ..experiments.core.evaluate import retain_confidence
from ..forgetting.methods import METHODS, PARTS, Method
from ..formats.native import EMBEDDED
from ..metrics.judge import Judge
from ..metrics.shares import forget_classes
from ..model.score import ScoreModel
from ..report.results import Results
from ..report.tables import Columns, legend, screen_tables
from ..sampling.filters import FILTERS, Contrast, Filter, Guided, Repel, SafeDenoiser
from ..training.runtime import Runtime
from .reading import read_model


def hardware(threads: int | None, device: str = "auto") -> str:
    """Set the number of threads; what ``device`` means here (`Runtime.choose`). Before anything else happens."""
    if threads is not None:
        if not 1 <= threads <= 256:
            raise UserError(f"--threads must lie between 1 and 256; got {threads}")
        torch.set_num_threads(threads)
    return Runtime.choose(device).device.type


def build_method(name: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Method:
    """The recipe of this name with the options that are not None; an option it does not take is an error.

    ``settings`` may also name a part of the method, ``combine="pcgrad"`` (`PARTS`), or a field of one,
    ``{"forget.window": 2.0}``.
    """
    if name not in METHODS:
        raise UserError(f"no method {name!r}; known: {', '.join(METHODS)}")
    given = {key: value for key, value in options.items() if value is not None} | dict(settings or {})
    own = {key: value for key, value in given.items() if key.split(".")[0] not in ("retain", *PARTS)}
    method = METHODS[name](**_checked(f"method {name}", METHODS[name], own))
    for part in sorted(given.keys() - own.keys()):  # combine before combine.alpha
        role, _, key = part.partition(".")
        if method.forget is None and role != "retain":
            raise UserError(f"method {name} has no forget term to set {part} of")
        if not key:
            if given[part] not in PARTS.get(role, {}):
                raise UserError(f"no {role} {given[part]!r}; known: {', '.join(PARTS.get(role, {}))}")
            method = replace(method, **{role: PARTS[role][given[part]]()})
        elif getattr(method, role) is None:
            raise UserError(f"method {name} has nothing to set {part} of; say what first: --set {role}=NAME")
        else:
            old = getattr(method, role)
            new = _checked(f"{role} of method {name}", type(old), {key: given[part]})
            method = replace(method, **{role: replace(old, **new)})
    return method


def _checked(what: str, made_by: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options, if the function or class takes them and they are of its types."""
    takes = {k: v for k, v in get_type_hints(made_by).items() if k in signature(made_by).parameters}
    for key, value in given.items():
        if key not in takes:
            raise UserError(f"{what} takes no --{key}; it takes: {', '.join(takes) or 'no options'}")
        kinds = get_args(takes[key]) if isinstance(takes[key], UnionType) else (takes[key],)
        choices = [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]
        if choices and value not in choices:
            raise UserError(f"{what} has no {key} {value!r}; known: {', '.join(choices)}")
        plain = tuple(kind for kind in kinds if isinstance(kind, type))
        number = float in plain and type(value) is int
        if not choices and type(value) not in plain and not number:
            raise UserError(f"{key} of {what} is a {' or '.join(k.__name__ for k in plain)}; got {value!r}")
    return dict(given)


def check_weigher(judge: str | None, method: Method) -> None:
    """UserError for a method that weighs images by a judge's confidence without one, and for another with one."""
    if judge is not None and not method.power:
        raise UserError(f"method {method.name} asks no judge; leave out --judge")
    if judge is None and method.power:
        raise UserError(f"method {method.name} weighs images by a judge's confidence; give one: --judge FOLDER or demo")


def confidence(judge: str | None, method: Method, split: Split) -> Tensor | None:
    """The judge's P(retain | x_0) of each retained image, for a method that weighs by it."""
    check_weigher(judge, method)
    return retain_confidence(Judge.load(judge), split) if judge is not None else None


def build_filter(
    name: str,
    model: ScoreModel,
    *,
    forget: str | None,
    guide: str | None,
    against: str | None,
    strength: float | None,
    source: Source | None,
) -> Filter:
    """The filter of this name around a model, made from what it needs: a rule's images, a judge, another model.

    ``forget`` is by default the model's own request, ``source`` the images that its record names.
    """
    if name not in FILTERS:
        raise UserError(f"no filter {name!r}; known: {', '.join(FILTERS)}")
    given: dict[str, Any] = {} if strength is None else {"strength": strength}
    if name == "contrast":
        if against is None:
            raise UserError("filter contrast needs a second model, one of all the data; name it with --against MODEL")
        return Contrast(model, read_model(against).to(model.device), **given)
    rule = forget or model.record.get("request", {}).get("rule")
    if not rule:
        raise UserError(f"filter {name} needs a rule: say what is to be avoided with --forget RULE")
    request = ForgetRequest(rule)
    if name == "guided":
        judge = Judge.load(guide or EMBEDDED).to(model.device)
        if judge.shape != model.shape:
            raise UserError(
                f"the judge takes images of shape {judge.shape}, the model makes {model.shape}; see --guide"
            )
        return Guided(model, judge.log_retain(forget_classes(request, judge), model.space), **given)
    split = request.split(images_of(model, source or which_images(model), "train"))
    images = model.space.to_model(split.forget.rows())
    if name == "repel":
        return Repel(model, images, **given)
    return SafeDenoiser(model, images, model.space.to_model(split.retain.rows()), **given)


def refuse_unused(name: str | None, **given: Any) -> None:
    """UserError for an option that says something to filters, but not to the one chosen."""
    takes = ("strength", *FILTERS[name].needs) if name in FILTERS else ()
    for key, value in given.items():
        if value is not None and key not in takes:
            known = [other for other, cls in FILTERS.items() if key in ("strength", *cls.needs)]
            raise UserError(f"--{key} is for --filter {' or '.join(known)}; got {name or 'no filter'}")


def which_images(
    model: ScoreModel, data: str | None = None, data_dir: str | None = None, image_size: int | None = None
) -> Source:
    """The images that the options say, or else those of the model's record."""
    return Source.of_record(model.record, name=data, dir=data_dir, size=image_size)


def opened(source: Source, split: Literal["train", "test"] = "train") -> Images:
    """One split of the images; what was skipped or left out of them is said on stderr."""
    images = source.open(split)
    say(images.notes)
    return images


def say(notes: Sequence[str]) -> None:
    """Lines to be seen that are no result."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def images_of(model: ScoreModel, source: Source, split: Literal["train", "test"]) -> Images:
    """One split of the images, which have to be of the model's shape."""
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
