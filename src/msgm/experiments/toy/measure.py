"""What is measured of a model of the toy: likelihoods, where its samples lie, and how far they are from p_g."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...likelihood import Likelihood, log_likelihood
from ...model.score import ScoreModel
from ...sampling import DPMSolverSDE, Heun
from ..exact.mixture import GaussianMixture
from .setup import Budget, Toy

OUTLIER = 0.999
"""An outlier is a sample, not nearest the forgotten mode, that is less likely under p_g than this share of p_g is."""
TEST_SEED = 777
SDE_STEPS = 60
"""Of DPM-Solver++(2M) SDE, which needs more of them than the ODE's Heun."""


def measure(
    model: ScoreModel, toy: Toy, budget: Budget, *, seed: int, tests: Sequence[int], grids: Sequence[int] | None = None
) -> dict[str, Any]:
    """NLL of D_g, D_f and of D_g outside the zone; of ODE and SDE samples the shares in the zone and of outliers, and
    their sliced Wasserstein distance to p_g.

    ``tests`` are the seeds whose test points are taken; ``by_seed`` has the mean NLL on those of each.
    ``grids`` are steps of the likelihood, of which the first is taken that passes the step-doubling check, or the last;
    by default those of the budget and four times as many.
    """
    sets = [test_points(toy, budget.test, test) for test in tests]
    x = torch.cat([torch.cat(pair) for pair in sets])
    place = torch.arange(len(x))
    kept, owner = place // budget.test % 2 == 0, place // (2 * budget.test)
    chosen = {"retain": kept, "forget": ~kept, "outside": kept & ~toy.nearest_forgotten(x)}
    found: dict[str, Any] = {}
    for steps in grids or (budget.nll_steps, 4 * budget.nll_steps):
        likelihood = log_likelihood(model, x, solver="rk4", steps=steps, probes="exact", batch=len(x))
        found["nll"] = {name: summary(likelihood, mask) for name, mask in chosen.items()}
        if all(each["reliable"] for each in found["nll"].values()):
            break
    for name, mask in chosen.items():
        each = [-likelihood.nats[mask & (owner == index)].mean() for index in range(len(sets))]
        found["nll"][name]["by_seed"] = [_finite(value) for value in each]
    reference = toy.retain.sample(budget.samples, torch.Generator().manual_seed(TEST_SEED + 1))
    limit = outlier_limit(toy)
    for name, sampler in (("ode", Heun(model)), ("sde", DPMSolverSDE(model, steps=SDE_STEPS))):
        x = sampler.sample(budget.samples, seed=seed, batch=budget.samples).double()
        found[name] = samples_summary(x, toy, reference, limit)
    return found


def test_points(toy: Toy, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n points each of D_g and D_f that no model was trained on, float64 (n, 2)."""
    generator = torch.Generator().manual_seed(1000 * TEST_SEED + seed)
    return toy.retain.sample(n, generator), toy.forget.sample(n, generator)


def summary(likelihood: Likelihood, chosen: Tensor) -> dict[str, Any]:
    """Negative log-likelihoods in nats of the points ``chosen`` (mask), and what doubling the steps changed."""
    part = Likelihood(
        nats=likelihood.nats[chosen],
        bits_per_dim=None,
        stderr=likelihood.stderr[chosen],
        doubling=likelihood.doubling[chosen],
        nfe=likelihood.nfe[chosen],
        finished=likelihood.finished[chosen],
        dims=likelihood.dims,
    )
    nats = -part.nats
    return {
        "nats": _finite(nats.mean()),
        "stderr": _finite(nats.std() / math.sqrt(len(nats))),
        "median": _finite(nats.median()),
        "maximum": _finite(nats.max()),
        "doubling": _finite(-part.doubling.mean()),
        "reliable": part.reliable,
    }


def samples_summary(x: Tensor, toy: Toy, reference: Tensor, limit: float) -> dict[str, Any]:
    """Shares of samples (N, 2), and their sliced Wasserstein distance to ``reference``, a sample of p_g as large."""
    zone = toy.nearest_forgotten(x)
    unlikely = ~(-toy.retain.log_density(x) <= limit)
    return {
        "share": float(zone.double().mean()),
        "outliers": float((unlikely & ~zone).double().mean()),
        "distance": _finite(sliced_wasserstein(x, reference)),
    }


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 64) -> Tensor:
    """Mean over directions of the plane of the 1-Wasserstein distance of the projections; a and b are (N, 2)."""
    angle = torch.arange(directions, dtype=torch.float64) * math.pi / directions
    lines = torch.stack([angle.cos(), angle.sin()])
    return ((a @ lines).sort(0).values - (b @ lines).sort(0).values).abs().mean()


@cache
def outlier_limit(toy: Toy) -> float:
    """-log p_g in nats that only 1 - OUTLIER of p_g exceeds."""
    x = toy.retain.sample(1_000_000, torch.Generator().manual_seed(TEST_SEED + 2))
    return float((-toy.retain.log_density(x)).sort().values[round(OUTLIER * len(x)) - 1])


def bound(toy: Toy, retain: float) -> float:
    """The largest mean NLL of D_f in nats that a density with this mean NLL of D_g can have.

    With b = min p_g / p_f and the density q = (p_g - b p_f) / (1 - b), for every density p
    ``E_g[-log p] = b E_f[-log p] + (1 - b) E_q[-log p]``, and ``E_q[-log p] >= -int q log q``. So
    ``E_f[-log p] <= E_g[-log p] / b + (1 - b) / b int q log q``.
    """
    b, q_log_q = bound_terms(toy)
    return retain / b + (1 - b) / b * q_log_q


@cache
def bound_terms(toy: Toy) -> tuple[float, float]:
    """b = exp(-|m|^2 / 2), reached on the line through the origin between the modes, and int q log q by quadrature."""
    b = math.exp(-float(toy.retain.means[0].square().sum()) / 2)
    reach, n = toy.a + 8, 800
    axis = torch.linspace(-reach, reach, n + 1, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    q = ((toy.retain.log_density(x).exp() - b * toy.forget.log_density(x).exp()) / (1 - b)).clamp(min=0)
    return b, float(torch.special.xlogy(q, q).sum()) * (2 * reach / n) ** 2


def exact_nll(mixture: GaussianMixture, x: Tensor) -> float:
    """Mean of -log p in nats, in closed form."""
    return -float(mixture.log_density(x).mean())


def _finite(value: Tensor) -> float | None:
    """JSON has no number for what a diverged network gives."""
    number = float(value)
    return number if math.isfinite(number) else None
