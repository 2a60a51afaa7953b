"""Training and unlearning: one loop, read from top to bottom in `_fit` and `_steps`.

Everything random in step k (batch, times, noise, dropout) is a function of (seed, k). So a resumed run needs only the
step, the weights, their average and the optimiser's moments to continue the same loss curve, on a CPU bit for bit.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

from ..data import Images, Split
from ..errors import Interrupted, UserError
from ..forgetting.methods import DEFAULT, METHODS, Method, standard
from ..formats.ledger import following
from ..formats.native import write_model
from ..formats.tensors import weights_sha256
from ..model.memory import check_memory
from ..model.score import ScoreModel
from ..process.times import LogNormalClock, UniformClock, stratified, uniform
from ..processes import Lost, here
from ..progress import bar, note
from ..status import FINISHED, Status, diverged
from . import inputs
from .batches import Pixels
from .curve import Curve, Exploded
from .earlier import Earlier, forgetting
from .few import fitting
from .objective import Objective
from .runs import Folder, Log, RunSpec, open_folder, spare
from .runtime import Runtime
from .settings import TrainSettings, UnlearnSettings
from .step import State, follow, step, update
from .stopping import stopping
from .trackers import check as check_tracker
from .trackers import tracking


class Diverged(RuntimeError):
    """The retain loss exploded or was not finite, at ``status.step``. ``model`` has the last good weights."""

    def __init__(self, message: str, status: Status, model: ScoreModel) -> None:
        super().__init__(message)
        self.status, self.model = status, model


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
        Diverged: the guard stopped the run a second time, or a method whose loss has no floor at once; the last good
            weights are in its folder. The first time a run goes on from them, at half the learning rate.
    """
    method = method or standard()
    if method.fine_tunes:
        raise UserError(f"method {method.name} starts from a trained model; use it with unlearn")
    plan = _Plan(
        kind="trained", method=method, settings=settings or TrainSettings(), run=run or RunSpec(),
        confidence=confidence, watch=watch,
    )  # fmt: skip
    return _fit(model, data, plan)


def unlearn(
    model: ScoreModel,
    split: Split,
    *,
    method: Method | None = None,
    settings: UnlearnSettings | None = None,
    run: RunSpec | None = None,
    confidence: Tensor | None = None,
    watch: Watch | None = None,
    earlier: Earlier = "forget",
) -> ScoreModel:
    """Fine-tune a copy of a trained model so that it forgets ``split.forget``; the given model is untouched.

    Arguments and errors as `train`. The average of the weights restarts here, with a short memory: with a decay of
    0.9999, 1,000 steps would leave 90 % of the old model in it. ``watch`` sees the average after every step
    (`experiments.core.selection.Selection`, say).

    What the model was made to forget before (`formats.ledger`) is forgotten along: those images count as images to
    forget, and are not retained. With ``earlier="ignore"`` they are retained, where the split says so, and come back.
    ``confidence`` is then of the rows that are left to retain (`earlier.forgetting`).

    Few images to forget have settings of their own (`few.fitting`).

    Raises UserError, beside what `train` does, where these images cannot tell what an earlier request meant, and where
    the retained ones are so few that they would be learnt by heart.
    """
    split, ignored = forgetting(split, model.record, earlier)
    settings = settings or UnlearnSettings()
    method, few = fitting(method or METHODS[DEFAULT](), settings, split)
    plan = _Plan(
        kind="unlearned", method=method, settings=settings, run=run or RunSpec(), confidence=confidence, watch=watch,
    )  # fmt: skip
    parent = weights_sha256(model.network)
    spare(plan.run.folder, parent)
    child = copy.deepcopy(model)
    chained = following(model.record, parent)
    child.record = {"parent": {"weights_sha256": parent, "kind": model.record.get("kind")}, **chained, **ignored, **few}
    return _fit(child, split, plan)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that was asked for but for the model and the data."""

    kind: str
    method: Method
    settings: TrainSettings
    run: RunSpec
    confidence: Tensor | None
    watch: Watch | None


def _fit(model: ScoreModel, data: Images | Split, plan: _Plan) -> ScoreModel:
    run, settings, method = plan.run, plan.settings, plan.method
    runtime = Runtime.choose(run.device, precision=run.precision, compile=run.compile)
    check_tracker(run.log_with, run.folder)
    if settings.batch < here().size:
        raise UserError(f"a batch of {settings.batch} is less than an image for each of {here().size} processes")
    retain, forget = inputs.sets(model, data, method, settings)
    weights = inputs.counts(method, plan.confidence, len(retain))
    record = inputs.record(
        model, data, kind=plan.kind, method=method, settings=settings, weights=weights, runtime=runtime,
        command=run.command,
    )  # fmt: skip
    identity = inputs.identity(record, model, runtime) if run.folder is not None else {}
    if runtime.device.type == "cpu":  # a GPU says itself that it is full
        check_memory(model, settings.batch * (1 if forget is None else 2))

    with open_folder(run, identity, model, settings) as folder, runtime.active():
        state = State.begin(runtime.place(model), method, settings)
        pixels = Pixels(retain, model.space, runtime)
        objective = Objective(
            method=method, model=model, retain=pixels,
            forget=Pixels(forget, model.space, runtime) if forget is not None else None,
            weights=weights.to(pixels.device) if weights is not None else None,
            clock=LogNormalClock(mean=settings.noise_mean) if settings.clock == "lognormal" else UniformClock(),
            numbers=stratified if settings.draw == "stratified" else uniform,
            batch_size=settings.batch, steps=settings.steps, flip=settings.flip, seed=settings.seed, runtime=runtime,
        )  # fmt: skip
        objective.prepare(show=run.progress)
        if objective.method.forget is not None and (found := objective.method.forget.found):
            record["prepared"] = found
        folder.restore(state, settings.steps)
        _same_for_all(state, objective)
        while True:
            try:
                _steps(state, objective, folder, plan)
                break
            except Exploded as bad:
                what = f"{method.name} diverged at step {bad.step}: retain loss {bad.value:.3g}"
                # A loss without a floor goes there again, at whatever rate.
                if state.recovered or not method.bounded:
                    state.averaged.copy_(state.good)
                    message = (
                        f"{what}, lowest {state.lowest:.3g}. Kept the last good weights; try a larger alpha, a lower "
                        "lr or a bounded form of the term"
                    )
                    status = diverged(bad.step)
                    raise Diverged(message, status, _finish(state, folder, record, status, plan.watch)) from None
                state.recover(bad.step)
                if here().first:
                    note(f"{what}; going on from the last good weights, at half the learning rate")
        return _finish(state, folder, record, FINISHED, plan.watch)


def _same_for_all(state: State, objective: Objective) -> None:
    """Every process begins with the weights of the first, and keeps to its regulariser."""
    for values in (state.weights, state.averaged, state.good):
        here().copied(values)
    if objective.regularise is not None:
        for value in vars(objective.regularise).values():
            if isinstance(value, Tensor):
                here().copied(value)


def _steps(state: State, objective: Objective, folder: Folder, plan: _Plan) -> None:
    """All steps that are left. Raises `Exploded`, or `Interrupted` with the state saved."""
    settings, watch, everyone = plan.settings, plan.watch, here()
    began, first = time.monotonic(), state.step
    title = f"{'Training' if plan.kind == 'trained' else 'Unlearning'} ({plan.method.name})"
    with (
        stopping() as asked,
        tracking(plan.run.log_with, folder.path, asdict(settings)) as tracker,
        Log(folder.path, state.step, tracker) as log,
        bar(title, settings.steps, done=state.step, show=plan.run.progress) as tick,
    ):
        curve = Curve(state, log, settings, objective.runtime.lag)

        def keep() -> None:
            curve.flush()
            log.sync()
            folder.store(state)

        def stopped(why: str, number: int) -> Interrupted:
            kept = folder.path is not None and state.step > 0
            where = f"; its state is in {folder.path}" if kept else ""
            message = f"{why} after step {state.step} of {settings.steps}{where}"
            return Interrupted(message, number, resumable=kept)

        try:
            while not (watch is not None and watch(state.step, state.average)) and state.step < settings.steps:
                found = step(objective, objective.batch(state.step), state)
                curve.add(found)
                update(state, found, settings, objective.regularise)
                follow(state.averaged, state.weights, min(settings.ema, (1 + state.step) / (10 + state.step)))
                state.step += 1

                rate = (state.step - first) * settings.batch / (time.monotonic() - began)
                tick(1, note=f"retain loss {state.smooth:.4f}  {rate:.0f} images/s")
                if state.step % 50 == 0 and curve.calm:
                    state.good = state.averaged.clone()
                stop, last = everyone.most(asked()), state.step == settings.steps
                if stop or (state.step % settings.save_every == 0 and not last):
                    keep()
                if stop:
                    raise stopped("interrupted", stop)
        except Lost as lost:  # between two steps, or before any weight moved
            if state.step:
                keep()
            raise stopped("another process has ended", lost.number) from None
        curve.flush()


def _finish(state: State, folder: Folder, record: dict[str, Any], status: Status, watch: Watch | None) -> ScoreModel:
    """The average, shipped: with its record, in full precision, in the folder if there is one."""
    average = state.average
    average.precision = "fp32"
    once = {"recovered": state.recovered} if state.recovered else {}
    average.record = {
        **record,
        **once,
        "status": status.to_dict(),
        **(watch.ship(average) if watch is not None else {}),
    }
    if folder.path is not None:
        write_model(average, folder.path)
    folder.finish(status)
    return average.requires_grad_(True).eval()
