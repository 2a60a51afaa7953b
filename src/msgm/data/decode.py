"""One encoded image -> pixels: turned upright, of one mode, without transparency, cropped and resized."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UserError

Mode = Literal["grey", "rgb"]
Background = Literal["white", "black", "refuse"]
LARGEST = 4096
"""Pixels a side that images are resized to at most."""
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How images are read.

    ``size``: the middle square, resized to size × size (bicubic, antialiased); ``square``: cut out the middle square
    at any rate. ``mode``: grey (ITU-R 601 luma) or rgb; None leaves grey images grey. Transparent pixels
    are laid on ``background``; ``refuse`` makes an image that has any an error.
    """

    size: int | None = None
    mode: Mode | None = None
    background: Background = "white"
    square: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= LARGEST:
            raise UserError(f"data size must be at least 1 and at most {LARGEST}, not {self.size}")
        if self.mode not in (None, *get_args(Mode)):
            raise UserError(f"mode must be grey or rgb, not {self.mode!r}")
        if self.background not in get_args(Background):
            raise UserError(f"background must be white, black or refuse, not {self.background!r}")

    def __call__(self, content: Path | bytes, name: str) -> Pixels:
        """uint8 (C, H, W), C = 1 for grey and 3 for colour. Raises UserError that names the image."""
        if isinstance(content, Path) and content.exists() and not content.is_file():
            raise UserError(f"{name}: a pipe, a socket or a device, and no file; remove it")
        try:
            with Image.open(content if isinstance(content, Path) else io.BytesIO(content)) as opened:
                opened.load()
                frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
                image = ImageOps.exif_transpose(opened)
        except UnidentifiedImageError as problem:
            raise UserError(f"{name}: not an image of a known format; remove it or get it again") from problem
        except Exception as problem:  # each of Pillow's decoders has its own errors for damaged files
            raise UserError(f"{name}: not a complete image ({problem}); remove it or get it again") from problem
        if frames > 1:
            raise UserError(f"{name}: {frames} images in one file; save the one that is meant")
        if image.mode == "F" or image.mode.startswith("I"):
            raise UserError(f"{name}: pixels of kind {image.mode!r}; images of 8 bits per channel are expected")
        return self._pixels(self._flat(image, name))

    def raw(self, pixels: Pixels) -> Pixels:
        """The same for pixels (N, C, H, W) that are not encoded."""
        if self.size is None and not self.square and self.mode != "grey":
            return pixels.repeat(3, axis=1) if self.mode == "rgb" and pixels.shape[1] == 1 else pixels
        images = (Image.fromarray(x[0] if len(x) == 1 else x.transpose(1, 2, 0)) for x in pixels)
        return np.stack([self._pixels(image) for image in images])

    def _flat(self, image: Image.Image, name: str) -> Image.Image:
        """Without transparency, grey or colour."""
        grey = image.mode in ("1", "L", "LA", "La")
        if image.has_transparency_data:
            layers = image.convert("RGBA")
            if layers.getchannel("A").getextrema() != (255, 255):
                if self.background == "refuse":
                    raise UserError(f"{name}: has transparent pixels; say what lies under them (background: white)")
                below = Image.new("RGBA", layers.size, self.background)
                layers = Image.alpha_composite(below, layers)
            image = layers.convert("RGB")
        try:
            return image.convert("L" if grey else "RGB")
        except ValueError as problem:
            raise UserError(f"{name}: {image.mode} cannot be turned into RGB; save it as RGB") from problem

    def _pixels(self, image: Image.Image) -> Pixels:
        if self.mode is not None:
            image = image.convert("L" if self.mode == "grey" else "RGB")
        if self.size is not None or self.square:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            if self.size not in (None, side):
                image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = np.array(image)
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
