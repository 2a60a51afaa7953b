"""Commands that look at models: sample, nll, evaluate, demo, methods."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from ..choice import Choice
from ..data import ForgetRequest
from ..errors import UserError
from ..experiments.core.evaluate import EvaluateSettings, beside, check
from ..experiments.core.evaluate import evaluate as measure
from ..forgetting.methods import DEFAULT, METHODS, PARTS
from ..formats.native import EMBEDDED
from ..formats.tensors import weights_sha256
from ..likelihood import Clock, Probes, Solver, check_bound, check_settings, log_likelihood, variational_bound
from ..metrics.judge import Judge
from ..metrics.shares import forget_classes
from ..metrics.worth import worth_for
from ..progress import bar
from ..report.page import commit, write_html, write_json
from ..report.pictures import grid as sheet
from ..report.pictures import save_samples
from ..report.results import Results
from ..report.samples import clear, draw
from ..sampling import SAMPLERS
from ..sampling.filters import FILTERS, Filter
from ..storage import claim
from ..training.settings import UnlearnSettings
from .options import Data, build_filter, hardware, images_of, refuse_unused, show
from .reading import read_model


def sample(
    model: str,
    *,
    out: Path,
    n: int = 100,
    sampler: Annotated[Choice, SAMPLERS] = Choice("heun"),
    filter: Annotated[Choice | None, FILTERS] = None,
    forget: str | None = None,
    guide: str | None = None,
    against: str | None = None,
    data: Data = Data(),
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
        forget: rule that selects what repel, safe and guided avoid; by default the model's own request.
        guide: the judge that guides: a folder, or demo for the MNIST judge in the package (default).
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
    if not resume:
        claim(out, overwrite=overwrite)
    source = read_model(model).to(device)
    if len(source.shape) != 3:
        raise UserError(f"{model} makes vectors of {source.shape[0]} numbers, not images; sample it from Python")
    refuse_unused(filter, forget=forget, guide=guide, against=against)
    avoiding: dict[str, Any] = dict(
        forget=forget, guide=guide, against=against,
        source=data.of(source) if data != Data() else None,
    )  # fmt: skip
    drawn = source if filter is None else build_filter(filter, source, **avoiding)
    drawer = sampler.maker("sampler", SAMPLERS)(drawn)
    identity: dict[str, Any] = {
        "weights_sha256": weights_sha256(source.network),
        "sampler": sampler.name,
        **dict(sampler.options),
    }
    if filter is not None:
        images = avoiding["source"]
        identity["filter"] = {
            "name": filter.name,
            **dict(filter.options),
            **avoiding,
            "source": images.to_dict() if images else None,
        }
    draw(drawer, n, out, identity=identity, seed=seed, batch=batch, resume=resume, overwrite=overwrite)
    print(f"saved {n} images in {out}")


def nll(
    model: str,
    *,
    forget: str | None = None,
    out: Path | None = None,
    data: Data = Data(),
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
    """Exact likelihoods (bits/dim) of test images, of the retained and the forgotten ones with --forget.

    Each is reported with its standard error over images and the change when the steps are doubled.

    Args:
        model: a model folder, or demo.
        forget: rule that splits the images; by default the model's own request, where its record has one.
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
    from rich.console import Console
    from rich.table import Table

    device = hardware(threads, device)
    if out is not None and out.exists():
        raise UserError(f"{out} already exists; name another file")
    if n < 1:
        raise UserError(f"--n must be 1 or more; got {n}")
    source = read_model(model).to(device)
    test = images_of(source, data.of(source), "test")
    rule = forget or source.record.get("request", {}).get("rule")
    sets = {"all": test}
    if rule:
        mask = ForgetRequest(rule).mask(test)
        sets = {"retain": test.select(~mask), "forget": test.select(mask)}
        for key, part in sets.items():
            if not len(part):
                raise UserError(f"rule {rule!r} leaves no {key} images in the test split")
    how: dict[str, Any] = {"solver": solver, "clock": clock, "probes": probes, "steps": steps, "repeats": repeats}
    how |= {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    check_settings(source, test.rows(slice(1)), **how)
    if vlb:
        check_bound(source, test.rows(slice(1)), steps=vlb_steps)
    how["seed"] = seed
    found: dict[str, Any] = {"model": model, "rule": rule, **how}
    shown = Table("", "images", "bits/dim", "steps doubled", "evaluations")
    notes: list[str] = []
    for key, part in sets.items():
        images = part.rows(slice(n)).to(device)
        with bar(f"likelihood of {key} images", len(images)) as tick:
            result = log_likelihood(source, images, **how, tick=tick)
        mean, stderr = result.mean()
        change, nfe, lost = float(result.doubling.mean()), float(result.nfe.mean()), int((~result.finished).sum())
        shown.add_row(key, str(len(images)), f"{mean:.4f} ± {stderr:.4f}", f"{change:+.4f}", f"{nfe:.0f}")
        if lost:
            notes.append(f"{key}: NOT RELIABLE: {lost} images did not end within --max-nfe")
        elif not result.reliable:
            notes.append(f"{key}: NOT RELIABLE: more --steps or images, for dopri5 smaller --rtol and --atol")
        found[key] = {
            "bits_per_dim": mean,
            "stderr": stderr,
            "doubling": change,
            "reliable": result.reliable,
            "nfe": nfe,
            "unfinished": lost,
            "images": result.values.tolist(),
        }
        if vlb:
            with bar(f"variational bound of {key} images", len(images)) as tick:
                bound = variational_bound(source, images, steps=vlb_steps, seed=seed, tick=tick)
            mean, stderr = bound.mean()
            shown.add_row(f"{key}, bound", str(len(images)), f"{mean:.4f} ± {stderr:.4f}", "", str(bound.nfe))
            parts = {name: float(getattr(bound, name).mean()) for name in ("prior", "diffusion", "decoder")}
            found[key]["bound"] = {"bits_per_dim": mean, "stderr": stderr, **parts, "nfe": bound.nfe}
    Console().print(shown)
    for note in notes:
        print(note)
    if out is not None:
        write_json(out, found)


def evaluate(
    model: str,
    *,
    out: Path,
    command: str,
    against: str | None = None,
    forget: str | None = None,
    judge: str = EMBEDDED,
    filter: Annotated[Choice | None, FILTERS] = None,
    guide: str | None = None,
    data: Data = Data(),
    threads: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    settings: EvaluateSettings,
) -> None:
    """Measure a model: unlearning ratio, junk, likelihoods of both sets; table, results.json and report.html.

    Args:
        model: a model folder, or demo.
        settings: Evidence
        out: folder for results.json, report.html and the samples.
        against: another model, measured beside it with the same noise (its parent, say).
        forget: the rule; by default the model's own request.
        judge: a judge folder, or demo for the MNIST judge in the package.
        filter: measure the model with one: repel, safe, guided or contrast (msgm methods); by default none.
            With --against the same model it is measured without, too; contrast needs the model of all the data there.
        guide: the judge that guides, a folder or demo (default); not the one that judges, if it is to be believed.
        data: the test images; by default those of the model's record.
        threads: CPU threads.
        device: auto, cpu or cuda.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    claim(out, overwrite=overwrite)
    refuse_unused(filter, guide=guide)
    loaded = {name: read_model(name).to(device) for name in ([against] if against else []) + [model]}
    labels = {name: Path(name).resolve().name for name in loaded}
    if len(set(labels.values())) < len(labels):
        labels = {name: Path(name).as_posix().strip("/").replace("/", "-") for name in loaded}
    if len(set(labels.values())) < len(labels):
        labels = {name: f"{number}-{label}" for number, (name, label) in enumerate(labels.items(), 1)}
    sources = {labels[name]: source for name, source in loaded.items()}
    rule = forget or loaded[model].record.get("request", {}).get("rule")
    if not rule:
        raise UserError(f"the record of {model} holds no request; say what was to be forgotten with --forget RULE")
    classifier = Judge.load(judge).to(device)
    images = data.of(loaded[model])
    test = images_of(loaded[model], images, "test")
    request = ForgetRequest(rule)
    for source in sources.values():
        check(source, classifier, request, test)
    worth = worth_for(classifier, request, test)
    worth.check()
    if filter is not None:
        if against != model:
            del sources[labels[model]]
        sources[f"{labels[model]}-{filter.name}"] = build_filter(
            filter, loaded[model], forget=rule, guide=guide, against=against, source=images,
        )  # fmt: skip
    rows, grids = [], []
    for label, source in sources.items():
        method = source.record.get("method", {}).get("name", "standard")
        if filter is not None and isinstance(source, Filter):
            method = f"{method} + {filter.name}"
        row, subject = measure(
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
        save_samples(out / "samples" / label, subject.pixels)
        rows.append(row)
        grids.append((label, sheet(subject.pixels[:100])))
    budget = {"evaluation": asdict(settings)}
    rows[1:] = beside(rows[0], rows[1:], classifier, forget_classes(request, classifier))
    results = Results(
        command=command,
        seed=settings.seed,
        commit=commit(),
        budget=budget,
        rows=rows,
        judge=worth,
    )
    write_json(out / "results.json", results.to_dict())
    records = {label: source.record for label, source in sources.items()}
    notes = []
    if filter is not None and filter.name == "guided" and judge == (guide or EMBEDDED):
        notes.append(
            "One judge has guided the samples and judged them: its rates flatter. Use another one for --judge."
        )
    write_html(
        out / "report.html",
        results,
        title=f"Forgotten: {rule}",
        grids=grids,
        curves={},
        records=records,
        notes=notes,
    )
    show(results)


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


def methods() -> None:
    """The unlearning methods there are, and the filters, which train nothing."""
    from rich.console import Console
    from rich.table import Column, Table

    shown = Table(
        Column("Method", no_wrap=True), "What it asks", Column("Needs", max_width=18), "Bounded", show_lines=True
    )
    for name, make in METHODS.items():
        method = make()
        taken = "  ".join(f"{k}={p.default}" for k, p in inspect.signature(make).parameters.items())
        about = [" ".join((make.__doc__ or "").split()), *([f"[cyan]{taken}[/]"] if taken else [])]
        shown.add_row(
            name + (" *" if name == DEFAULT else ""),
            "\n".join([*about, f"[dim]{method.paper}[/]"]),
            "\n".join([*method.needs, *(["trained model"] if method.fine_tunes else [])]) or "-",
            "yes" if method.bounded else "no",
        )
    console = Console()
    console.print(shown)
    console.print("* the default. Options are given as --method.NAME VALUE, in Python as keywords.")
    console.print("One that needs a trained model is for unlearn; the others are for train as well.")
    parts = ["Parts to put into any of them, as --method.combine pcgrad --method.combine.alpha 0.7:"]
    console.print("\n".join(parts + [f"  {role}: {', '.join(known)}" for role, known in PARTS.items()]))
    filters = Table("Filter", "What it does", "Needs", "Options (default)")
    for name, made in FILTERS.items():
        options = ", ".join(
            f"{k}={'auto' if p.default is None else p.default}"
            for k, p in inspect.signature(made).parameters.items()
            if p.default is not p.empty
        )
        filters.add_row(name, first_line(made), ", ".join(f"--{key}" for key in made.needs), options)
    console.print(filters)
    console.print("Used by msgm sample --filter NAME and msgm evaluate --filter NAME")


def first_line(thing: object) -> str:
    """The first line of what is documented of it."""
    return (thing.__doc__ or "").strip().partition("\n")[0]
