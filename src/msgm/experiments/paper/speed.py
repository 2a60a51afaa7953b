"""How fast a machine is at what a grid asks of it: the pieces are sized by it, and it is a benchmark of its own."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...data import Images, Split
from ...likelihood import log_likelihood
from ...model.score import ScoreModel
from ...sampling import build
from ...training.loop import train, unlearn
from ...training.runs import RunSpec
from ...training.runtime import Runtime
from .budgets import Budget
from .tables import recipe

WARM, TIMED = 10, 40
"""Steps before the clock starts (the network is compiled in the first), and those that are timed."""


class Clock:
    """A `Watch` that times the steps after the first ``warm``."""

    def __init__(self, device: torch.device, warm: int, timed: int) -> None:
        self.device, self.warm, self.timed = device, warm, timed
        self.made = self.began = time.perf_counter()
        self.seconds = self.start = 0.0

    def __call__(self, step: int, average: ScoreModel) -> bool:
        if step in (self.warm, self.warm + self.timed):
            wait(self.device)
            now = time.perf_counter()
            if step == self.warm:
                self.start, self.began = now - self.made, now
            else:
                self.seconds = now - self.began
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.timed / self.seconds


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, action: Callable[[], object], repeats: int = 1, warm: int = 1) -> float:
    """What one call takes, after ``warm`` of them."""
    for _ in range(warm):
        action()
    wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        action()
    wait(device)
    return (time.perf_counter() - began) / repeats


def peak(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product on random numbers, in the precision of the network."""
    size = 8192 if device.type == "cuda" else 256
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    return 2 * size**3 / seconds(device, lambda: a @ b, repeats=20, warm=5)


def operations(model: ScoreModel) -> float:
    """Floating-point operations of one evaluation of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    own = copy.deepcopy(model).cpu()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        own.noise(torch.zeros(1, *own.shape), torch.full((1,), 0.5))
    return float(counter.get_total_flops())


def measure(
    model: ScoreModel,
    *,
    budget: Budget,
    methods: Sequence[str],
    split: Split,
    test: Images,
    run: RunSpec,
    runtime: Runtime,
) -> dict[str, Any]:
    """Training (compiled and not), fine-tuning by each method, sampling and likelihood, each as it is really done.

    ``model`` is an untrained one of the first process. ``steps_per_second`` has ``train``, each method, and ``tune``:
    that of a run which takes the mean of their times. A method that fails is left out, with its error in ``failed``.
    """
    device, kind = runtime.device, next(iter(budget.kinds.values()))
    rates: dict[str, float] = {}
    starts: dict[str, float] = {}
    failed: dict[str, str] = {}

    def note(name: str, clock: Clock) -> None:
        rates[name], starts[name] = clock.rate, clock.start

    short = {"steps": WARM + TIMED, "warmup": 1}
    for compile in dict.fromkeys((False, budget.compile)):
        clock = Clock(device, WARM, TIMED)
        settings = replace(kind.train, **short)  # type: ignore[arg-type]
        how = replace(run, compile=compile)
        train(copy.deepcopy(model), split, method=recipe("standard"), settings=settings, run=how, watch=clock)
        note("train" if compile == budget.compile else "train, not compiled", clock)
    for name in methods:
        clock = Clock(device, WARM, TIMED)
        tune = replace(kind.tune, **short)  # type: ignore[arg-type]
        try:
            unlearn(model, split, method=recipe(name), settings=tune, run=run, watch=clock)
        except Exception as problem:  # one method must not keep the others from being sized
            failed[name] = repr(problem)
        else:
            note(name, clock)
    tuned = [rates[name] for name in methods if name in rates]
    rates["tune"] = len(tuned) / sum(1 / rate for rate in tuned)

    flops, top = operations(model), peak(device, budget.precision)
    images = rates["train"] * kind.train.batch
    return {
        "device": runtime.to_dict(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "operations": flops,
        "steps_per_second": rates,
        "start_seconds": starts,
        "failed": failed,
        "images_per_second": images,
        "peak_flops": top,
        # A backward pass takes about twice the operations of a forward one.
        "training_share_of_peak": 3 * flops * images / top,
        **_evaluation(model, budget, test, runtime),
    }


def _evaluation(model: ScoreModel, budget: Budget, test: Images, runtime: Runtime) -> dict[str, Any]:
    """Samples and likelihoods a second, in batches as the audits take them."""
    device, audit, rates = runtime.device, budget.audit, {}
    exact, plain = Runtime(device=device), copy.deepcopy(model)
    fast = runtime.place(copy.deepcopy(model))
    with runtime.active():
        for draw in audit.draws:
            sampler = build(draw.sampler, fast, steps=draw.steps)
            rates[draw.name] = draw.batch / seconds(device, partial(sampler.sample, draw.batch, batch=draw.batch))
    images = test.rows(slice(audit.nll_images)).to(device)
    exact.place(plain)
    with exact.active():
        taken = seconds(
            device,
            lambda: log_likelihood(plain, images, steps=audit.nll_steps, check=False, batch=audit.nll_images),
            warm=0,
        )
    return {"samples_per_second": rates, "likelihoods_per_second": len(images) / taken}
