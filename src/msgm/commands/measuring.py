"""Commands that look at models: sample, nll, evaluate, demo, methods."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..checkpoint import EMBEDDED, embedded, load, weights_sha256
from ..data import ForgetRequest
from ..errors import UserError
from ..evaluation.audit import EvaluateSettings, check
from ..evaluation.audit import evaluate as measure
from ..evaluation.judge import Judge
from ..evaluation.report import Results, commit, save_samples, write_html, write_json
from ..evaluation.report import grid as sheet
from ..evaluation.samples import clear, draw
from ..forgetting.methods import DEFAULT, METHODS
from ..likelihood import log_likelihood
from ..progress import bar
from ..sampling import Grid, SamplerName, build
from ..storage import claim
from ..training import UnlearnSettings
from .options import hardware, images_of, show


def sample(
    model: str,
    *,
    out: Path,
    n: int = 100,
    sampler: SamplerName = "heun",
    steps: int | None = None,
    grid: Grid | None = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    threads: int | None = None,
    device: str = "cpu",
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
        steps: times the sampler visits; by default its own (heun 18, dpm++ 20, dpm++-sde 30, ddim 50, ddpm and pc
            1000, the others 200). A step costs one evaluation of the network; of heun and pc, two. rk45 chooses
            its own steps.
        grid: how the times lie: uniform in t, edm (uniform in (sigma/alpha)^(1/7)), uniform in the log-snr, or
            discrete (DDPM's own steps); by default the sampler's own.
        seed: picture k depends on the seed and k alone.
        batch: pictures drawn at a time; auto finds how many fit the memory.
        threads: CPU threads.
        device: cpu or cuda.
        resume: go on with a run that was interrupted, or to more pictures.
        overwrite: replace what is in the output folder.
    """
    hardware(threads, device)
    if not resume:
        claim(out, overwrite=overwrite)
    source = load(model).to(device)
    if len(source.shape) != 3:
        raise UserError(f"{model} makes vectors of {source.shape[0]} numbers, not images; sample it from Python")
    drawer = build(sampler, source, steps=steps, grid=grid)
    identity = {
        "weights_sha256": weights_sha256(source.network),
        "sampler": sampler,
        "steps": drawer.steps,
        "grid": drawer.spacing,
    }
    draw(drawer, n, out, identity=identity, seed=seed, batch=batch, resume=resume, overwrite=overwrite)
    print(f"saved {n} images in {out}")


def nll(
    model: str,
    *,
    forget: str | None = None,
    out: Path | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    n: int = 100,
    steps: int = 12,
    repeats: int = 1,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
) -> None:
    """Exact likelihoods (bits/dim) of test images, of the retained and the forgotten ones with --forget.

    Each is reported with its standard error over images and the change when the steps are doubled.

    Args:
        model: a model folder, or demo.
        forget: rule that splits the images; by default the model's own request, where its record has one.
        out: JSON file for the values of each image.
        data: the images; by default those of the model's record.
        data_dir: where named data sets lie.
        image_size: crop to a square and resize to this many pixels.
        n: images of each set.
        steps: Runge-Kutta steps; all images are measured again with twice as many, and that is reported.
        repeats: draws of probes and dequantisation to average.
        seed: of both.
        threads: CPU threads.
        device: cpu or cuda.
    """
    hardware(threads, device)
    if out is not None and out.exists():
        raise UserError(f"{out} already exists; name another file")
    if n < 1:
        raise UserError(f"--n must be 1 or more; got {n}")
    source = load(model).to(device)
    test = images_of(source, data, data_dir, image_size, "test")
    rule = forget or source.record.get("request", {}).get("rule")
    sets = {"all": test.images}
    if rule:
        mask = ForgetRequest(rule).mask(test)
        sets = {"retain": test.images[~mask], "forget": test.images[mask]}
        for key, images in sets.items():
            if not len(images):
                raise UserError(f"rule {rule!r} leaves no {key} images in the test split")
    found: dict[str, Any] = {
        "model": model,
        "rule": rule,
        "steps": 2 * steps,
        "repeats": repeats,
        "seed": seed,
    }
    for key, images in sets.items():
        with bar(f"likelihood of {key} images", len(images[:n])) as tick:
            result = log_likelihood(source, images[:n].to(device), steps=steps, repeats=repeats, seed=seed, tick=tick)
        mean, stderr = result.mean()
        change = float(result.doubling.mean())
        print(
            f"{key:>7}: {mean:.4f} ± {stderr:.4f} bits/dim, {len(images[:n])} images; "
            f"doubling the steps changes it by {change:+.4f}{'' if result.reliable else '  NOT RELIABLE: more --steps'}"
        )
        found[key] = {
            "bits_per_dim": mean,
            "stderr": stderr,
            "doubling": change,
            "reliable": result.reliable,
            "nfe": result.nfe,
            "images": [float(v) for v in result.values],
        }
    if out is not None:
        write_json(out, found)


def evaluate(
    model: str,
    *,
    settings: EvaluateSettings,
    out: Path,
    command: str,
    against: str | None = None,
    forget: str | None = None,
    judge: str = EMBEDDED,
    data: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Measure a model: unlearning ratio, junk, likelihoods of both sets; table, results.json and report.html.

    Args:
        model: a model folder, or demo.
        out: folder for results.json, report.html and the samples.
        against: another model, measured beside it with the same noise (its parent, say).
        forget: the rule; by default the model's own request.
        judge: a judge folder, or demo for the MNIST judge in the package.
        data: the test images; by default those of the model's record.
        data_dir: where named data sets lie.
        image_size: crop to a square and resize to this many pixels.
        threads: CPU threads.
        overwrite: replace what is in the output folder.
    """
    hardware(threads)
    claim(out, overwrite=overwrite)
    sources = {name: load(name) for name in ([against] if against else []) + [model]}
    labels = {name: Path(name).resolve().name for name in sources}
    if len(set(labels.values())) < len(labels):
        labels = {name: Path(name).as_posix().strip("/").replace("/", "-") for name in sources}
    rule = forget or sources[model].record.get("request", {}).get("rule")
    if not rule:
        raise UserError(f"the record of {model} holds no request; say what was to be forgotten with --forget RULE")
    classifier = Judge.load(embedded("judge") if judge == EMBEDDED else judge)
    test = images_of(sources[model], data, data_dir, image_size, "test")
    request = ForgetRequest(rule)
    for source in sources.values():
        check(source, classifier, request, test)
    rows, grids = [], []
    for name, source in sources.items():
        label = labels[name]
        method = source.record.get("method", {}).get("name", "standard")
        row, pixels = measure(
            source,
            name=label,
            method=method,
            judge=classifier,
            request=request,
            test=test,
            settings=settings,
        )
        out.mkdir(parents=True, exist_ok=True)
        clear(out / "samples" / label)
        save_samples(out / "samples" / label, pixels)
        rows.append(row)
        grids.append((label, sheet(pixels[:100])))
    budget = {"evaluation": asdict(settings)}
    results = Results(command=command, seed=settings.seed, commit=commit(), budget=budget, rows=rows)
    write_json(out / "results.json", results.to_dict())
    records = {labels[name]: source.record for name, source in sources.items()}
    write_html(
        out / "report.html",
        results,
        title=f"Forgotten: {rule}",
        grids=grids,
        curves={},
        records=records,
        notes=[],
    )
    show(results)


def demo(
    *,
    settings: EvaluateSettings,
    out: Path = Path("runs/demo"),
    command: str,
    steps: int = 220,
    batch: int = 48,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Forget the digits 3 and 7 in the Standard MNIST model of the package, and prove it.

    Unlearns by the paper's Orthogonal, by Unseen and by the default method with the same budget; samples before
    and after with the same noise, judges, measures likelihoods; prints one table and writes report.html,
    results.json, the models and 1,000 samples of each. Minutes on two cores.

    Args:
        out: folder for all of it.
        steps: fine-tuning steps of each method.
        batch: images a step, of each set.
        threads: CPU threads.
        resume: keep the models that an interrupted demo has finished.
        overwrite: replace what is in the output folder.
    """
    from ..experiments.demo import demo as run

    hardware(threads)
    unlearning = UnlearnSettings(steps=steps, batch=batch, seed=settings.seed)
    results = run(out, unlearning=unlearning, evaluation=settings, command=command, resume=resume, overwrite=overwrite)
    show(results)
    print(f"look at {out / 'report.html'}")


def methods() -> None:
    """The unlearning methods there are."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("Method", "What it asks", "Options (default)")
    for name, make in METHODS.items():
        options = ", ".join(f"{k}={p.default}" for k, p in inspect.signature(make).parameters.items())
        shown.add_row(name + (" *" if name == DEFAULT else ""), " ".join((make.__doc__ or "").split()), options or "-")
    Console().print(shown, "* the default")
