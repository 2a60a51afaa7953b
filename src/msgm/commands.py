"""What each command does, in terms of the library. `cli` reads the options from these signatures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import torch

from .checkpoint import EMBEDDED, claim, embedded, load
from .data import ForgetRequest, ImageData, Split, load_data
from .errors import UserError
from .evaluation.judge import Judge, JudgeSettings, train_judge as fit_judge
from .forgetting.methods import METHODS, Method
from .networks import preset
from .score import Prediction, ScoreModel
from .sde import PROCESSES
from .training import TrainSettings, UnlearnSettings
from .training import train as fit
from .training import unlearn as forget_in


def train(
    *,
    settings: TrainSettings,
    out: Path,
    command: str,
    data: str = "demo",
    data_dir: str | None = None,
    image_size: int | None = None,
    sde: Literal["ve", "vp", "subvp", "ddpm"] = "ve",
    network: str = "auto",
    prediction: Prediction = "edm",
    forget: str | None = None,
    method: str = "standard",
    alpha: float | None = None,
    every: int | None = None,
    form: str | None = None,
    threads: int | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train a score model from scratch.

    With --forget and --method this is re-training with an unlearning method; without, the ordinary model of all data.

    Args:
        out: folder for the model, its record and log.jsonl.
        data: demo (in the package), mnist, an image folder, or a Parquet file.
        data_dir: where named data sets lie.
        image_size: crop to a square and resize to this many pixels.
        sde: the forward process.
        network: a preset (small-28, small-32, paper-32, paper-64); auto takes the small one of the images' size.
        prediction: what the network's output means.
        forget: rule that selects what must not be generated, as "label in [3, 7]".
        method: standard, unseen, orthogonal, obtuse, redirect.
        alpha: weight of the retain loss (method's own default).
        every: steps between forget losses (method's own default).
        form: variant of the method's forget term.
        threads: CPU threads.
        device: auto, cpu or cuda.
        resume: go on with a run that was stopped.
        overwrite: replace what is in the output folder.
    """
    _threads(threads)
    recipe = build_method(method, alpha=alpha, every=every, form=form)
    images = load_data(data, data_dir=data_dir, image_size=image_size)
    chosen = preset(network, images.shape)
    torch.manual_seed(settings.seed)
    model = ScoreModel(
        chosen.build(images.shape[0]),
        PROCESSES[sde](),
        shape=images.shape,
        prediction=prediction,
        sigma_data=round(float(images.images.float().std()) / 128, 2),
        patch=chosen.patch,
    )
    target: ImageData | Split = ForgetRequest(forget).split(images) if forget else images
    fit(
        model, target, method=recipe, settings=settings, out=out, resume=resume, overwrite=overwrite, device=device,
        command=command,
    )  # fmt: skip
    print(f"saved {out}")


def build_method(name: str, **options: Any) -> Method:
    """The recipe of this name with the options that are not None; an option it does not take is an error."""
    if name not in METHODS:
        raise UserError(f"no method {name!r}; known: {', '.join(METHODS)}")
    given = {key: value for key, value in options.items() if value is not None}
    import inspect

    takes = inspect.signature(METHODS[name]).parameters
    for key in given:
        if key not in takes:
            raise UserError(f"method {name} takes no --{key}; it takes: {', '.join(takes) or 'no options'}")
    return METHODS[name](**given)


def _threads(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads must be 1 or more; got {threads}")
        torch.set_num_threads(threads)
