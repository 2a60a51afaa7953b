"""The exact optimum of each objective on Gaussian mixtures, as a score model like any other.

Where retained and forgotten points meet at x_t, with densities p_g and p_f and posteriors of the noise, the expected
loss ``alpha p_g E_g[L_g] + (1 - alpha) p_f E_f[L_f]`` is a function of the prediction e at this point alone. With
``k = (1 - alpha) / alpha * p_f / p_g`` and ``m = E[eps | x_t]`` of each set, its minimiser is

    uniform target            (m_g + k / 2) / (1 + k)
    orthogonal, elementwise   m_g / (1 + k E_f[eps^2])
    orthogonal, inner         (I + k E_f[eps eps^T / |eps|^2])^-1 m_g          (in the plane)
    orthogonal, literal       (I + k / sigma^2 E_f[eps eps^T])^-1 m_g
    obtuse, literal           m_g - k / 2 m_f;  with the released sign m_g + k / 2 m_f
    obtuse, windowed          the minimiser of a convex function of the plane, by Newton's method (`_windowed`)
    steer, exact classifier   (m_g + k v (e_0 + p)) / (1 + k v), e_0 = P_g m_g + P_f m_f, p = (1 + m) P_f (m_g - m_f),
                              cut to its reach, v = (r / sigma_data)^2 or 1, m its margin
    redirect, exact denoiser  (m_g + k v (m_g + c (m_g - m_f))) / (1 + k v), c its contrast
    windows                   that of the term which acts at this noise level; the lower one with its weight times
                              P_f^sure

An L_f on every n-th step counts as 1/n of its weight.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import UserError
from ...forgetting.combine import Weighted
from ...forgetting.methods import Method
from ...forgetting.steer import Steer
from ...forgetting.terms import ForgetTerm, Obtuse, Orthogonal, Redirect, UniformTarget
from ...forgetting.windows import Windows
from ...model.score import ScoreModel
from ...process.sde import SDE
from .mixture import GaussianMixture, exact_model

SIGMA_DATA = 0.5
"""Of the models that are compared with these optima: `ScoreModel`'s own."""


def optimum(
    method: Method, retain: GaussianMixture, forget: GaussianMixture, sde: SDE, *, share: float = 0.5
) -> ScoreModel:
    """The score model that minimises a method's expected loss; its retain loss must weigh all times alike.

    ``share`` is that of the forget set in all data: `Steer` starts from a model of both, and knows P(forget | x_t).
    Raises UserError for a method whose optimum is not known here.
    """
    if method.sees_forget:
        raise UserError(f"the optimum of {method.name} is the mixture of all data; use its as_model")
    if method.forget is None:
        return retain.as_model(sde)
    term, combine = method.forget, method.combine
    known = _known(term) and method.regularise is None and not method.power
    if not known or not isinstance(combine, Weighted) or combine.separate:
        raise UserError(f"no exact optimum is known for {method.name} with {combine} and {term}")
    weight = torch.tensor((1 - combine.alpha) / (combine.alpha * combine.every), dtype=torch.float64)
    prior = math.log(share / (1 - share))
    return exact_model(lambda x, t: _noise(term, weight, retain, forget, sde, prior, x, t), sde, retain.dims)


def _known(term: ForgetTerm) -> bool:
    if isinstance(term, Windows):
        return _known(term.above) and _known(term.below)
    if isinstance(term, Redirect):
        return not (term.subset or term.neighbours)
    return isinstance(term, UniformTarget | Orthogonal | Obtuse | Steer)


def _noise(
    term: ForgetTerm, weight: Tensor, retain: GaussianMixture, forget: GaussianMixture, sde: SDE, prior: float,
    x: Tensor, t: Tensor,
) -> Tensor:  # fmt: skip
    ratio = sde.log_ratio(t).exp()
    weight = weight * term.weight(ratio)
    odds = forget.log_density(x, sde, t) - retain.log_density(x, sde, t)
    if isinstance(term, Windows):
        sure = torch.sigmoid(odds + prior) ** term.sure if isinstance(term.above, Steer) else 1.0
        above, below = (
            _noise(part, share * weight, retain, forget, sde, prior, x, t)
            for part, share in ((term.above, 1.0), (term.below, term.share * sure))
        )
        return torch.where((ratio < term.at).expand(len(x))[:, None], below, above)
    m = retain.noise(x, sde, t)
    k = (weight * odds.exp())[:, None]
    level = (ratio / SIGMA_DATA).expand(len(x))[:, None]
    if isinstance(term, Redirect):
        kv = k * level.square() if term.weighting == "image" else k
        return (m + kv * (m + term.contrast * (m - forget.noise(x, sde, t)))) / (1 + kv)
    if isinstance(term, Steer):
        away = torch.sigmoid(odds + prior)[:, None] * (m - forget.noise(x, sde, t))
        push = (1 + term.margin) * away
        size = level * push.square().mean(1, keepdim=True).sqrt()
        push = push * (term.reach / size.clamp(min=1e-30)).clamp(max=1)
        kv = k * level.square() if term.weighting == "image" else k
        return (m + kv * (m - away + push)) / (1 + kv)
    if isinstance(term, UniformTarget):
        return (m + k / 2) / (1 + k)
    if isinstance(term, Obtuse):
        if term.form == "windowed":
            return _windowed(m, k, term.clamp, forget.noise_posterior(x, sde, t))
        return m + (0.5 if term.form == "released_sign" else -0.5) * k * forget.noise(x, sde, t)
    assert isinstance(term, Orthogonal)
    second = forget.noise_second_moment(x, sde, t)
    if term.form == "elementwise":
        return m / (1 + k * second.diagonal(dim1=1, dim2=2))
    if term.form == "literal":
        second = second / sde.sigma(t).square().expand(len(x))[:, None, None]
    else:
        second = _direction_moment(*forget.noise_posterior(x, sde, t))
    solution: Tensor = torch.linalg.solve(torch.eye(m.shape[1], dtype=m.dtype) + k[..., None] * second, m)
    return solution


def _direction_moment(posterior: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """E[eps eps^T / |eps|^2] for eps ~ sum_k posterior_k N(mean_k, variance_k I) in the plane, (B, 2, 2).

    The direction of N(mu, v I) has ``E[cos 2 theta] = 1 - (1 - e^-q) / q`` about that of mu, with q = |mu|^2 / 2v.
    """
    q = mean.square().sum(2) / (2 * variance)
    small = q < 1e-2
    safe = torch.where(small, 1.0, q)
    # E[cos 2 theta] / q, by its series where the closed form cancels.
    share = torch.where(small, 0.5 - q / 6 + q.square() / 24 - q**3 / 120, (safe + torch.expm1(-safe)) / safe.square())
    outer = torch.einsum("bk,bki,bkj->bij", posterior * share / (2 * variance), mean, mean)
    even = (posterior * (1 - share * q) / 2).sum(1)
    return outer + even[:, None, None] * torch.eye(2, dtype=mean.dtype)


def _windowed(m: Tensor, k: Tensor, clamp: float, noise: tuple[Tensor, Tensor, Tensor], rounds: int = 80) -> Tensor:
    """The minimiser of ``|e - m|^2 / 2 + k d / 2 E_f[max(e . eps / d, -clamp)]``, (B, d).

    Given the component, e . eps / d is N(e . mu / d, c |e|^2 / d^2), whose expected maximum is known. Newton's method,
    damped; the last step is taken with gradients, so that the result's derivatives are the minimiser's.
    """
    with torch.no_grad():
        e, active = m.clone(), torch.arange(len(m))
        damping, last = torch.ones_like(k), list(_clamped(e, m, k, clamp, noise))
        for _ in range(rounds):
            best, slope, curvature = last
            step, reach = torch.linalg.solve(curvature, slope), 1 + e[active].norm(dim=1, keepdim=True)
            # Far from the minimum the curvature can vanish; a step is no longer than the place is far out.
            step = step * (reach / step.norm(dim=1, keepdim=True).clamp(min=1e-300)).clamp(max=1)
            ahead = e[active] - damping * step
            weights, mean, variance = (part[active] for part in noise)
            found = _clamped(ahead, m[active], k[active], clamp, (weights, mean, variance))
            better = found[0] <= best
            e[active] = torch.where(better, ahead, e[active])
            damping = torch.where(better, (2 * damping).clamp(max=1), damping / 4)
            pairs = zip(found, last, strict=True)
            last = [torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old) for new, old in pairs]
            # Points that have arrived, to rounding, take no more part.
            moving = (damping[:, 0] > 1e-6) & (step.norm(dim=1) > 1e-8 * reach[:, 0])
            if not bool(moving.any()):
                break
            active, damping, last = active[moving], damping[moving], [part[moving] for part in last]
    _, slope, curvature = _clamped(e, m, k, clamp, noise)
    minimum: Tensor = e - torch.linalg.solve(curvature.detach(), slope)
    return minimum


def _clamped(
    e: Tensor, m: Tensor, k: Tensor, clamp: float, noise: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Value (B, 1), gradient (B, d) and Hessian (B, d, d) of what `_windowed` minimises, each over 1 + k."""
    posterior, mean, variance = noise
    d = m.shape[1]
    length = e.norm(dim=1, keepdim=True).clamp(min=1e-12)
    n, std = e / length, variance.sqrt()
    spread = std * length / d
    z = (torch.einsum("bi,bki->bk", e, mean) / d + clamp) / spread
    inside, density = torch.special.ndtr(z), (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    # max(Z, -c) = -c + relu(Z + c)
    excess = (posterior * spread * (z * inside + density)).sum(1, keepdim=True) - clamp
    pull = torch.einsum("bk,bki->bi", posterior * inside, mean)
    pull = pull + (posterior * density * std).sum(1, keepdim=True) * n
    q = mean - (z * std)[..., None] * n[:, None]
    across = torch.eye(d, dtype=m.dtype) - n[:, :, None] * n[:, None]
    bend = torch.einsum("bk,bki,bkj->bij", posterior * density / (d * spread), q, q)
    bend = bend + (posterior * density * std).sum(1)[:, None, None] / length[..., None] * across
    scale = 1 + k
    value = ((e - m).square().sum(1, keepdim=True) / 2 + k * d / 2 * excess) / scale
    gradient = (e - m + k / 2 * pull) / scale
    hessian = (torch.eye(d, dtype=m.dtype) + k[..., None] / 2 * bend) / scale[..., None]
    return value, gradient, hessian
