"""Samplers: from noise to images, one overridable step at a time.

A sampler walks down a grid of times from t = 1 to the process' ``t_min`` and ends with one denoising step. A new
sampler is a subclass of `Sampler` that gives `Sampler.step`. Image i of a run depends on (seed, i) alone, not on
the batch it was drawn in: a model and its unlearned copy, sampled with the same seed, meet the same noise image by
image. Written once for every process: base.py walks, grids.py has the times, ode.py, stochastic.py and
correctors.py the steps, table.py the names.
"""

from .base import Sampler, Tick, fitting
from .correctors import AnnealedLangevin, Corrector, Langevin, PredictorCorrector
from .grids import GRIDS, Grid
from .ode import RK45, DPMSolver, Euler, Heun
from .stochastic import DDIM, Ancestral, DPMSolverSDE, EulerMaruyama, ReverseDiffusion
from .streams import Streams
from .table import SAMPLERS, SamplerName, build

__all__ = [
    "DDIM",
    "GRIDS",
    "RK45",
    "SAMPLERS",
    "Ancestral",
    "AnnealedLangevin",
    "Corrector",
    "DPMSolver",
    "DPMSolverSDE",
    "Euler",
    "EulerMaruyama",
    "Grid",
    "Heun",
    "Langevin",
    "PredictorCorrector",
    "ReverseDiffusion",
    "Sampler",
    "SamplerName",
    "Streams",
    "Tick",
    "build",
    "fitting",
]
