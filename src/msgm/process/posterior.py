"""What is known exactly of a finite set of images under noise: its denoiser, and its mass at a point."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def exact_denoiser(
    y: Tensor,
    ratio: Tensor,
    images: Tensor | Iterable[Tensor],
    *,
    neighbours: int = 0,
    centre: Tensor | None = None,
    chunk: int = 4096,
) -> Tensor:
    """The denoiser of a data set that is known exactly: E[x_0 | y] for y = x_0 + ratio * eps, x_0 one of ``images``.

    ``sum_r w_r x_r`` with ``w = softmax_r(-|y - x_r|^2 / (2 ratio^2))`` (Karras et al. 2022, Eq. 57). Shapes: y (B, *),
    ratio (B,) = sigma/alpha, images (N, *), or parts of them one after another; returns (B, *). Images are visited
    ``chunk`` at a time, or part by part. ``neighbours`` > 0 keeps only that many images, the nearest to each y or to
    each row of ``centre`` (B, *): for y itself, those of the largest weights.
    """
    if neighbours:
        images = images if isinstance(images, Tensor) else torch.cat(list(images))
    if isinstance(images, Tensor) and 0 < neighbours < len(images):
        flat, rows, scale = y.flatten(1), images.flatten(1), 1 / (2 * ratio.square())
        near = flat if centre is None else centre.flatten(1)
        nearest = (2 * near @ rows.T - rows.square().sum(1)).topk(neighbours, 1).indices
        chosen = rows[nearest]
        logits = (2 * torch.einsum("bd,bkd->bk", flat, chosen) - chosen.square().sum(2)) * scale[:, None]
        return torch.einsum("bk,bkd->bd", logits.softmax(1), chosen).view_as(y)
    return exact_posterior(y, ratio, images, chunk=chunk)[0]


def exact_posterior(
    y: Tensor, ratio: Tensor, images: Tensor | Iterable[Tensor], *, chunk: int = 4096
) -> tuple[Tensor, Tensor]:
    """`exact_denoiser` (B, *), and the log mass (B,) that the images have at y.

    That is ``log sum_r exp(-|y - x_r|^2 / (2 ratio^2))`` up to a term that depends on y and ratio alone: the difference
    between two sets of images is the log of their odds given y, an image counting as one.
    """
    flat, scale = y.flatten(1), 1 / (2 * ratio.square())
    best = torch.full_like(ratio, -torch.inf)
    total, mean = torch.zeros_like(ratio), torch.zeros_like(flat)
    parts = images.split(chunk) if isinstance(images, Tensor) else images
    for part in (part.flatten(1) for part in parts):
        # |y|^2 is common to all images and cancels in the softmax.
        logits = (2 * flat @ part.T - part.square().sum(1)) * scale[:, None]
        peak = torch.maximum(best, logits.amax(1))
        weights, keep = (logits - peak[:, None]).exp(), (best - peak).exp()
        total = total * keep + weights.sum(1)
        mean = mean * keep[:, None] + weights @ part
        best = peak
    return (mean / total[:, None]).view_as(y), best + total.log()
