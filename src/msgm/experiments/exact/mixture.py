"""A Gaussian mixture: its score, density, divergence and the optimum of each objective are closed forms.

Noised, it is a mixture again: with ``v_k = alpha^2 s_k^2 + sigma^2`` and ``m_k`` the components' means,

    p_t(x) = sum_k w_k N(x; alpha m_k, v_k I).

Given x_t and its component, eps is Gaussian with mean ``sigma (x - alpha m_k) / v_k`` and covariance
``alpha^2 s_k^2 / v_k I``. Everything below is these two lines averaged over the posterior of the component.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...model.precondition import Noise
from ...model.score import ScoreModel
from ...process.sde import SDE, VESDE, expand


class GaussianMixture:
    """``sum_k weights_k N(means_k, stds_k^2 I)`` in d dimensions, in float64.

    ``weights`` (K,) positive, made to sum to one; ``means`` (K, d); ``stds`` (K,) or one number for all.
    Methods take points x (B, d); with ``sde`` and ``t``, of shape () or (B,), they speak of the data noised
    to time t, without them of the clean data.
    """

    def __init__(
        self,
        weights: Sequence[float] | Tensor,
        means: Sequence[Sequence[float]] | Tensor,
        stds: Sequence[float] | Tensor | float = 1.0,
    ) -> None:
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.means = torch.as_tensor(means, dtype=torch.float64)
        if self.means.ndim != 2 or self.weights.shape != self.means.shape[:1]:
            raise UserError(
                f"a mixture needs weights (K,) and means (K, d), got {tuple(self.weights.shape)} and "
                f"{tuple(self.means.shape)}"
            )
        self.stds = torch.as_tensor(stds, dtype=torch.float64).expand(len(self.weights))
        if not bool((self.weights > 0).all() & (self.stds > 0).all()):
            raise UserError("a mixture's weights and stds must be positive")
        self.weights = self.weights / self.weights.sum()

    @property
    def dims(self) -> int:
        """d."""
        return self.means.shape[1]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n clean points, (n, d)."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.dims, generator=generator, dtype=torch.float64)
        return self.means[k] + self.stds[k, None] * eps

    def log_density(self, x: Tensor, sde: SDE | None = None, t: Tensor | None = None) -> Tensor:
        """log p_t(x) in nats, (B,)."""
        return self._parts(x, sde, t)[2].logsumexp(1)

    def component_posterior(self, x: Tensor, sde: SDE | None = None, t: Tensor | None = None) -> Tensor:
        """P(component k | x_t), (B, K)."""
        return self._parts(x, sde, t)[2].softmax(1)

    def score(self, x: Tensor, sde: SDE | None = None, t: Tensor | None = None) -> Tensor:
        """grad log p_t(x) = -sum_k P(k | x) (x - alpha m_k) / v_k, (B, d)."""
        pull, _, logits = self._parts(x, sde, t)
        return -torch.einsum("bk,bkd->bd", logits.softmax(1), pull)

    def noise(self, x: Tensor, sde: SDE, t: Tensor) -> Tensor:
        """E[eps | x_t] = -sigma score: what a perfectly trained network predicts, (B, d)."""
        return -expand(sde.sigma(t), x) * self.score(x, sde, t)

    def noise_second_moment(self, x: Tensor, sde: SDE, t: Tensor) -> Tensor:
        """E[eps eps^T | x_t], (B, d, d); its diagonal is E[eps^2 | x_t].

        ``sum_k P(k | x) (mu_k mu_k^T + c_k I)``, with mu_k and c_k of `noise_posterior`.
        """
        posterior, mean, variance = self.noise_posterior(x, sde, t)
        outer = torch.einsum("bk,bki,bkj->bij", posterior, mean, mean)
        spread = (posterior * variance).sum(1)
        return outer + spread[:, None, None] * torch.eye(self.dims, dtype=torch.float64)

    def noise_posterior(self, x: Tensor, sde: SDE, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """eps given x_t, a mixture of N(mu_k, c_k I): weights (B, K), mu_k (B, K, d), c_k = 1 - sigma^2/v_k (B, K)."""
        pull, variance, logits = self._parts(x, sde, t)
        sigma = sde.sigma(t).expand(len(x))[:, None]
        return logits.softmax(1), sigma[..., None] * pull, 1 - sigma.square() / variance

    def divergence(self, x: Tensor, sde: SDE | None = None, t: Tensor | None = None) -> Tensor:
        """div score = sum_k P(k | x) (|g_k|^2 - d / v_k) - |score|^2, g_k = (x - alpha m_k) / v_k; (B,)."""
        pull, variance, logits = self._parts(x, sde, t)
        posterior = logits.softmax(1)
        mean = torch.einsum("bk,bkd->bd", posterior, pull)
        return (posterior * (pull.square().sum(2) - self.dims / variance)).sum(1) - mean.square().sum(1)

    def as_model(self, sde: SDE) -> ScoreModel:
        """The score model of this mixture: its network is the exact noise prediction, in float64."""
        return exact_model(lambda x, t: self.noise(x, sde, t), sde, self.dims)

    def _parts(self, x: Tensor, sde: SDE | None, t: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(x - alpha m_k) / v_k (B, K, d), v_k (B, K) and log w_k N(x; alpha m_k, v_k I) (B, K)."""
        if sde is None or t is None:
            alpha, sigma = x.new_ones(()), x.new_zeros(())
        else:
            alpha, sigma = sde.alpha(t), sde.sigma(t)
        alpha, sigma = alpha.expand(len(x))[:, None], sigma.expand(len(x))[:, None]
        variance = (alpha * self.stds).square() + sigma.square()
        offset = x[:, None] - alpha[..., None] * self.means
        square = offset.square().sum(2) / variance
        logits = self.weights.log() - 0.5 * (square + self.dims * (2 * math.pi * variance).log())
        return offset / variance[..., None], variance, logits


class ExactNetwork(nn.Module):
    """``network(x, label)`` = ``noise(x, t)``, with t found back from the label that networks are shown; float64."""

    def __init__(self, noise: Callable[[Tensor, Tensor], Tensor], sde: SDE) -> None:
        super().__init__()
        self.noise, self.sde = noise, sde
        # A model's precision and device are those of its parameters.
        self.precision = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.noise(x, time_of_label(self.sde, label))


def exact_model(noise: Callable[[Tensor, Tensor], Tensor], sde: SDE, dims: int) -> ScoreModel:
    """The score model of vectors whose noise prediction is ``noise(x, t)``."""
    return ScoreModel(ExactNetwork(noise, sde), sde, shape=(dims,), precondition=Noise())


def time_of_label(sde: SDE, label: Tensor) -> Tensor:
    """The time t whose `SDE.label` is this."""
    if isinstance(sde, VESDE):
        return sde.time(label.log())
    # The others' labels are proportional to t.
    return label / sde.label(torch.ones_like(label))
