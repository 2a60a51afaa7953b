"""Commands that compare methods: sweep."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from ..choice import Choice
from ..experiments.core.engines import Engine, available
from ..experiments.core.jobs import Task
from ..experiments.sweep.main import COLUMNS, MADE, SweepEvaluation, SweepSettings, variants
from ..experiments.sweep.main import sweep as compare
from ..folders import ready
from ..forgetting.methods import METHODS, PARTS
from ..formats import Reading
from ..formats.native import EMBEDDED
from ..training.earlier import forgetting
from .asking import Forget
from .options import Data, build_method, hardware, images_of, show
from .reading import read_model


def sweep(
    model: str,
    *,
    out: Path,
    command: str,
    request: Forget = Forget(),
    method: tuple[Annotated[Choice, METHODS, PARTS], ...] = (),
    authors: bool = False,
    seeds: int = 3,
    data: Data = Data(),
    reading: Reading = Reading(),
    judge: str = EMBEDDED,
    confidence: str | None = None,
    workers: int = 2,
    engine: Engine = "local",
    threads: int | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    settings: SweepSettings,
    evaluation: SweepEvaluation,
) -> None:
    """Compare methods and settings with one budget: one table, a report, and which of them no other beats.

    Every run takes --steps steps and sees 2 x --batch images a step on average (a method whose forget loss comes
    seldom or never has larger batches instead), and every model is sampled from the same noise. The first row is the
    model itself, without any training: the method standard. Each result is stored as its run ends; after Ctrl-C the
    same command with --resume goes on. What a run cannot be made for, or what diverges, is a row that says why.

    Args:
        model: a model folder, or demo.
        settings: Fine-tuning
        evaluation: Evidence
        request: What is to be forgotten
        out: folder for results.json, report.html, pareto.png, pareto.svg and all runs.
        method: one to compare (msgm methods lists them), once for each; by default all. Its options follow it, and
            a list has values to try: --method deflect --method.contrast [4,8] --method unseen.
        authors: add each of them with the settings of its authors, where they are others than its own.
        seeds: runs of each method and settings, with seed, seed + 1, ...
        data: the images; by default those that the model was trained on, read as they were then, if its record
            says it.
        judge: a judge folder, or demo for the MNIST judge in the package: it judges all samples.
        confidence: a judge folder, or demo, for methods that weigh images by a judge's confidence; they are refused
            without one, and flattered by the one that judges their samples.
        workers: processes of one thread that share the runs; 1 for none but this.
        engine: where the runs are done: processes of this machine, or ray or slurm.
        threads: CPU threads of this process.
        device: auto, cpu or cuda.
        resume: go on with a sweep that was stopped, or to more methods, settings or seeds.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    available(engine)
    ready(out, MADE, resume=resume, overwrite=overwrite)
    request.check(needed=True)
    recipes = {variant: build_method(variant) for variant in variants(method, authors=authors)}
    parent = read_model(model, reading)
    source = data.of(parent)
    split, _ = forgetting(
        request.needed(source).split(images_of(parent, source, "train")), parent.record, earlier="forget"
    )
    task = Task(
        model=model, reading=reading, data=source, request=split.request, judge=judge,
        confidence=confidence, evaluation=evaluation, device=device, command=command,
    )  # fmt: skip
    results = compare(
        task, recipes, settings=settings, seeds=seeds, out=out, workers=workers, engine=engine, resume=resume,
        overwrite=overwrite, say=partial(print, flush=True),
    )  # fmt: skip
    show(results, COLUMNS)
    print(f"look at {out / 'report.html'}")
