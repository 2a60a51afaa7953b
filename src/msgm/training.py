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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from .batches import Shuffled, clean, draw, mix
from .checkpoint import RECORD, configuration, weights_sha256, write_model
from .data import ImageData, Split
from .errors import UserError
from .forgetting.methods import Method, redirect, standard
from .forgetting.terms import Noised
from .progress import bar
from .runs import LOG, STATE, Log, Run, restore, store
from .score import ScoreModel
from .storage import claim
from .times import Clock, LogNormalClock, UniformClock, stratified, uniform


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


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a run from scratch; docs/method.md has the paper's.

    Args:
        steps: optimiser steps.
        batch: retain images a step; on a step with a forget loss as many forget images come on top.
        lr: AdamW's learning rate at its highest.
        warmup: steps over which it rises linearly.
        cooldown: last share of the steps, over which it falls to 5 %; 0 for none.
        weight_decay: AdamW's.
        clip: largest gradient norm.
        ema: decay of the average that is shipped; it warms up as (1 + k) / (10 + k).
        clock: training times: log-normal noise levels, or uniform t as in the paper.
        noise_mean: mean of log(sigma/alpha) of the log-normal clock.
        draw: stratified or independent times.
        flip: mirror images at random.
        save_every: steps between saved states.
        guard: stop when the smoothed retain loss passes this many times its lowest value.
        seed: of everything random.
    """

    steps: int = 6000
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 200
    cooldown: float = 0.4
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    clock: Literal["lognormal", "uniform"] = "lognormal"
    noise_mean: float = -0.9
    draw: Literal["stratified", "uniform"] = "stratified"
    flip: bool = False
    save_every: int = 200
    guard: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be 1 or more; got {getattr(self, name)}")
        for name in ("lr", "clip", "guard"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive and finite; got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema is a decay in [0, 1); got {self.ema}")


@dataclass(frozen=True, kw_only=True)
class UnlearnSettings(TrainSettings):
    """Settings of a fine-tuning run; see `TrainSettings`."""

    steps: int = 300
    lr: float = 8e-4
    warmup: int = 10
    cooldown: float = 0.3
    ema: float = 0.98
    noise_mean: float = 0.1
    save_every: int = 100


def train(
    model: ScoreModel,
    data: ImageData | Split,
    *,
    method: Method | None = None,
    settings: TrainSettings | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
    command: str = "",
) -> ScoreModel:
    """Train a freshly initialised model (in place) and return the average of its weights.

    With a `Split` and a method this is the paper's re-training; with plain data the ordinary (Standard) model.
    ``out`` is a folder for the model, its record and ``log.jsonl``; a run that was stopped goes on with ``resume``.

    Raises:
        UserError: the images' shape is not the model's; ``out`` exists; a resumed run's settings differ.
        Diverged: the guard stopped the run; the last good weights are in ``out``.
    """
    method = method or standard()
    settings = settings or TrainSettings()
    return _fit(model, data, method, settings, "trained", out, resume, overwrite, device, progress, command)


def unlearn(
    model: ScoreModel,
    split: Split,
    *,
    method: Method | None = None,
    settings: UnlearnSettings | None = None,
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
    (`evaluation.selection.Selection`, say).
    """
    method = method or redirect()
    settings = settings or UnlearnSettings()
    child = copy.deepcopy(model)
    child.record = {"parent": {"weights_sha256": weights_sha256(model.network), "kind": model.record.get("kind")}}
    return _fit(child, split, method, settings, "unlearned", out, resume, overwrite, device, progress, command, watch)


def _fit(
    model: ScoreModel,
    data: ImageData | Split,
    method: Method,
    settings: TrainSettings,
    kind: str,
    out: str | os.PathLike[str] | None,
    resume: bool,
    overwrite: bool,
    device: str,
    progress: bool,
    command: str,
    watch: Watch | None = None,
) -> ScoreModel:
    from accelerate import Accelerator

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"no device {device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda asks for a GPU that PyTorch can use, and there is none; use auto or cpu")
    retain, forget = _images(model, data, method)
    if settings.flip and retain.ndim != 4:
        raise UserError("flip mirrors images, and the data are vectors; leave it out")
    record = _record(model, data, method, settings, kind, command)
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
    # Hence the optimisers stay unwrapped: Accelerate's wrapper would look for optional packages on every step.
    network, parameters = accelerator.prepare(model), list(model.parameters())
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        for name in ("optimizer", *(("forget_optimizer",) if method.combine.separate else ()))
    }
    run = Run(model=model, average=copy.deepcopy(model).requires_grad_(False), optimizers=optimizers)
    if folder is not None and resume and (folder / STATE).exists():
        restore(run, folder, identity)
    good = copy.deepcopy(run.average.network.state_dict())

    seed = settings.seed + 1_000_003 * accelerator.process_index
    retain_batches = Shuffled(len(retain), settings.batch, seed)
    forget_batches = Shuffled(len(forget), settings.batch, seed + 1) if forget is not None else None
    pool = clean(retain, accelerator.device) if method.forget is not None else retain[:0]
    clock: Clock = LogNormalClock(mean=settings.noise_mean) if settings.clock == "lognormal" else UniformClock()
    numbers = stratified if settings.draw == "stratified" else uniform
    main = accelerator.is_main_process
    title = f"{'Training' if kind == 'trained' else 'Unlearning'} ({method.name})"
    began, first = time.monotonic(), run.step

    with (
        Log(folder if main else None, run.step) as log,
        bar(title, settings.steps, done=run.step, show=progress and main) as tick,
        _stop() as stop,
    ):
        while not (watch is not None and watch(run.step, run.average)) and run.step < settings.steps:
            generator = torch.Generator().manual_seed(mix(seed, run.step))
            for optimizer in optimizers.values():
                optimizer.param_groups[0]["lr"] = settings.lr * _schedule(run.step, settings)
            due = forget is not None and method.forget is not None and method.combine.due(run.step)

            # Both halves share their times and go through the network together.
            x0 = draw(retain, retain_batches(run.step), generator, settings.flip)
            t = clock(numbers(len(x0), generator), model.sde)
            if due:
                assert forget is not None and forget_batches is not None
                x0 = torch.cat([x0, draw(forget, forget_batches(run.step), generator, settings.flip)])
                t = torch.cat([t, t])
            eps = torch.randn(x0.shape, generator=generator)
            x0, t, eps = (v.to(accelerator.device, torch.float32) for v in (x0, t, eps))
            x = model.sde.marginal(x0, t, eps)
            with _dropout_seed(mix(seed, run.step), accelerator.device):
                noise = network(x, t)
            halves = [
                Noised(x=a, t=b, eps=c, noise=d, model=model, generator=generator)
                for a, b, c, d in zip(*(v.split(settings.batch) for v in (x, t, eps, noise)), strict=True)
            ]
            retain_loss = method.retain(halves[0])
            forget_loss = method.forget(halves[1], pool) if due and method.forget is not None else None
            losses = method.combine.parts(retain_loss, forget_loss) if method.forget is not None else [retain_loss]

            # A gradient for each optimiser; all are taken before any of them moves the weights.
            gradients, norm = [], 0.0
            for loss in losses:
                model.zero_grad()
                accelerator.backward(loss, retain_graph=loss is not losses[-1])
                norm += float(accelerator.clip_grad_norm_(parameters, settings.clip))
                gradients.append([p.grad for p in parameters])
            value = float(retain_loss.detach())
            if not (math.isfinite(value) and math.isfinite(norm)) or _exploded(run, value, settings.guard):
                run.average.network.load_state_dict(good)
                message = (
                    f"{method.name} diverged at step {run.step + 1}: retain loss {value:.3g}, lowest {run.lowest:.3g}. "
                    f"Kept the last good weights; try a larger alpha, a lower lr or a bounded form of the term"
                )
                record["status"] = f"diverged at step {run.step + 1}"
                raise Diverged(message, _finish(run, folder if main else None, record, watch))
            for optimizer, gradient in zip(optimizers.values(), gradients, strict=False):
                for p, g in zip(parameters, gradient, strict=True):
                    p.grad = g
                optimizer.step()
            _follow(run.average, model, min(settings.ema, (1 + run.step) / (10 + run.step)))

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
                good = copy.deepcopy(run.average.network.state_dict())
            stopping = stop()
            due_save = run.step % settings.save_every == 0 and run.step < settings.steps
            if folder is not None and main and (due_save or stopping):
                log.flush()
                store(run, folder, identity)
            if stopping:
                where = f"; go on with --resume (state in {folder})" if folder is not None else ""
                raise Interrupted(f"interrupted after step {run.step} of {settings.steps}{where}")
    return _finish(run, folder if main else None, {**record, "status": "finished"}, watch)


def _images(model: ScoreModel, data: ImageData | Split, method: Method) -> tuple[Tensor, Tensor | None]:
    if isinstance(data, ImageData):
        if method.forget is not None or not method.sees_forget:
            raise UserError(f"method {method.name} needs to know what to forget; give a request (--forget RULE)")
        retain, forget = data.images, None
    elif method.sees_forget:
        retain, forget = torch.cat([data.retain.images, data.forget.images]), None
    else:
        retain = data.retain.images
        forget = data.forget.images if method.forget is not None else None
    if tuple(retain.shape[1:]) != model.shape:
        what, hint = ("images", " (channels, height, width)") if len(model.shape) == 3 else ("vectors", "")
        raise UserError(
            f"the model makes {what} of shape {model.shape}{hint}, the data has {tuple(retain.shape[1:])}; "
            f"resize with --image-size or use other data"
        )
    return retain, forget


def _schedule(step: int, settings: TrainSettings) -> float:
    left = (settings.steps - step) / max(1.0, settings.cooldown * settings.steps)
    return min(1.0, (step + 1) / max(1, settings.warmup), max(0.05, left) if settings.cooldown else 1.0)


def _follow(average: ScoreModel, model: ScoreModel, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _exploded(run: Run, value: float, guard: float) -> bool:
    run.smooth = value if math.isnan(run.smooth) else 0.9 * run.smooth + 0.1 * value
    if run.step >= 10:
        run.lowest = min(run.lowest, run.smooth)
    return run.smooth > guard * run.lowest


def _record(
    model: ScoreModel,
    data: ImageData | Split,
    method: Method,
    settings: TrainSettings,
    kind: str,
    command: str,
) -> dict[str, Any]:
    sets: dict[str, Any] = (
        {"data": {"name": data.name, "sha256": data.sha256, "images": len(data)}}
        if isinstance(data, ImageData)
        else {"request": data.to_dict()}
    )
    return {
        "format": 1,
        **model.record,
        "kind": kind,
        **sets,
        "method": method.to_dict(),
        "settings": asdict(settings),
        "seed": settings.seed,
        "command": command,
        "versions": {name: version(name) for name in ("msgm", "torch", "diffusers", "accelerate")},
    }


def _identity(record: Mapping[str, Any], model: ScoreModel) -> str:
    """Hash (hex) of all that a run's numbers depend on."""
    parts = {k: v for k, v in record.items() if k not in ("command", "versions")}
    parts["settings"] = {k: v for k, v in record["settings"].items() if k != "save_every"}
    parts["model"] = configuration(model)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _finish(run: Run, folder: Path | None, record: dict[str, Any], watch: Watch | None) -> ScoreModel:
    run.average.record = {**record, **(watch.ship(run.average) if watch is not None else {})}
    if folder is not None:
        write_model(run.average, folder)
        (folder / STATE).unlink(missing_ok=True)
    return run.average.requires_grad_(True).eval()


@contextmanager
def _dropout_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the generator that dropout draws from; the CPU's is put back after.

    Not by `torch.manual_seed`: it queues a seed, with a stack trace, for each kind of device that was never used.
    """
    with torch.random.fork_rng(devices=[]):
        (torch.cuda.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(seed)
        yield


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
