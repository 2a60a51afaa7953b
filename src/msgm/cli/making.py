"""Commands that make models: train, train-judge, unlearn."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ..data import ForgetRequest, Images, Source, Split
from ..errors import UserError
from ..experiments.core.evaluate import EvaluateSettings
from ..experiments.core.jobs import Task
from ..experiments.core.selection import Selection, SelectSettings
from ..experiments.sweep.main import repeat
from ..forgetting.methods import DEFAULT
from ..formats.native import EMBEDDED, load
from ..metrics.judge import Judge, JudgeSettings
from ..metrics.judge import train_judge as fit_judge
from ..model.networks import preset
from ..model.score import Prediction, ScoreModel
from ..process.sde import PROCESSES
from ..report.page import Results, commit
from ..storage import claim
from ..training.loop import train as fit
from ..training.loop import unlearn as forget_in
from ..training.runs import RunSpec
from ..training.settings import TrainSettings, UnlearnSettings
from .options import build_method, check_weigher, confidence, hardware, images_of, show, which_images


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
    set: dict[str, Any] | None = None,
    judge: str | None = None,
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
        network: small-16, small-28, small-32, paper-32 or paper-64; auto: the small one of the images' size.
        prediction: what the network's output means.
        forget: rule that selects what must not be generated, as "label in [3, 7]".
        method: a name of those that msgm methods lists.
        alpha: weight of the retain loss (method's own default).
        every: steps between forget losses (method's own default).
        form: variant of the method's forget term.
        set: any other option of the method (--set keep=0.3) or of a part of it (--set forget.window=2).
        judge: a judge folder, or demo, for methods that weigh images by its confidence.
        threads: CPU threads.
        device: auto, cpu or cuda.
        resume: go on with a run that was stopped.
        overwrite: replace what is in the output folder.
    """
    hardware(threads, device)
    recipe = build_method(method, set, alpha=alpha, every=every, form=form)
    images = Source(data, dir=data_dir, size=image_size).open()
    chosen = preset(network, images.shape)
    torch.manual_seed(settings.seed)
    model = ScoreModel(
        chosen.build(images.shape[0]),
        PROCESSES[sde](),
        shape=images.shape,
        prediction=prediction,
        sigma_data=round(float(images.rows().float().std()) / 128, 2),
        patch=chosen.patch,
    )
    target: Images | Split = ForgetRequest(forget).split(images) if forget else images
    sure = confidence(judge, recipe, target) if isinstance(target, Split) else None
    run = RunSpec(folder=out, resume=resume, overwrite=overwrite, device=device, command=command)
    fit(model, target, method=recipe, settings=settings, run=run, confidence=sure)
    print(f"saved {out}")


def train_judge(
    *,
    settings: JudgeSettings,
    out: Path,
    command: str,
    data: str = "demo",
    data_dir: str | None = None,
    image_size: int | None = None,
    column: str = "label",
    threads: int | None = None,
    device: str = "cpu",
    half: bool = False,
    overwrite: bool = False,
) -> None:
    """Train the judge: a classifier of a column of the data with a junk class, measured on the test split.

    Args:
        out: folder for its weights, its confusion and its record.
        data: demo (in the package), mnist, an image folder, or a Parquet file.
        data_dir: where named data sets lie.
        image_size: crop to a square and resize to this many pixels.
        column: what it classifies.
        threads: CPU threads.
        device: cpu or cuda.
        half: store weights as float16.
        overwrite: replace what is in the output folder.
    """
    hardware(threads, device)
    claim(out, overwrite=overwrite)
    source = Source(data, dir=data_dir, size=image_size)
    judge = fit_judge(source.open(), source.open("test"), settings, column=column, device=device)
    judge.record["command"] = command
    judge.save(out, half=half)
    print(f"saved {out}: {judge.accuracy:.2%} of test images right, {judge.real_called_junk:.2%} of them called junk")


def unlearn(
    model: str,
    *,
    settings: UnlearnSettings,
    out: Path,
    forget: str,
    command: str,
    method: str = DEFAULT,
    data: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    alpha: float | None = None,
    every: int | None = None,
    form: str | None = None,
    set: dict[str, Any] | None = None,
    judge: str | None = None,
    select: bool = False,
    selection: SelectSettings,
    seeds: int = 1,
    n: int | None = None,
    nll_images: int | None = None,
    workers: int = 2,
    threads: int | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Fine-tune a copy of a trained model so that it forgets what a rule selects.

    With --select the run is watched on training images that are held out from it (never on test images), and the
    model kept is, of the watched checkpoints whose junk and retained NLL exceed the parent's by no more than
    --select-junk and --select-nll, the one with the lowest UR (ties: the lowest NLL); if none keeps the limits, the
    one with the lowest NLL. The run ends early when the retained NLL passes --select-stop. Each is looked at by a
    reduced audit, a fifth of a full one: 200 samples and 8 likelihood images of each set (--select-n, --select-images).

    Args:
        model: a model folder (ours or diffusers'), or demo for the one in the package.
        out: folder for the new model, its record and log.jsonl.
        forget: rule that selects what must not be generated, as "label in [3, 7]" or "Bangs == 1 and Male == 0".
        method: a name of those that msgm methods lists.
        data: the images; by default those that the model was trained on, read as they were then, if its record
            says it.
        data_dir: where named data sets lie.
        image_size: crop to a square and resize to this many pixels.
        alpha: weight of the retain loss (method's own default).
        every: steps between forget losses (method's own default).
        form: variant of the method's forget term.
        set: any other option of the method (--set keep=0.3) or of a part of it (--set forget.window=2).
        judge: a judge folder, or demo: for methods that weigh images by its confidence, and for --select and --seeds,
            which take demo by default.
        select: watch the run and keep its best checkpoint.
        seeds: with 2 or more, as many runs (seed, seed + 1, ...) in out/seed-<k>, each audited on the test images;
            results.json and the table have them, their mean and its interval.
        n: samples judged of each seed (1000).
        nll_images: test images of each set whose likelihood is measured for each seed (40).
        workers: processes of one thread that share the seeds; 1 for none but this.
        threads: CPU threads.
        device: auto, cpu or cuda.
        resume: go on with a run that was stopped.
        overwrite: replace what is in the output folder.
    """
    hardware(threads, device)
    if seeds < 1 or (seeds == 1 and (n is not None or nll_images is not None)):
        raise UserError("--seeds must be 1 or more, and --n and --nll-images belong to --seeds of 2 or more")
    recipe = build_method(method, set, alpha=alpha, every=every, form=form)
    parent = load(model)
    source = which_images(parent, data, data_dir, image_size)
    split = ForgetRequest(forget).split(images_of(parent, source, "train"))
    # A judge that watches only is none that weighs.
    weigher = judge if recipe.power or not (select or seeds > 1) else None
    check_weigher(weigher, recipe)
    if seeds > 1:
        given: dict[str, Any] = {
            key: value for key, value in (("n", n), ("nll_images", nll_images)) if value is not None
        }
        task = Task(
            model=model, data=source, rule=forget,
            judge=judge or EMBEDDED, confidence=weigher,
            evaluation=replace(EvaluateSettings(seed=settings.seed), **given),
            selection=selection if select else None, device=device, command=command,
        )  # fmt: skip
        found = repeat(
            task, recipe, settings=settings, seeds=seeds, out=out, workers=workers, resume=resume, overwrite=overwrite,
            say=partial(print, flush=True),
        )  # fmt: skip
        show(found)
        print(f"saved {out}")
        return
    run = RunSpec(folder=out, resume=resume, overwrite=overwrite, device=device, command=command)
    fit_to = partial(forget_in, parent, method=recipe, settings=settings, run=run)
    if not select:
        fit_to(split, confidence=confidence(weigher, recipe, split))
        print(f"saved {out}")
        return
    eye = Judge.load(judge or EMBEDDED)
    with Selection(selection, split=split, judge=eye, parent=parent, steps=settings.steps, out=out) as watch:
        child = fit_to(watch.split, confidence=confidence(weigher, recipe, watch.split), watch=watch)
    chosen = child.record["selection"]
    budget = {"unlearning": asdict(settings), "selection": asdict(selection)}
    show(Results(command=command, seed=settings.seed, commit=commit(), budget=budget, rows=watch.verdicts()))
    limits = "" if chosen["within_limits"] else "; NO watched checkpoint keeps the limits"
    print(f"saved {out}: step {chosen['step']}{', stopped early' if chosen['stopped_early'] else ''}{limits}")
