"""Log-likelihood by the probability-flow ODE, with its error: probe noise, dequantisation and step doubling.

An image's value cannot depend on the images beside it: the grid is fixed, or each image has steps of its own. With
the default, a fresh random probe at every evaluation of a fixed grid, the noise of the trace averages out along the
path: unbiased, and far less noisy than one probe kept for all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError, in_range
from ..model.memory import Halving
from ..model.modes import blank, evaluating
from ..model.score import ScoreModel
from ..model.space import Space
from ..process.solvers import FIXED, adapt, march, march_exponential
from ..processes import here
from ..sampling import Streams, Tick
from .flow import Clock, Flow, Probes, drawer
from .result import Likelihood

Solver = Literal["etdrk4", "rk4", "heun", "euler", "dopri5"]


def log_likelihood(
    model: ScoreModel,
    images: Tensor,
    *,
    solver: Solver = "etdrk4",
    clock: Clock = "log",
    probes: Probes | None = None,
    steps: int = 6,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    max_nfe: int = 1000,
    repeats: int = 1,
    seed: int = 0,
    check: bool | int = True,
    batch: int = 100,
    tick: Tick | None = None,
) -> Likelihood:
    """The log-density of images under the probability-flow ODE of a model.

    ``images``: uint8 (B, *shape), uniformly dequantised by the model's `Space`, reported in bits/dim as
    ``-log p(x) / (d ln 2) - log2(scale)`` (7 in the default space); or floats (B, *shape) in model space, reported in
    nats. They are read at time t_min, without added noise; x_1 is taken to follow N(0, prior_std^2).

    ``solver``: ``etdrk4`` (see `march_exponential`), ``rk4``, ``heun`` or ``euler`` in ``steps`` equal steps of the
    ``clock``, at 4, 4, 2 and 1 evaluations each; or ``dopri5``, whose steps each image chooses for itself by ``rtol``
    and ``atol`` (see `adapt`), up to ``max_nfe`` evaluations. An image that needs more has value nan and ``finished``
    false.

    ``probes`` of the trace: ``rademacher``, drawn anew at every evaluation (default), ``gaussian`` likewise; ``fixed``,
    one for the path (dopri5's default: to its step control fresh noise would look like error); or ``exact``, d backward
    passes instead of one, for small d. Image i's randomness is fixed by (seed, i), whatever the ``batch``; several
    processes share the batches.
    ``repeats`` averages independent draws of dequantisation and probes.

    ``check=True`` runs every image with ``2 * steps`` as well, dopri5 with tolerances divided by 32, which halves the
    steps of a fifth-order method, from the same dequantised points; ``check=k`` only the first k images; False none.
    Reported values come from the finest run that all images had. ``tick`` drives a progress bar of B images.

    Raises `UserError`, before any work, for images that are not of the model's shape and for bad settings.
    """
    path = check_settings(
        model,
        images,
        solver=solver,
        clock=clock,
        probes=probes,
        steps=steps,
        rtol=rtol,
        atol=atol,
        max_nfe=max_nfe,
        repeats=repeats,
        batch=batch,
    )
    size, dims, quantised = len(images), math.prod(model.shape), not images.is_floating_point()
    checked = size if check is True else max(0, min(check, size))
    coarse, fine = _Runs(repeats, size), _Runs(repeats, checked)
    share = size / (repeats * (size + 2 * checked))

    def follow(index: range) -> None:
        first, part = index.start, images[index.start : index.stop]
        both = max(0, min(checked - first, len(part)))
        for repeat in range(repeats):
            x = part.to(blank(model, 1))
            if quantised:
                x = dequantise(model.space, x, Streams((seed, repeat, "dequantise"), index))
            for runs, way, count, cost in ((coarse, path, len(part), 1), (fine, path.doubled(), both, 2)):
                if count == 0:
                    continue
                streams = Streams((seed, repeat, way.key), index[:count])
                place = (repeat, slice(first, first + count))
                runs.nats[place], runs.nfe[place], runs.finished[place] = way.follow(
                    model, x[:count], streams, _scaled(tick, share * cost)
                )

    halving = Halving()
    with evaluating(model):
        for index in here().batches(range(size), batch):
            halving(index, follow)
    coarse.gather()
    fine.gather()

    def headline(nats: Tensor) -> Tensor:
        return model.space.bits_offset - nats / (dims * math.log(2)) if quantised else nats

    reported = fine if checked == size else coarse
    nats, values = reported.nats.mean(0), headline(reported.nats)
    return Likelihood(
        nats=nats,
        bits_per_dim=values.mean(0) if quantised else None,
        stderr=values.std(0) / math.sqrt(repeats) if repeats > 1 else torch.full_like(nats, torch.nan),
        doubling=(headline(fine.nats) - headline(coarse.nats[:, :checked])).mean(0),
        nfe=reported.nfe.mean(0),
        finished=reported.finished.all(0),
        dims=dims,
    )


def check_settings(
    model: ScoreModel,
    images: Tensor,
    *,
    solver: Solver,
    clock: Clock,
    probes: Probes | None,
    steps: int,
    rtol: float,
    atol: float,
    max_nfe: int,
    repeats: int,
    batch: int = 100,
) -> Path:
    """What `log_likelihood` would refuse is refused here; else the way it would go."""
    validate(model, images)
    if min(repeats, batch) < 1:
        raise UserError(f"repeats and batch must be at least 1, got {repeats} and {batch}")
    return Path(
        solver=solver,
        clock=clock,
        probes=probes or ("fixed" if solver == "dopri5" else "rademacher"),
        steps=steps,
        rtol=rtol,
        atol=atol,
        max_nfe=max_nfe,
    )


def dequantise(space: Space, pixels: Tensor, streams: Streams) -> Tensor:
    """Points of model space for pixels (B, *) of 0 ... 255 as floats, each u uniform in [0, 1)."""
    return space.place(pixels, streams.uniform(pixels))


def validate(model: ScoreModel, images: Tensor) -> None:
    """Refuse images that are not of the model's shape, or neither pixels nor points of model space."""
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"images must be uint8 pixels or floats in model space, got {images.dtype}; convert them")
    if tuple(images.shape[1:]) != model.shape or len(images) == 0:
        wanted, given = "x".join(map(str, model.shape)), "x".join(map(str, images.shape[1:])) or "none"
        raise UserError(
            f"the model takes images of {wanted} (channels first), got {len(images)} of {given}; "
            "resize them or change their channels to match"
        )


class _Runs:
    """Results of the runs of n images: each tensor (repeats, n)."""

    def __init__(self, repeats: int, n: int) -> None:
        self.nats = torch.zeros(repeats, n, dtype=torch.float64)
        self.nfe = torch.zeros(repeats, n, dtype=torch.float64)
        self.finished = torch.zeros(repeats, n, dtype=torch.bool)

    def gather(self) -> None:
        """Let all processes have what each of them found."""
        for found in (self.nats, self.nfe):
            here().summed(found)
        self.finished = here().summed(self.finished.int()).bool()


@dataclass(frozen=True, kw_only=True)
class Path:
    """How the flow is followed: the settings of `log_likelihood` by the same names."""

    solver: Solver
    clock: Clock
    probes: Probes
    steps: int
    rtol: float
    atol: float
    max_nfe: int

    def __post_init__(self) -> None:
        for name, kinds in (("solver", Solver), ("clock", Clock), ("probes", Probes)):
            if (given := getattr(self, name)) not in get_args(kinds):
                raise UserError(f"{name} {given!r} is unknown; choose one of {', '.join(get_args(kinds))}")
        if self.solver == "dopri5" and self.probes not in ("fixed", "exact"):
            raise UserError(
                f"dopri5 takes probes fixed or exact, got {self.probes}: it would take fresh noise for error"
            )
        if self.steps < 1 or self.max_nfe < 7:
            raise UserError(f"steps must be at least 1 and max_nfe 7, got {self.steps} and {self.max_nfe}")
        if not (self.rtol > 0 and self.atol > 0):
            raise UserError(f"rtol and atol must be positive, got {self.rtol} and {self.atol}")
        in_range(self, {"steps": (1, 10**5), "max_nfe": (7, 10**8), "rtol": (0.0, 1e3), "atol": (0.0, 1e3)})

    @property
    def key(self) -> object:
        """Names the probes: one kept for a path is the same in the run that checks it."""
        return "probe" if self.probes == "fixed" else self.steps

    def doubled(self) -> Path:
        """The same in half as long steps; the error of a fifth-order step falls 32-fold then."""
        if self.solver == "dopri5":
            return replace(self, rtol=self.rtol / 32, atol=self.atol / 32)
        return replace(self, steps=2 * self.steps)

    def follow(
        self, model: ScoreModel, x: Tensor, streams: Streams, tick: Callable[[float], None]
    ) -> tuple[Tensor, Tensor | float, Tensor | bool]:
        """log p(x) at t_min in nats, float64 (B,), nan where unfinished; evaluations, and whether it finished."""
        flow = Flow(model, "log" if self.solver == "etdrk4" else self.clock)
        y, draw = flow.enter(x), drawer(self.probes, streams, x)
        if self.solver == "dopri5":
            probe = draw()
            y, change, nfe, finished = adapt(
                lambda tau, y, rows: flow(tau, y, None if probe is None else probe[rows]),
                y,
                flow.start,
                flow.end,
                rtol=self.rtol,
                atol=self.atol,
                max_nfe=self.max_nfe,
                tick=tick,
            )
            return flow.log_density(y, change).where(finished, torch.nan), nfe.double(), finished
        grid = Flow(model, self.clock).grid(self.steps)
        if self.solver == "etdrk4":
            y, change = march_exponential(lambda u, y: flow(u, y, draw()), y, grid.log(), tick)
            return flow.log_density(y, change), 4 * self.steps, True
        method = FIXED[self.solver]
        y, change = march(lambda tau, y: flow(tau, y, draw()), y, flow.clock.tau(grid), method, tick)
        return flow.log_density(y, change), len(method.nodes) * self.steps, True


def _scaled(tick: Tick | None, scale: float) -> Callable[[float], None]:
    return lambda amount: None if tick is None else tick(scale * amount)
