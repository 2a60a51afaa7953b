"""Training and unlearning: one loop, read from top to bottom in `_fit` and `_steps`.

Everything random in step k (batch, times, noise, dropout) is a function of (seed, k). So a resumed run needs only the
step, the weights, their average and the optimiser's moments to continue the same loss curve, on a CPU bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Protocol

from torch import Tensor

from ..data import Images, Split
from ..errors import UserError
from ..forgetting.methods import Method, deflect, standard
from ..forgetting.regularise import Prepared
from ..formats.native import configuration, weights_sha256, write_model
from ..model.score import ScoreModel
from ..process.times import LogNormalClock, UniformClock, stratified, uniform
from ..progress import bar
from .batches import Pixels
from .curve import Curve, Exploded
from .objective import Objective
from .runs import STATE, Folder, Log, RunSpec
from .runtime import Runtime
from .settings import TrainSettings, UnlearnSettings
from .step import State, follow, step, update


class Diverged(RuntimeError):
    """The retain loss exploded or was not finite. ``model`` has the last good weights."""

    def __init__(self, message: str, model: ScoreModel) -> None:
        super().__init__(message)
        self.model = model


class Interrupted(KeyboardInterrupt):
    """Stopped by SIGINT after a whole step; the state is saved."""


class Watch(Protocol):
    """Looks at a run from outside, and may end it or choose what it ships."""

    def __call__(self, step: int, average: ScoreModel) -> bool:
        """Called before the first step, again on resuming, and after every step; true ends the run."""
        ...

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        """Called once, before the average is saved: may put other weights into it; what it returns is recorded."""
        ...


def train(
    model: ScoreModel,
    data: Images | Split,
    *,
    method: Method | None = None,
    settings: TrainSettings | None = None,
    run: RunSpec | None = None,
    confidence: Tensor | None = None,
    watch: Watch | None = None,
) -> ScoreModel:
    """Train a freshly initialised model (in place) and return the average of its weights.

    With a `Split` and a method this is the paper's re-training; with plain data the ordinary (Standard) model.
    ``confidence`` (N,) in [0, 1] is a judge's P(retain | x_0) of each retained image, for methods with a ``power``.
    ``watch`` sees the average after every step.

    Raises:
        UserError: the images' shape is not the model's; the run's folder exists; a resumed run's settings differ; the
            method needs a trained model, or a judge's confidence that is not given.
        Diverged: the guard stopped the run; the last good weights are in its folder.
    """
    method = method or standard()
    if method.fine_tunes:
        raise UserError(f"method {method.name} starts from a trained model; use it with unlearn")
    return _fit(model, data, method, settings or TrainSettings(), run or RunSpec(), confidence, watch, kind="trained")


def unlearn(
    model: ScoreModel,
    split: Split,
    *,
    method: Method | None = None,
    settings: UnlearnSettings | None = None,
    run: RunSpec | None = None,
    confidence: Tensor | None = None,
    watch: Watch | None = None,
) -> ScoreModel:
    """Fine-tune a copy of a trained model so that it forgets ``split.forget``; the given model is untouched.

    Arguments and errors as `train`. The average of the weights restarts here, with a short memory: with a decay of
    0.9999, 1,000 steps would leave 90 % of the old model in it. ``watch`` sees the average after every step
    (`experiments.core.selection.Selection`, say).
    """
    child = copy.deepcopy(model)
    child.record = {"parent": {"weights_sha256": weights_sha256(model.network), "kind": model.record.get("kind")}}
    return _fit(
        child, split, method or deflect(), settings or UnlearnSettings(), run or RunSpec(), confidence, watch,
        kind="unlearned",
    )  # fmt: skip


def _fit(
    model: ScoreModel,
    data: Images | Split,
    method: Method,
    settings: TrainSettings,
    run: RunSpec,
    confidence: Tensor | None,
    watch: Watch | None,
    *,
    kind: str,
) -> ScoreModel:
    runtime = Runtime.choose(run.device, precision=run.precision, compile=run.compile)
    retain, forget = _sets(model, data, method, settings)
    counts = _counts(method, confidence, len(retain))
    record = _record(model, data, method, settings, kind, run, runtime)
    if counts is not None:
        record["confidence_sha256"] = hashlib.sha256(counts.numpy().tobytes()).hexdigest()
    folder = Folder.open(run, _identity(record, model) if run.folder is not None else "")

    with runtime.active():
        state = State.begin(runtime.place(model), method, settings)
        objective = _objective(model, method, settings, retain, forget, counts, runtime)
        regularise = objective.prepare(show=run.progress)
        folder.restore(state)
        try:
            _steps(state, objective, regularise, settings, folder, run, watch, title=f"{_DOING[kind]} ({method.name})")
        except Exploded as bad:
            state.averaged.copy_(state.good)
            message = (
                f"{method.name} diverged at step {bad.step}: retain loss {bad.value:.3g}, lowest {state.lowest:.3g}. "
                f"Kept the last good weights; try a larger alpha, a lower lr or a bounded form of the term"
            )
            record["status"] = f"diverged at step {bad.step}"
            raise Diverged(message, _finish(state, folder, record, watch)) from None
        return _finish(state, folder, {**record, "status": "finished"}, watch)


_DOING = {"trained": "Training", "unlearned": "Unlearning"}


def _steps(
    state: State,
    objective: Objective,
    regularise: Prepared | None,
    settings: TrainSettings,
    folder: Folder,
    run: RunSpec,
    watch: Watch | None,
    *,
    title: str,
) -> None:
    """All steps that are left. Raises `Exploded`, or `Interrupted` with the state saved."""
    began, first = time.monotonic(), state.step
    with (
        stopping() as asked,
        Log(folder.path, state.step) as log,
        bar(title, settings.steps, done=state.step, show=run.progress) as tick,
    ):
        curve = Curve(state, log, settings, objective.runtime.lag)
        while not (watch is not None and watch(state.step, state.average)) and state.step < settings.steps:
            found = step(objective, objective.batch(state.step), state, regularise)
            curve.add(found)
            update(state, found, settings, regularise)
            follow(state.averaged, state.weights, min(settings.ema, (1 + state.step) / (10 + state.step)))
            state.step += 1

            rate = (state.step - first) * settings.batch / (time.monotonic() - began)
            tick(1, note=f"retain loss {state.smooth:.4f}  {rate:.0f} images/s")
            if state.step % 50 == 0 and curve.calm:
                state.good = state.averaged.clone()
            stop, last = asked(), state.step == settings.steps
            if stop or (state.step % settings.save_every == 0 and not last):
                curve.flush()
                folder.store(state)
            if stop:
                where = f"; go on with --resume (state in {folder.path})" if folder.path is not None else ""
                raise Interrupted(f"interrupted after step {state.step} of {settings.steps}{where}")
        curve.flush()


def _objective(
    model: ScoreModel,
    method: Method,
    settings: TrainSettings,
    retain: Images,
    forget: Images | None,
    counts: Tensor | None,
    runtime: Runtime,
) -> Objective:
    pixels = Pixels(retain, runtime)
    return Objective(
        method=method, model=model, retain=pixels, forget=Pixels(forget, runtime) if forget is not None else None,
        weights=counts.to(pixels.device) if counts is not None else None,
        clock=LogNormalClock(mean=settings.noise_mean) if settings.clock == "lognormal" else UniformClock(),
        numbers=stratified if settings.draw == "stratified" else uniform,
        batch_size=settings.batch, steps=settings.steps, flip=settings.flip, seed=settings.seed, runtime=runtime,
    )  # fmt: skip


def _sets(
    model: ScoreModel, data: Images | Split, method: Method, settings: TrainSettings
) -> tuple[Images, Images | None]:
    """The images to keep, and those to forget where a term asks for them."""
    if isinstance(data, Images):
        if method.forget is not None or not method.sees_forget:
            raise UserError(f"method {method.name} needs to know what to forget; give a request (--forget RULE)")
        retain, forget = data, None
    elif method.sees_forget:
        retain, forget = data.retain.join(data.forget), None
    else:
        retain, forget = data.retain, data.forget if method.forget is not None else None
    (data if isinstance(data, Images) else data.whole).check_shape(model.shape)
    if settings.flip and len(model.shape) != 3:
        raise UserError("flip mirrors images, and the data are vectors; leave it out")
    return retain, forget


def _counts(method: Method, confidence: Tensor | None, rows: int) -> Tensor | None:
    """What each retained row counts: confidence^power, of mean 1; None where all count alike."""
    if not method.power:
        return None
    if confidence is None:
        raise UserError(f"method {method.name} weighs images by a judge's confidence; give one (--judge FOLDER)")
    counts = confidence.detach().cpu().float() ** method.power
    if counts.shape != (rows,) or not bool((confidence >= 0).all() & (confidence <= 1).all() & counts.any()):
        raise UserError(f"confidence must be {rows} numbers in [0, 1], not all 0; got shape {tuple(confidence.shape)}")
    return counts / counts.mean()


def _record(
    model: ScoreModel,
    data: Images | Split,
    method: Method,
    settings: TrainSettings,
    kind: str,
    run: RunSpec,
    runtime: Runtime,
) -> dict[str, Any]:
    whole = data if isinstance(data, Images) else data.whole
    request = {} if isinstance(data, Images) else {"request": data.to_dict()}
    return {
        "format": 1,
        **model.record,
        "kind": kind,
        "data": whole.to_dict(),
        **request,
        "method": method.to_dict(),
        "settings": asdict(settings),
        "seed": settings.seed,
        "runtime": runtime.to_dict(),
        "command": run.command,
        "versions": {name: version(name) for name in ("msgm", "torch", "diffusers")},
    }


def _identity(record: Mapping[str, Any], model: ScoreModel) -> str:
    """Hash (hex) of all that a run's numbers depend on."""
    parts = {k: v for k, v in record.items() if k not in ("command", "versions")}
    parts["data"] = record["data"]["sha256"]  # whichever place they were read from
    parts["settings"] = {k: v for k, v in record["settings"].items() if k != "save_every"}
    parts["model"] = configuration(model)
    parts["layout"] = 2  # of the state's tensors
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _finish(state: State, folder: Folder, record: dict[str, Any], watch: Watch | None) -> ScoreModel:
    """The average, shipped: with its record, in full precision, in the folder if there is one."""
    average = state.average
    average.precision = "fp32"
    average.record = {**record, **(watch.ship(average) if watch is not None else {})}
    if folder.path is not None:
        write_model(average, folder.path)
        (folder.path / STATE).unlink(missing_ok=True)
    return average.requires_grad_(True).eval()


@contextmanager
def stopping() -> Iterator[Any]:
    """SIGINT asks for a stop after the current step; outside the main thread it keeps its usual meaning."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
