"""Models whose every output is known: exact networks of each kind, and a Gaussian on images."""

import torch
from torch import Tensor, nn

from msgm.experiments.exact.mixture import GaussianMixture, time_of_label
from msgm.model.precondition import EDM, Noise
from msgm.model.score import ScoreModel
from msgm.process.sde import PROCESSES, SDE, expand

SDES = {name: process() for name, process in PROCESSES.items()}

TOY = GaussianMixture([0.4, 0.2, 0.4], [[-2, -2], [0, 0], [2, 2]])
"""The toy data of the paper's Table 1."""
RETAIN = GaussianMixture([0.5, 0.5], [[-2, -2], [2, 2]])
UNEVEN = GaussianMixture([0.2, 0.5, 0.3], [[-1.0, 0.5, 0.0], [0.3, -0.4, 1.0], [1.0, 1.2, -0.7]], [0.3, 0.6, 0.45])
"""Three unlike components in three dimensions."""


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class ExactNetwork(nn.Module):
    """What a perfect network of one ``prediction`` kind returns for a mixture."""

    def __init__(self, mixture: GaussianMixture, sde: SDE, prediction: str, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.mixture, self.sde, self.prediction, self.sigma_data = mixture, sde, prediction, sigma_data

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        sde = self.sde
        if self.prediction == "edm":
            t = sde.time(label / EDM().per_nat)
            ratio = expand(sde.log_ratio(t).exp(), x)
            total = ratio.square() + self.sigma_data**2
            y = x * total.sqrt()
            clean = y - ratio * self.mixture.noise(expand(sde.alpha(t), x) * y, sde, t)
            # Karras et al. 2022, Eq. 7 and Table 1: D = c_skip y + c_out F.
            skip, out = self.sigma_data**2 / total, ratio * self.sigma_data / total.sqrt()
            return (clean - skip * y) / out
        t = time_of_label(sde, label)
        alpha, sigma, eps = expand(sde.alpha(t), x), expand(sde.sigma(t), x), self.mixture.noise(x, sde, t)
        clean = (x - sigma * eps) / alpha
        return {"noise": eps, "score": -eps / sigma, "sample": clean, "v": alpha * eps - sigma * clean}[self.prediction]


class GaussianNetwork(nn.Module):
    """The exact noise prediction for pixels that are independently N(mean, std^2), times ``factor``."""

    def __init__(self, sde: SDE, mean: float, std: float, factor: float = 1.0, dtype=torch.float64) -> None:
        super().__init__()
        self.sde, self.std, self.factor = sde, std, factor
        self.mean = nn.Parameter(torch.tensor(mean, dtype=dtype))
        self.calls, self.images = 0, 0

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.calls, self.images = self.calls + 1, self.images + len(x)
        t = time_of_label(self.sde, label)
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        return self.factor * sigma * (x - alpha * self.mean) / ((alpha * self.std).square() + sigma.square())


def gaussian_model(
    sde: SDE,
    shape: tuple[int, ...],
    mean: float = 0.2,
    std: float = 0.5,
    factor: float = 1.0,
    dtype=torch.float64,
) -> ScoreModel:
    return ScoreModel(GaussianNetwork(sde, mean, std, factor, dtype), sde, shape=shape, precondition=Noise())


def slope(errors: list[float]) -> float:
    """Order of convergence when each error is for half the step of the one before: least squares."""
    logs = torch.tensor(errors, dtype=torch.float64).log2()
    steps = torch.arange(len(errors), dtype=torch.float64)
    steps -= steps.mean()
    return -float((steps * logs).sum() / steps.square().sum())
