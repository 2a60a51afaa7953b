"""Likelihoods of a model: exact by the probability-flow ODE, and DDPM's variational bound; each with its error."""

from .bound import Bound, Variance, variational_bound
from .flow import Clock, Probes
from .ode import Solver, log_likelihood
from .result import Likelihood

__all__ = ["Bound", "Clock", "Likelihood", "Probes", "Solver", "Variance", "log_likelihood", "variational_bound"]
