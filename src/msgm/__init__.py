"""msgm: make an image diffusion model stop generating what it was told not to, and prove it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded on first use: `msgm --help` must not wait for torch.
_WHERE = {
    "ForgetRequest": "data",
    "load": "checkpoint",
    "save": "checkpoint",
    "ScoreModel": "score",
    "train": "training",
    "unlearn": "training",
    "TrainSettings": "training",
    "UnlearnSettings": "training",
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
    "unlearning_ratio": "evaluation.metrics",
    "Judge": "evaluation.judge",
    "UserError": "errors",
}
_MODULES = {"data": "data", "methods": "forgetting.methods", "sde": "sde"}

__all__ = ["__version__", *_WHERE, *_MODULES]

if TYPE_CHECKING:
    from . import data, sde
    from .checkpoint import load, save
    from .data import ForgetRequest
    from .errors import UserError
    from .evaluation.judge import Judge
    from .evaluation.metrics import unlearning_ratio
    from .forgetting import methods
    from .likelihood import log_likelihood
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
    )
    from .score import ScoreModel
    from .training import TrainSettings, UnlearnSettings, train, unlearn


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
