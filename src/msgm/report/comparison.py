"""Edited images beside their originals: one picture of several sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .pictures import grid

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 56
"""Least width of an image in a comparison, in pixels: room for the name of its column."""
LINE = 14
UNKNOWN = 128
"""Grey of unknown pixels in pictures."""


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
