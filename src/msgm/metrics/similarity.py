"""How alike two images are, pair by pair: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UserError

PEAK = 255.0


def psnr(before: Tensor, after: Tensor, region: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image, 10 log10(255^2 / mean squared error) in dB: float64 (N,).

    Images are uint8 (N, C, H, W). The mean is over the pixels of ``region``, bool (H, W), or over all. Equal
    images have infinity.
    """
    error = (before.double() - after.double()).square().mean(1)
    mean = error[:, region].mean(1) if region is not None else error.flatten(1).mean(1)
    return 10 * torch.log10(PEAK**2 / mean)


def ssim(before: Tensor, after: Tensor, *, sigma: float = 1.5, size: int = 11) -> Tensor:
    """Structural similarity of each pair of images (Wang et al. 2004), 1 for equal ones: float64 (N,).

    ``(2 μx μy + c1)(2 σxy + c2) / ((μx² + μy² + c1)(σx² + σy² + c2))`` with c1 = (0.01 · 255)², c2 = (0.03 · 255)²,
    moments under a Gaussian window of ``size`` pixels, mean over channels and the places where the window fits. Images
    are uint8 (N, C, H, W). Raises UserError for two shapes or images smaller than the window.
    """
    if before.shape != after.shape or min(before.shape[-2:]) < size:
        raise UserError(
            f"two sets of images of one shape, at least {size}x{size}; got {tuple(before.shape)} and "
            f"{tuple(after.shape)}"
        )
    x, y = (images.double().flatten(0, 1)[:, None] for images in (before, after))
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-place.square() / (2 * sigma**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2

    def mean(images: Tensor) -> Tensor:
        return functional.conv2d(images, window)

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    value = (2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return value.flatten(1).mean(1).view(before.shape[:2]).mean(1)
