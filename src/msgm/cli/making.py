"""Commands that make models: train, train-judge, unlearn."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from ..choice import Choice
from ..data import Images, Split, parts, request_of
from ..errors import UserError
from ..experiments.core.evaluate import EvaluateSettings
from ..experiments.core.jobs import Task
from ..experiments.core.selection import Selection, SelectSettings
from ..experiments.core.stand_in import stand_in
from ..experiments.sweep.main import REPEATED, repeat
from ..folders import opened as folder_for
from ..folders import ready
from ..forgetting.methods import DEFAULT, METHODS, PARTS
from ..formats import Reading
from ..formats.native import EMBEDDED
from ..metrics.judge import MADE as JUDGE
from ..metrics.judge import PROMPT, check_sides, judge_bytes
from ..metrics.judge_training import JudgeSettings, zero_shot
from ..metrics.judge_training import train_judge as fit_judge
from ..metrics.shares import rules_of
from ..model.networks import preset
from ..model.precondition import PRECONDITIONS, Prediction
from ..model.score import Precision, ScoreModel
from ..process.sde import PROCESSES
from ..processes import here
from ..report.page import commit
from ..report.results import Results
from ..training.earlier import Earlier, before, forgetting
from ..training.few import fitting, said
from ..training.loop import train as fit
from ..training.loop import unlearn as forget_in
from ..training.runs import MADE, RunSpec
from ..training.settings import TrainSettings, UnlearnSettings
from ..training.trackers import TrackerName
from ..training.trackers import check as check_tracker
from .asking import WAYS, Forget, judge_of
from .options import Data, build_method, check_weigher, hardware, images_of, judge_for, opened, say, show, weights
from .reading import read_model


def train(
    *,
    out: Path,
    command: str,
    data: Data = Data(name="demo"),
    sde: Literal["ve", "vp", "subvp", "ddpm"] = "ve",
    network: str = "auto",
    prediction: Prediction = "edm",
    request: Forget = Forget(),
    method: Annotated[Choice, METHODS, PARTS] = Choice("standard"),
    confidence: str | None = None,
    threads: int | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    compile: bool = False,
    log_with: TrackerName | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: TrainSettings,
) -> None:
    """Train a score model from scratch.

    With --forget and --method this is re-training with an unlearning method; without, the ordinary model of all data.

    Args:
        settings: Training
        request: What is to be forgotten
        out: folder for the model, its record and log.jsonl.
        data: demo (in the package), mnist, an image folder, or a Parquet file.
        sde: the forward process.
        network: small-16, -28, -32 or -64, gpu-28, -32 or -64, paper-28, -32 or -64; auto: the small one of the images'
            size.
        prediction: what the network's output means.
        method: one of those that msgm methods lists.
        confidence: judge that weighs images: a folder, or demo.
        threads: CPU threads.
        device: auto, cpu or cuda.
        precision: of the network.
        compile: compile the network, on a GPU.
        log_with: told the losses too, beside log.jsonl.
        resume: go on with a run that was stopped.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device, precision, compile)
    check_tracker(log_with, out)
    ready(out, MADE, resume=resume, overwrite=overwrite)
    recipe = build_method(method)
    check_weigher(confidence, recipe)
    asked = request.given(data.source)
    if confidence is not None and asked is None:
        raise UserError(f"--confidence is used beside a request; say what is to be forgotten: {WAYS}")
    if data.size is not None:
        preset(network, (1, data.size, data.size))
    images = opened(data.source)
    chosen = preset(network, images.shape)
    torch.manual_seed(settings.seed)
    model = ScoreModel(
        chosen.build(images.shape[0]),
        PROCESSES[sde](),
        shape=images.shape,
        precondition=PRECONDITIONS[prediction](sigma_data=round(images.std / 128, 2)),
        patch=chosen.patch,
    )
    target: Images | Split = asked.split(images) if asked is not None else images
    sure = weights(confidence, recipe, target) if isinstance(target, Split) else None
    run = RunSpec(
        folder=out, resume=resume, overwrite=overwrite, device=device, precision=precision, compile=compile,
        command=command, log_with=log_with,
    )  # fmt: skip
    fit(model, target, method=recipe, settings=settings, run=run, confidence=sure)
    print(f"saved {out}")


def train_judge(
    *,
    out: Path,
    command: str,
    data: Data = Data(name="demo"),
    column: str = "label",
    clip: str | None = None,
    prompt: str = PROMPT,
    threads: int | None = None,
    device: str = "auto",
    half: bool = False,
    overwrite: bool = False,
    settings: JudgeSettings,
) -> None:
    """Train the judge: a classifier of a column of the data with a junk class, measured on the test split.

    With --clip nothing is trained: CLIP judges by the classes' names, and is measured in the same way.

    Args:
        settings: Training
        out: folder for its weights, its confusion and its record.
        data: demo (in the package), mnist, an image folder, or a Parquet file.
        column: what it classifies.
        clip: a CLIP model that judges as it is: its folder, or its name on the hub.
        prompt: words for it, with {} where the name of a class stands.
        threads: CPU threads.
        device: auto, cpu or cuda.
        half: store weights as float16.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    ready(out, JUDGE, overwrite=overwrite)
    if data.size is not None:
        check_sides(data.size, data.size)
    images, test = opened(data.source), opened(data.source, "test")
    how = asdict(settings) if clip is None else {"clip": clip, "prompt": prompt, "seed": settings.seed}
    identity = {"data": images.digest, "test": test.digest, "column": column, "settings": how}
    size = judge_bytes(images.shape[0], images.shape[1], settings.width)
    with folder_for(out, replace(JUDGE, identity=identity, size=size), overwrite=overwrite) as place:
        if clip is None:
            judge = fit_judge(images, test, settings, column=column, device=device)
        else:
            judge = zero_shot(
                images, test, clip=clip, prompt=prompt, column=column, device=device, seed=settings.seed
            )  # fmt: skip
        judge.record["command"] = command
        judge.save(out, half=half)
        place.end()
    print(
        f"saved {out}: {judge.accuracy:.2%} of test images right "
        f"(classes weighed alike: {judge.balanced_accuracy:.2%}), {judge.real_called_junk:.2%} of them called junk"
    )


def unlearn(
    model: str,
    *,
    out: Path,
    command: str,
    request: Forget = Forget(),
    earlier: Earlier = "forget",
    method: Annotated[Choice, METHODS, PARTS] = Choice(DEFAULT),
    data: Data = Data(),
    reading: Reading = Reading(),
    confidence: str | None = None,
    judge: str | None = None,
    retain_samples: int | None = None,
    select: bool = False,
    seeds: int = 1,
    n: int | None = None,
    nll_images: int | None = None,
    workers: int = 2,
    threads: int | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    compile: bool = False,
    log_with: TrackerName | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: UnlearnSettings,
    selection: SelectSettings,
) -> None:
    """Fine-tune a copy of a trained model so that it forgets what is asked, and what was asked of it before.

    With --select the run is watched on training images that are held out from it. Of the checkpoints within the
    limits of junk and retained NLL the one with the lowest UR is kept; if none is, the one with the lowest NLL.

    Args:
        model: a folder, or demo for the one in the package.
        settings: Fine-tuning
        selection: Selection
        request: What is to be forgotten
        out: folder for the new model, its record and log.jsonl.
        earlier: requests made before.
        method: one of those that msgm methods lists.
        data: the images; by default those of the model's record.
        confidence: judge that weighs images: a folder, or demo.
        judge: judge of --select, --seeds, --retain-samples: a folder, or demo.
        retain_samples: samples, where no image is to be retained.
        select: watch the run and keep its best checkpoint.
        seeds: runs from seed on; several are audited, averaged.
        n: samples judged a seed; by default as in evaluate.
        nll_images: likelihood images a seed; by default as in evaluate.
        workers: processes that share the seeds.
        threads: CPU threads.
        device: auto, cpu or cuda.
        precision: of the network.
        compile: compile the network, on a GPU.
        log_with: told the losses too, beside log.jsonl.
        resume: go on with a run that was stopped.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device, precision, compile)
    check_tracker(log_with, out)
    if log_with is not None and seeds > 1:
        raise UserError("--log-with is of one run; leave out --seeds")
    ready(out, MADE if seeds == 1 else REPEATED, resume=resume, overwrite=overwrite)
    if seeds < 1 or (seeds == 1 and (n is not None or nll_images is not None)):
        raise UserError("--seeds must be 1 or more, and --n and --nll-images belong to --seeds of 2 or more")
    if seeds > 1 and here().size > 1:
        raise UserError("--seeds starts processes, and there are several already; give each seed a run, or start one")
    recipe = build_method(method)
    check_weigher(confidence, recipe)
    if judge is not None and not select and seeds == 1 and retain_samples is None:
        raise UserError("--judge is used by --select, --seeds and --retain-samples; leave it out")
    if retain_samples is not None and (seeds > 1 or select):
        raise UserError("--retain-samples goes with neither --seeds nor --select, which measure images to retain")
    request.check(needed=True)
    parent = read_model(model, reading)
    source = data.of(parent)
    images = images_of(parent, source, "train")
    asked = request.needed(source)
    if retain_samples is None:
        parted = asked.split(images)
    else:
        ruled = rules_of(asked) is not None
        eye = judge_of(asked, judge_for(source, judge, "judge") if ruled else judge)
        also = before(parent.record, images) if earlier == "forget" else None
        parted = stand_in(parent, images, asked, n=retain_samples, judge=eye, seed=settings.seed, also=also)
        say([f"{len(parted.retain)} of {retain_samples} samples of the model stand in for images to retain"])
    split, ignored = forgetting(parted, parent.record, earlier)
    _, few = fitting(recipe, settings, split)
    say([said(few["few"])] if few else [])
    old = [each.words for each in parts(split.request) if each not in parts(asked)]
    say([*split.notes, *(f"forgotten along, as asked before: {words}" for words in old)])
    say([f"asked before, and may come back: {request_of(entry).words}" for entry in ignored.get("ignored", [])])
    if seeds > 1:
        given: dict[str, Any] = {
            key: value for key, value in (("n", n), ("nll_images", nll_images)) if value is not None
        }
        task = Task(
            model=model, reading=reading, data=source, request=split.request, earlier=earlier,
            judge=judge or EMBEDDED, confidence=confidence,
            evaluation=replace(EvaluateSettings(seed=settings.seed), **given),
            selection=selection if select else None, device=device, precision=precision, compile=compile,
            command=command,
        )  # fmt: skip
        found = repeat(
            task, recipe, settings=settings, seeds=seeds, out=out, workers=workers, resume=resume, overwrite=overwrite,
            say=partial(print, flush=True),
        )  # fmt: skip
        show(found)
        print(f"saved {out}")
        return
    run = RunSpec(
        folder=out, resume=resume, overwrite=overwrite, device=device, precision=precision, compile=compile,
        command=command, log_with=log_with,
    )  # fmt: skip
    fit_to = partial(forget_in, parent, method=recipe, settings=settings, run=run, earlier=earlier)
    if not select:
        fit_to(split, confidence=weights(confidence, recipe, split))
        print(f"saved {out}")
        return
    eye = judge_of(split.request, judge)
    if eye is None:
        raise UserError(f"{split.request} names single images, which no judge can watch; leave out --select")
    with Selection(selection, split=split, judge=eye, parent=parent, steps=settings.steps, out=out) as watch:
        child = fit_to(watch.split, confidence=weights(confidence, recipe, watch.split), watch=watch)
    chosen = child.record["selection"]
    budget = {"unlearning": asdict(settings), "selection": asdict(selection)}
    show(Results(command=command, seed=settings.seed, commit=commit(), budget=budget, rows=watch.verdicts()))
    limits = "" if chosen["within_limits"] else "; NO watched checkpoint keeps the limits"
    print(f"saved {out}: step {chosen['step']}{', stopped early' if chosen['stopped_early'] else ''}{limits}")
