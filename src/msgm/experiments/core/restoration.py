"""What edited images are worth beside their originals: errors of pixels, the judge's verdicts, a picture of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...data import ForgetRequest, Images, to_model
from ...errors import UserError
from ...metrics.judge import Judge
from ...metrics.shares import Rate, Shares, judged_shares, wilson
from ...report.pictures import grid
from .evaluate import forget_classes

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 56
"""Least width of an image in a comparison, in pixels: room for the name of its column."""
LINE = 14


def psnr(before: Tensor, after: Tensor, region: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each image, 10 log10(255^2 / mean squared error) in dB: float64 (N,).

    Images are uint8 (N, C, H, W). The mean is over the pixels of ``region``, bool (H, W), or over all. Equal
    images have infinity.
    """
    error = (before.double() - after.double()).square().mean(1)
    mean = error[:, region].mean(1) if region is not None else error.flatten(1).mean(1)
    return 10 * torch.log10(255**2 / mean)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """One set of edited images: how close they are to the originals, and what the judge sees in them."""

    images: int
    psnr: float
    """Mean over the images of their `psnr`, dB."""
    psnr_stderr: float | None
    """Its standard error; None for one image."""
    accuracy: Rate | None = None
    """Share that the judge gives the class of the original: its label, or else the judge's word on it."""
    accuracy_before: Rate | None = None
    """The same of the originals themselves; None where the judge's word on them is the reference."""
    shares: Shares | None = None
    """Shares in the forget classes, junk, and the rest; None without a request."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shares = asdict(self.shares) if self.shares else {}
        return {key: value for key, value in {**asdict(self), **shares}.items() if key != "shares"}

    def __str__(self) -> str:
        error = "" if self.psnr_stderr is None else f" ± {self.psnr_stderr:.2f}"
        parts = [f"{self.images} images, PSNR {self.psnr:.2f}{error} dB"]
        if self.accuracy:
            before = f" (originals {self.accuracy_before.value:.1%})" if self.accuracy_before else ""
            parts.append(f"class of the original {self.accuracy}{before}")
        if self.shares:
            parts.append(f"UR {self.shares.unlearning_ratio}, junk {self.shares.junk.value:.1%}")
        return "; ".join(parts)


def restored(
    before: Images,
    after: Tensor,
    *,
    region: Tensor | None = None,
    judge: Judge | None = None,
    request: ForgetRequest | None = None,
) -> Restored:
    """Compare edited images uint8 (N, C, H, W) with their originals.

    ``region``, bool (H, W): the pixels that were filled in, to which `psnr` is then confined. The ``judge`` is
    shown whole images; with a ``request`` it also says which are in the forget classes.
    """
    values = psnr(before.rows(), after, region)
    found: dict[str, Any] = {
        "images": len(after),
        "psnr": float(values.mean()),
        "psnr_stderr": float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None,
    }
    if judge is not None:
        verdict, truth = judge.predict(to_model(after)), judge.predict(to_model(before.rows()))
        if judge.column in before.columns:
            label = before.columns[judge.column]
            found["accuracy_before"] = _agreement(truth, label)
            truth = label
        found["accuracy"] = _agreement(verdict, truth)
        if request is not None:
            found["shares"] = judged_shares(verdict, forget_classes(request, judge), judge.classes)
    return Restored(**found)


def check_judge(judge: Judge, images: Images, request: ForgetRequest | None) -> None:
    """Raise `UserError`, before any work, for a judge of other images or of another column than the request's."""
    if judge.shape != images.shape:
        raise UserError(f"the judge takes images of shape {judge.shape}, not {images.shape}; name another with --judge")
    if request is not None and not 0 < len(forget_classes(request, judge)) < len(judge.classes):
        raise UserError(f"rule {request.rule!r} selects none or all of the judge's classes; use a judge of its column")


def _agreement(a: Tensor, b: Tensor) -> Rate:
    return wilson(int((a == b).sum()), len(a))


def comparison(groups: Mapping[str, Mapping[str, Tensor]], rows: int = 8) -> Image:
    """One picture of several sets of images: each a block of labelled columns, its name above them.

    ``groups[name][column]`` is uint8 (N, C, H, W), the same N in all columns of a set. A block has up to
    ``rows`` images below each other; a larger set gets several. An empty name is left out.
    """
    blocks = [
        _block(name, {column: images[first : first + rows] for column, images in columns.items()})
        for name, columns in groups.items()
        for first in range(0, len(next(iter(columns.values()))), rows)
    ]
    from PIL import Image

    gap = LINE
    size = sum(block.width + gap for block in blocks) - gap, max(block.height for block in blocks)
    canvas, left = Image.new(blocks[0].mode, size, "white"), 0
    for block in blocks:
        canvas.paste(block, (left, 0))
        left += block.width + gap
    return canvas


def _block(name: str, columns: Mapping[str, Tensor]) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    rows = torch.stack(list(columns.values()), 1).flatten(0, 1)
    width = rows.shape[-1]
    scale, gap = max(1, math.ceil(WIDTH / width)), 2
    picture = grid(rows, columns=len(columns), scale=scale, gap=gap)
    canvas = Image.new(picture.mode, (picture.width, picture.height + 2 * LINE), "white")
    canvas.paste(picture, (0, 2 * LINE))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    pen.text((0, 0), name, fill="black", font=font)
    for place, column in enumerate(columns):
        pen.text((place * (width * scale + gap), LINE), column, fill="black", font=font)
    return canvas
