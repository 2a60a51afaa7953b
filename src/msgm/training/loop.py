"""Training and unlearning: one loop, read from top to bottom in `_fit`.

Everything random in step k (batch, times, noise, dropout) is a function of (seed, k). So a resumed run needs only the
step, the weights, their average and the optimiser's moments to continue the same loss curve bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data import Images, Split
from ..errors import UserError
from ..forgetting.methods import Method, deflect, standard
from ..formats.native import RECORD, configuration, weights_sha256, write_model
from ..model.score import ScoreModel
from ..model.vectors import flatten
from ..process.times import LogNormalClock, UniformClock, stratified, uniform
from ..progress import bar
from ..storage import claim
from .objective import Objective
from .runs import LOG, STATE, Log, Run, restore, store
from .settings import TrainSettings, UnlearnSettings


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
    confidence: Tensor | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    command: str = "",
    watch: Watch | None = None,
) -> ScoreModel:
    """Train a freshly initialised model (in place) and return the average of its weights.

    With a `Split` and a method this is the paper's re-training; with plain data the ordinary (Standard) model.
    ``out`` is a folder for the model, its record and ``log.jsonl``; a run that was stopped goes on with ``resume``.
    ``confidence`` (N,) in [0, 1] is a judge's P(retain | x_0) of each retained image, for methods with a ``power``.
    ``watch`` sees the average after every step.

    Raises:
        UserError: the images' shape is not the model's; ``out`` exists; a resumed run's settings differ; the method
            needs a trained model, or a judge's confidence that is not given.
        Diverged: the guard stopped the run; the last good weights are in ``out``.
    """
    method = method or standard()
    settings = settings or TrainSettings()
    if method.fine_tunes:
        raise UserError(f"method {method.name} starts from a trained model; use it with unlearn")
    return _fit(
        model, data, method, settings, "trained", out, resume, overwrite, device, progress, command, confidence, watch
    )


def unlearn(
    model: ScoreModel,
    split: Split,
    *,
    method: Method | None = None,
    settings: UnlearnSettings | None = None,
    confidence: Tensor | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    command: str = "",
    watch: Watch | None = None,
) -> ScoreModel:
    """Fine-tune a copy of a trained model so that it forgets ``split.forget``; the given model is untouched.

    Arguments and errors as `train`. The average of the weights restarts here, with a short memory: with a decay of
    0.9999, 1,000 steps would leave 90 % of the old model in it. ``watch`` sees the average after every step
    (`experiments.core.selection.Selection`, say).
    """
    method = method or deflect()
    settings = settings or UnlearnSettings()
    child = copy.deepcopy(model)
    child.record = {"parent": {"weights_sha256": weights_sha256(model.network), "kind": model.record.get("kind")}}
    return _fit(
        child, split, method, settings, "unlearned", out, resume, overwrite, device, progress, command, confidence,
        watch,
    )  # fmt: skip


def _fit(
    model: ScoreModel,
    data: Images | Split,
    method: Method,
    settings: TrainSettings,
    kind: str,
    out: str | os.PathLike[str] | None,
    resume: bool,
    overwrite: bool,
    device: str,
    progress: bool,
    command: str,
    confidence: Tensor | None,
    watch: Watch | None,
) -> ScoreModel:
    from accelerate import Accelerator

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"no device {device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda asks for a GPU that PyTorch can use, and there is none; use auto or cpu")
    retain, forget = _images(model, data, method)
    if settings.flip and retain.ndim != 4:
        raise UserError("flip mirrors images, and the data are vectors; leave it out")
    counts = _counts(method, confidence, len(retain))
    record = _record(model, data, method, settings, kind, command)
    if counts is not None:
        record["confidence_sha256"] = hashlib.sha256(counts.numpy().tobytes()).hexdigest()
    folder = Path(out) if out is not None else None
    identity = _identity(record, model) if folder is not None else ""
    if folder is not None and not (resume and (folder / STATE).exists()):
        if resume and (folder / RECORD).exists():
            raise UserError(f"{folder} is finished; there is nothing to resume. Use another folder or --overwrite")
        # A run killed before its first state has only a log: resuming it starts it again.
        claim(folder, overwrite=overwrite or (resume and not (folder / "unet").exists()))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOG).unlink(missing_ok=True)
        (folder / STATE).unlink(missing_ok=True)

    accelerator = Accelerator(cpu=device == "cpu", step_scheduler_with_optimizer=False)
    model.to(accelerator.device).train()
    if accelerator.scaler is not None:
        raise UserError("float16 needs gradient scaling, which msgm has not; use bf16 or no mixed precision")
    average = copy.deepcopy(model).requires_grad_(False)
    weights, averaged = flatten(model), flatten(average)
    # Hence the optimisers stay unwrapped: Accelerate's wrapper would look for optional packages on every step.
    network, parameters = accelerator.prepare(model), list(model.parameters())
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.AdamW([weights], lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        for name in ("optimizer", *(("forget_optimizer",) if method.combine.separate else ()))
    }
    objective = Objective(
        method=method, model=model, network=network, retain=retain, forget=forget, weights=counts,
        clock=LogNormalClock(mean=settings.noise_mean) if settings.clock == "lognormal" else UniformClock(),
        numbers=stratified if settings.draw == "stratified" else uniform,
        batch=settings.batch, steps=settings.steps, flip=settings.flip,
        seed=settings.seed + 1_000_003 * accelerator.process_index, device=accelerator.device,
    )  # fmt: skip
    main = accelerator.is_main_process
    regularise = objective.prepare(show=progress and main)
    if objective.method.forget is not None and (found := objective.method.forget.found):
        record["prepared"] = found
    run = Run(model=model, average=average, optimizers=optimizers)
    if folder is not None and resume and (folder / STATE).exists():
        restore(run, folder, identity)
    good = averaged.clone()

    def gradient(loss: Tensor, *, last: bool = True) -> Tensor:
        """By all weights, one flat vector."""
        for p in parameters:
            p.grad = None
        accelerator.backward(loss, retain_graph=not last)
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])

    def probe(shift: Tensor) -> Tensor:
        """The gradient of this step's forget loss where the weights are moved by ``shift``."""
        here = weights.clone()
        weights.add_(shift)
        loss = objective(run.step)[1]
        assert loss is not None
        moved = gradient(loss)
        weights.copy_(here)
        return moved

    title = f"{'Training' if kind == 'trained' else 'Unlearning'} ({method.name})"
    began, first = time.monotonic(), run.step

    with (
        _stop() as stop,
        Log(folder if main else None, run.step) as log,
        bar(title, settings.steps, done=run.step, show=progress and main) as tick,
    ):
        while not (watch is not None and watch(run.step, run.average)) and run.step < settings.steps:
            for optimizer in optimizers.values():
                optimizer.param_groups[0]["lr"] = settings.rate(run.step)
            retain_loss, forget_loss = objective(run.step)

            # A direction for each optimiser; all are found before any of them moves the weights.
            losses = method.combine.parts(retain_loss, forget_loss) if method.forget is not None else [retain_loss]
            gradients = [gradient(loss, last=loss is losses[-1]) for loss in losses]
            directions = method.combine.direction(gradients, probe)
            if regularise is not None:
                directions = [regularise.direction(directions[0], weights, forget_loss is not None)]
            norms = [d.norm() for d in directions]
            norm = float(sum(norms))
            value = float(retain_loss.detach())
            if not (math.isfinite(value) and math.isfinite(norm)) or _exploded(run, value, settings.guard):
                averaged.copy_(good)
                message = (
                    f"{method.name} diverged at step {run.step + 1}: retain loss {value:.3g}, lowest {run.lowest:.3g}. "
                    f"Kept the last good weights; try a larger alpha, a lower lr or a bounded form of the term"
                )
                record["status"] = f"diverged at step {run.step + 1}"
                raise Diverged(message, _finish(run, folder if main else None, record, watch))
            for optimizer, direction, length in zip(optimizers.values(), directions, norms, strict=False):
                weights.grad = direction * (settings.clip / (length + 1e-6)).clamp(max=1)
                optimizer.step()
            if regularise is not None:
                weights.copy_(regularise.weights(weights))
            _follow(averaged, weights, min(settings.ema, (1 + run.step) / (10 + run.step)))

            run.step += 1
            log(
                {
                    "step": run.step,
                    "retain": value,
                    "forget": None if forget_loss is None else float(forget_loss.detach()),
                    "norm": norm,
                }
            )
            rate = (run.step - first) * settings.batch / (time.monotonic() - began)
            tick(1, note=f"retain loss {run.smooth:.4f}  {rate:.0f} images/s")
            # Not while the loss is on its way up to the guard.
            if run.step % 50 == 0 and run.smooth < math.sqrt(settings.guard) * run.lowest:
                good = averaged.clone()
            stopping = stop()
            due_save = run.step % settings.save_every == 0 and run.step < settings.steps
            if folder is not None and main and (due_save or stopping):
                log.flush()
                store(run, folder, identity)
            if stopping:
                where = f"; go on with --resume (state in {folder})" if folder is not None else ""
                raise Interrupted(f"interrupted after step {run.step} of {settings.steps}{where}")
    return _finish(run, folder if main else None, {**record, "status": "finished"}, watch)


def _images(model: ScoreModel, data: Images | Split, method: Method) -> tuple[Tensor, Tensor | None]:
    if isinstance(data, Images):
        if method.forget is not None or not method.sees_forget:
            raise UserError(f"method {method.name} needs to know what to forget; give a request (--forget RULE)")
        retain, forget = data.rows(), None
    elif method.sees_forget:
        retain, forget = data.retain.join(data.forget).rows(), None
    else:
        retain = data.retain.rows()
        forget = data.forget.rows() if method.forget is not None else None
    (data if isinstance(data, Images) else data.whole).check_shape(model.shape)
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


def _follow(average: Tensor, weights: Tensor, decay: float) -> None:
    average.lerp_(weights, 1 - decay)


def _exploded(run: Run, value: float, guard: float) -> bool:
    run.smooth = value if math.isnan(run.smooth) else 0.9 * run.smooth + 0.1 * value
    if run.step >= 10:
        run.lowest = min(run.lowest, run.smooth)
    return run.smooth > guard * run.lowest


def _record(
    model: ScoreModel,
    data: Images | Split,
    method: Method,
    settings: TrainSettings,
    kind: str,
    command: str,
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
        "command": command,
        "versions": {name: version(name) for name in ("msgm", "torch", "diffusers", "accelerate")},
    }


def _identity(record: Mapping[str, Any], model: ScoreModel) -> str:
    """Hash (hex) of all that a run's numbers depend on."""
    parts = {k: v for k, v in record.items() if k not in ("command", "versions")}
    parts["data"] = record["data"]["sha256"]  # whichever place they were read from
    parts["settings"] = {k: v for k, v in record["settings"].items() if k != "save_every"}
    parts["model"] = configuration(model)
    parts["layout"] = 2  # of the state's tensors
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _finish(run: Run, folder: Path | None, record: dict[str, Any], watch: Watch | None) -> ScoreModel:
    run.average.record = {**record, **(watch.ship(run.average) if watch is not None else {})}
    if folder is not None:
        write_model(run.average, folder)
        (folder / STATE).unlink(missing_ok=True)
    return run.average.requires_grad_(True).eval()


@contextmanager
def _stop() -> Iterator[Any]:
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
