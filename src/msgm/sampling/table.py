"""Samplers by name: for the command line, evaluations and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..errors import UserError
from ..installed import Known
from ..model.score import ScoreModel
from .base import Sampler
from .correctors import PredictorCorrector
from .grids import Grid
from .ode import RK45, DPMSolver, Euler, Heun
from .stochastic import DDIM, Ancestral, DPMSolverSDE, EulerMaruyama, ReverseDiffusion

SamplerName = Literal[
    "heun",
    "dpm++",
    "ddim",
    "euler",
    "rk45",
    "dpm++-sde",
    "ancestral",
    "ddpm",
    "reverse-diffusion",
    "euler-maruyama",
    "pc",
]

_OWN: dict[str, Callable[..., Sampler]] = {
    "heun": Heun,
    "dpm++": DPMSolver,
    "ddim": DDIM,
    "euler": Euler,
    "rk45": RK45,
    "dpm++-sde": DPMSolverSDE,
    "ancestral": Ancestral,
    "ddpm": partial(Ancestral, steps=1000, grid="discrete"),
    "reverse-diffusion": ReverseDiffusion,
    "euler-maruyama": EulerMaruyama,
    "pc": PredictorCorrector,
}
SAMPLERS = Known("msgm.samplers", _OWN)
"""The first five follow the probability-flow ODE, our others draw fresh noise in every step; then other packages'."""


def build(name: SamplerName | str, model: ScoreModel, *, steps: int | None = None, grid: Grid | None = None) -> Sampler:
    """The sampler of this name; ``steps`` and ``grid`` (`GRIDS`) are its own where they are None."""
    if name not in SAMPLERS:
        raise UserError(f"no sampler {name!r}; known: {', '.join(SAMPLERS)}")
    given: dict[str, Any] = {"steps": steps, "grid": grid}
    return SAMPLERS[name](model, **{key: value for key, value in given.items() if value is not None})
