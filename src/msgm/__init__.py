"""msgm: make an image diffusion model stop generating what it was told not to, and prove it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded on first use: `msgm --help` must not wait for torch.
_WHERE = {
    "ForgetRequest": "data",
    "Images": "data",
    "Source": "data",
    "load": "formats.native",
    "save": "formats.native",
    "ScoreModel": "model.score",
    "train": "training.loop",
    "unlearn": "training.loop",
    "RunSpec": "training.runs",
    "TrainSettings": "training.settings",
    "UnlearnSettings": "training.settings",
    "Heun": "sampling",
    "RK45": "sampling",
    "Euler": "sampling",
    "DPMSolver": "sampling",
    "DPMSolverSDE": "sampling",
    "DDIM": "sampling",
    "Ancestral": "sampling",
    "EulerMaruyama": "sampling",
    "ReverseDiffusion": "sampling",
    "PredictorCorrector": "sampling",
    "Langevin": "sampling",
    "AnnealedLangevin": "sampling",
    "log_likelihood": "likelihood",
    "variational_bound": "likelihood",
    "inpaint": "sampling.editing",
    "reconstruct": "sampling.editing",
    "unlearning_ratio": "metrics.shares",
    "Judge": "metrics.judge",
    "UserError": "errors",
}
_MODULES = {"data": "data", "filters": "sampling.filters", "methods": "forgetting.methods", "sde": "process.sde"}

__all__ = ["__version__", *_WHERE, *_MODULES]

if TYPE_CHECKING:
    from . import data
    from .data import ForgetRequest, Images, Source
    from .errors import UserError
    from .forgetting import methods
    from .formats.native import load, save
    from .likelihood import log_likelihood, variational_bound
    from .metrics.judge import Judge
    from .metrics.shares import unlearning_ratio
    from .model.score import ScoreModel
    from .process import sde
    from .sampling import (
        DDIM,
        RK45,
        Ancestral,
        AnnealedLangevin,
        DPMSolver,
        DPMSolverSDE,
        Euler,
        EulerMaruyama,
        Heun,
        Langevin,
        PredictorCorrector,
        ReverseDiffusion,
        filters,
    )
    from .sampling.editing import inpaint, reconstruct
    from .training.loop import train, unlearn
    from .training.runs import RunSpec
    from .training.settings import TrainSettings, UnlearnSettings


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
