"""Likelihoods of a model: exact by the probability-flow ODE, and DDPM's variational bound; each with its error."""

from .bound import Bound, Variance, check_bound, variational_bound
from .flow import Clock, Probes
from .ode import Solver, check_settings, log_likelihood
from .result import Likelihood

__all__ = [
    "Bound", "Clock", "Likelihood", "Probes", "Solver", "Variance",
    "check_bound", "check_settings", "log_likelihood", "variational_bound",
]  # fmt: skip
