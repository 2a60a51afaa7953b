"""Commands that look at models: sample, nll, evaluate, demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from ..choice import Choice
from ..errors import UserError
from ..experiments.core.evaluate import EvaluateSettings
from ..experiments.evaluation.main import MADE as EVALUATION
from ..experiments.evaluation.main import compare
from ..experiments.likelihoods.main import likelihoods
from ..folders import ready, reserved, room
from ..formats import Reading
from ..formats.tensors import weights_sha256
from ..likelihood import Clock, Probes, Solver
from ..metrics.judge import Judge
from ..model.score import ScoreModel
from ..report.page import write_json
from ..report.samples import MADE as SAMPLES
from ..report.samples import draw
from ..sampling import SAMPLERS
from ..sampling.filters import FILTERS
from ..storage import place_file
from ..training.settings import UnlearnSettings
from .asking import Forget, judge_of, looked_at
from .options import Data, build_filter, guide_of, hardware, refuse_unused, show
from .reading import read_model, read_models

BYTES = 1000
"""Of what is written of an image's likelihood, at most."""


def sample(
    model: str,
    *,
    out: Path,
    n: int = 100,
    sampler: Annotated[Choice, SAMPLERS] = Choice("heun"),
    filter: Annotated[Choice | None, FILTERS] = None,
    request: Forget = Forget(),
    guide: str | None = None,
    against: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    threads: int | None = None,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Draw images from a model: one PNG a sample, and grid.png of the first hundred.

    Few evaluations: heun and dpm++ (probability-flow ODE), dpm++-sde (fresh noise in every step). The others are
    the field's: ddim, euler and rk45 follow the ODE; ancestral, ddpm, reverse-diffusion, euler-maruyama and pc
    (predictor-corrector) draw fresh noise. An unlearned model may answer the two kinds differently.

    Args:
        model: a model folder, or demo.
        out: folder for the pictures.
        n: how many.
        sampler: how to draw them.
        filter: a filter, which trains nothing: repel, safe, guided or contrast (msgm methods); by default none.
        request: What repel, safe and guided avoid; by default the model's own request
        guide: the judge that guides: a folder, or demo for the MNIST judge in the package; by default demo for MNIST.
        against: the model of all the data that contrast moves away from.
        data: the images that repel and safe look at; by default those of the model's record.
        seed: picture k depends on the seed and k alone.
        batch: pictures drawn at a time; auto finds how many fit the memory.
        threads: CPU threads.
        device: auto, cpu or cuda.
        resume: go on with a run that was interrupted, or to more pictures.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    ready(out, SAMPLES, resume=resume, overwrite=overwrite)
    loaded = read_models([*([against] if against else []), model], reading)
    source, other = loaded[model].to(device), loaded[against] if against else None
    if len(source.shape) != 3:
        raise UserError(f"{model} makes vectors of {source.shape[0]} numbers, not images; sample it from Python")
    images = data.of(source) if data != Data() else None
    whole = images or (data.of(source) if request.compares else None)
    said = request.given(whole)
    refuse_unused(filter, forget=said, guide=guide, against=against)
    drawn: ScoreModel = source
    guiding: Judge | None = None
    if filter is not None:
        asked = request.of(source, whole)
        guiding = guide_of(filter, source, guide, images) if asked is not None else None
        drawn = build_filter(filter, source, request=asked, guide=guiding, against=other, source=images)
    drawer = sampler.maker("sampler", SAMPLERS)(drawn)
    identity: dict[str, Any] = {
        "weights_sha256": weights_sha256(source.network),
        "sampler": sampler.name,
        **dict(sampler.options),
    }
    if filter is not None:
        identity["filter"] = {
            "name": filter.name,
            **dict(filter.options),
            "forget": said.to_dict() if said else None,
            "guide": weights_sha256(guiding) if guiding is not None else None,
            "against": weights_sha256(other.network) if other is not None else None,
            "source": images.to_dict() if images else None,
        }
    draw(drawer, n, out, identity=identity, seed=seed, batch=batch, resume=resume, overwrite=overwrite)
    print(f"saved {n} images in {out}")


def nll(
    model: str,
    *,
    request: Forget = Forget(),
    out: Path | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    n: int = 100,
    solver: Solver = "etdrk4",
    clock: Clock = "log",
    probes: Probes | None = None,
    steps: int = 6,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    max_nfe: int = 1000,
    repeats: int = 1,
    vlb: bool = False,
    vlb_steps: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
) -> None:
    """Exact likelihoods (bits/dim) of test images, of the retained and the forgotten ones where a request parts them.

    Each is reported with its standard error over images and the change when the steps are doubled.

    Args:
        model: a model folder, or demo.
        request: What was to be forgotten; by default the model's own request, if it has one
        out: JSON file for the values of each image.
        data: the images; by default those of the model's record, read as they were then.
        n: images of each set.
        solver: etdrk4 (exponential Runge-Kutta), rk4, heun or euler in equal steps; dopri5 in each image's own.
        clock: what equal steps are equal in: log r, atan r or r^(1/7) (rho), r = sigma/alpha.
        probes: rademacher (default) or gaussian, new at every evaluation; fixed (dopri5's default); exact.
        steps: equal ones; all images are measured again with twice as many, and that is reported.
        rtol: dopri5's relative tolerance; all images are measured again with 1/32 of both, and that is reported.
        atol: dopri5's absolute tolerance.
        max_nfe: evaluations that dopri5 may take for an image; one that needs more has no value.
        repeats: draws of probes and dequantisation to average.
        vlb: DDPM's variational bound as well, with two draws of its noise.
        vlb_steps: steps of the chain to take for it, at random; by default all.
        seed: of all that is random.
        threads: CPU threads.
        device: auto, cpu or cuda.
    """
    device = hardware(threads, device)
    if out is not None:
        place_file(out)
    source = read_model(model, reading).to(device)
    asked = request.of(source, data.of(source))
    how: dict[str, Any] = {"solver": solver, "clock": clock, "probes": probes, "steps": steps, "repeats": repeats}
    how |= {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    images = looked_at(source, data.of(source), asked)
    with nullcontext() if out is None else reserved(out) as file:
        if out is not None:
            room(out.parent, BYTES * min(2 * n, len(images)))
        found = likelihoods(source, images, request=asked, n=n, seed=seed, how=how, bound=vlb, bound_steps=vlb_steps)
        _show(found)
        if file is not None:
            write_json(file, {"model": model, "rule": asked.words if asked else None, **how, "seed": seed, **found})


def _show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """One line a set, and what is not to be relied on."""
    from rich.console import Console
    from rich.table import Table

    shown, notes = Table("", "images", "bits/dim", "steps doubled", "evaluations"), []
    for key, each in found.items():
        n, change, nfe = str(len(each["images"])), f"{each['doubling']:+.4f}", f"{each['nfe']:.0f}"
        shown.add_row(key, n, _bits(each), change, nfe)
        if "bound" in each:
            shown.add_row(f"{key}, bound", n, _bits(each["bound"]), "", str(each["bound"]["nfe"]))
        if each["unfinished"]:
            notes.append(f"{key}: NOT RELIABLE: {each['unfinished']} images did not end within --max-nfe")
        elif not each["reliable"]:
            notes.append(f"{key}: NOT RELIABLE: more --steps or images, for dopri5 smaller --rtol and --atol")
    Console().print(shown)
    print(*notes, sep="\n", end="\n" if notes else "")


def _bits(each: Mapping[str, Any]) -> str:
    return f"{each['bits_per_dim']:.4f} ± {each['stderr']:.4f}"


def evaluate(
    model: str,
    *,
    out: Path,
    command: str,
    against: str | None = None,
    request: Forget = Forget(),
    judge: str | None = None,
    filter: Annotated[Choice | None, FILTERS] = None,
    guide: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    threads: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    settings: EvaluateSettings,
) -> None:
    """Measure a model: unlearning ratio, junk, likelihoods of both sets; table, results.json and report.html.

    Of single images: how often a sample is nearest to one to be forgotten, and how near samples come to them.

    Args:
        model: a model folder, or demo.
        settings: Evidence
        out: folder for results.json, report.html and the samples.
        against: another model, measured beside it with the same noise (its parent, say).
        request: What was to be forgotten; by default the model's own request
        judge: a judge folder; by default demo, the MNIST judge in the package; none for single images.
        filter: measure the model with one: repel, safe, guided or contrast (msgm methods); by default none.
            With --against the same model it is measured without, too; contrast needs the model of all the data there.
        guide: the judge that guides, a folder or demo (default for MNIST); not the one that judges, if it is to be
            believed.
        data: the test images; by default those of the model's record.
        threads: CPU threads.
        device: auto, cpu or cuda.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    ready(out, EVALUATION, overwrite=overwrite)
    refuse_unused(filter, guide=guide)
    if against == model and filter is None:
        raise UserError("--against names the same model; name another, or leave it out")
    read = read_models([*([against] if against else []), model], reading)
    loaded = {name: each.to(device) for name, each in read.items()}
    labels = _labels(list(loaded))
    models = {labels[name]: each for name, each in loaded.items()}
    images, notes = data.of(loaded[model]), []
    asked = request.of(loaded[model], images)
    if asked is None:
        raise UserError(f"the record of {model} holds no request; say what was to be forgotten with --forget RULE")
    eye = judge_of(asked, judge, device)
    if filter is not None:
        guiding = guide_of(filter, loaded[model], guide, images)
        if against != model:
            del models[labels[model]]
        beside = f"{labels[model]}-{filter.name}"
        models[beside if beside not in models else f"{beside}-again"] = build_filter(
            filter, loaded[model], request=asked, guide=guiding, against=loaded[against] if against else None,
            source=images,
        )  # fmt: skip
        if guiding is not None and eye is not None and weights_sha256(guiding) == weights_sha256(eye):
            notes = [
                "One judge has guided the samples and judged them: its rates flatter. Use another one for --judge."
            ]
    results = compare(
        models, request=asked, judge=eye,
        test=looked_at(loaded[model], images, asked), settings=settings, out=out, command=command, notes=notes,
        overwrite=overwrite,
    )  # fmt: skip
    show(results)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """The models' folders by their last names; by more of them where these are alike."""
    labels = {name: Path(name).resolve().name for name in names}
    if len(set(labels.values())) < len(labels):
        labels = {name: Path(name).as_posix().strip("/").replace("/", "-") for name in names}
    if len(set(labels.values())) < len(labels):
        labels = {name: f"{number}-{label}" for number, (name, label) in enumerate(labels.items(), 1)}
    return labels


def demo(
    *,
    out: Path = Path("runs/demo"),
    command: str,
    steps: int = 220,
    batch: int = 48,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: EvaluateSettings,
) -> None:
    """Forget the digits 3 and 7 in the Standard MNIST model of the package, and prove it.

    Unlearns by the paper's Orthogonal, by Unseen and by the default method with the same budget; samples before
    and after with the same noise, judges, measures likelihoods; prints one table and writes report.html,
    results.json, the models and 1,000 samples of each. Minutes on two cores.

    Args:
        settings: Evidence
        out: folder for all of it.
        steps: fine-tuning steps of each method.
        batch: images a step, of each set.
        threads: CPU threads.
        resume: keep the models that an interrupted demo has finished.
        overwrite: replace what is in the output folder.
    """
    from ..experiments.demo.main import demo as run

    hardware(threads)
    unlearning = UnlearnSettings(steps=steps, batch=batch, seed=settings.seed)
    results = run(out, unlearning=unlearning, evaluation=settings, command=command, resume=resume, overwrite=overwrite)
    show(results)
    print(f"look at {out / 'report.html'}")
