"""What several commands share: hardware, methods by name, the images of a model, tables."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from ..data import ImageData, load_data
from ..errors import UserError
from ..evaluation.report import Columns, Results, table
from ..forgetting.methods import METHODS, Method
from ..score import ScoreModel


def hardware(threads: int | None, device: str = "cpu") -> None:
    """Set the number of threads; refuse a device that is not there before anything else happens."""
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads must be 1 or more; got {threads}")
        torch.set_num_threads(threads)
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError):
            raise UserError(f"--device {device} cannot be used on this machine; choose cpu") from None


def build_method(name: str, **options: Any) -> Method:
    """The recipe of this name with the options that are not None; an option it does not take is an error."""
    if name not in METHODS:
        raise UserError(f"no method {name!r}; known: {', '.join(METHODS)}")
    given = {key: value for key, value in options.items() if value is not None}
    takes = get_type_hints(METHODS[name])
    takes.pop("return", None)
    for key, value in given.items():
        if key not in takes:
            raise UserError(f"method {name} takes no --{key}; it takes: {', '.join(takes) or 'no options'}")
        if get_origin(takes[key]) is Literal and value not in get_args(takes[key]):
            raise UserError(f"method {name} has no {key} {value!r}; known: {', '.join(get_args(takes[key]))}")
    return METHODS[name](**given)


def data_name(model: ScoreModel, data: str | None) -> str:
    """The data asked for, or those that the model's record names."""
    name = data or model.record.get("data", {}).get("name") or model.record.get("request", {}).get("data")
    if name is None:
        raise UserError("the model's record names no data; say which images with --data")
    return str(name)


def images_of(
    model: ScoreModel, data: str | None, data_dir: str | None, image_size: int | None, split: Literal["train", "test"]
) -> ImageData:
    """The images asked for, or those that the model's record names; of the model's shape."""
    try:
        found = load_data(data_name(model, data), split=split, data_dir=data_dir, image_size=image_size)
    except UserError as error:
        hint = "" if data else " (named by the model's record; say where its images are with --data)"
        raise UserError(f"{error}{hint}") from error
    if found.shape != model.shape:
        raise UserError(
            f"the model makes images of shape {model.shape} (channels, height, width), {found.name} has {found.shape}; "
            f"resize with --image-size or use other data"
        )
    return found


def show(results: Results, more: Columns | None = None) -> None:
    """Print the table of results."""
    from rich.console import Console

    Console().print(table(results, more))
