"""How long runs will take: what they ask of the network is counted, what the network does in a second is measured."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...folders import room
from ...forgetting.methods import Method
from ...metrics.renoise import evaluations
from ...model.score import ScoreModel
from ...training.runs import disk
from ...training.settings import TrainSettings
from .evaluate import EvaluateSettings
from .jobs import Job, inputs
from .pieces import ROW

BACKWARD = 2 / 3
"""Share of a training step that its backward pass takes; a method with two gradients takes one more."""
DIVERGENCE = 3
"""What one evaluation of the likelihood's flow costs, in evaluations of the network: it has a derivative, too."""


def trained(job: Job) -> float:
    """Images that a run trains on; see `images`."""
    return 0.0 if job.method is None or job.refusal else images(job.method, job.settings)


def images(method: Method, settings: TrainSettings) -> float:
    """Images that a training takes, of both sets; on a step with two gradients they count more."""
    due = [method.forget is not None and method.combine.due(step) for step in range(settings.steps)]
    zero = torch.zeros(())
    parts = len(method.combine.parts(zero, zero))
    both = 2 * (1 + BACKWARD * (parts - 1))
    return float(settings.batch * sum(both if forget else 1 for forget in due))


def evaluated(settings: EvaluateSettings, model: ScoreModel) -> float:
    """Evaluations of the network in an audit, image by image: samples, likelihoods of both sets, renoising."""
    back = 2 * settings.renoise_images * evaluations(model) if settings.renoise_images else 0
    own = likelihoods(settings.nll_images, settings.nll_steps, settings.nll_check) if settings.nll_images else 0
    return settings.n * settings.build(model).nfe + own + back


def likelihoods(n: int, steps: int, check: int) -> int:
    """Evaluations of the network that the likelihoods of so many images of each set cost, ``check`` of them twice."""
    # Four evaluations a step, eight in the check, which has twice the steps.
    return DIVERGENCE * 2 * (4 * n + 8 * min(check, n)) * steps


def looked(job: Job, model: ScoreModel) -> float:
    """Evaluations of the network in all of a run's audits, the watched checkpoints' with the last one."""
    watch, own = job.task.selection, evaluated(job.task.evaluation, model)
    if job.refusal:
        return 0.0
    if watch is None or job.method is None:
        return own
    return own + (2 + (job.settings.steps - 1) // watch.select_every) * evaluated(watch.evaluation, model)


def speed(model: ScoreModel, batch: int = 32, repeats: int = 2) -> tuple[float, float]:
    """Images a second of this network in training and in evaluation, where it is; leaves gradients in it."""
    x, t = torch.zeros(batch, *model.shape, device=model.device), torch.full((batch,), 0.5, device=model.device)

    def evaluate() -> None:
        with torch.no_grad():
            model.noise(x, t)

    def train() -> None:
        model.noise(x, t).square().mean().backward()

    return batch / _seconds(train, repeats), batch / _seconds(evaluate, repeats)


def _seconds(work: Callable[[], None], repeats: int) -> float:
    work()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats


def room_for(out: Path, jobs: Sequence[Job], workers: int) -> None:
    """Raise UserError where the disk of a folder has no room for what is left of these jobs."""
    left = [job for job in jobs if not (job.out / ROW).exists()]
    if left:
        model, made = inputs(left[0].task)[0], [job for job in left if job.method is not None and not job.refusal]
        pixels = math.prod(model.shape) + 200
        shown = sum(job.shown + (job.task.evaluation.n if job.samples is not None else 0) for job in left)
        room(out, disk(model, left[0].settings.steps, len(made), workers) + shown * pixels)


def forecast(jobs: Sequence[Job], workers: int) -> str:
    """One line: how many runs, on how many processes, and about how long."""
    if not jobs:
        return "nothing is left to run"
    model = copy.deepcopy(inputs(jobs[0].task)[0]).to(jobs[0].task.place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if workers > 1 else threads)
    training, evaluation = speed(model)
    torch.set_num_threads(threads)
    workers = min(workers, len(jobs))
    seconds = sum(trained(job) / training + looked(job, model) / evaluation for job in jobs) / workers
    return said(len(jobs), workers, seconds, training, evaluation)


def said(runs: int, workers: int, seconds: float, training: float, evaluation: float) -> str:
    """The line of a forecast."""
    length = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
    return (
        f"{_number(runs, 'run')} on {_number(workers, 'process', 'es')}, about {length} (a process trains on "
        f"{training:.0f} images a second here and evaluates {evaluation:.0f})"
    )


def _number(n: int, name: str, plural: str = "s") -> str:
    return f"{n} {name}{plural if n != 1 else ''}"
