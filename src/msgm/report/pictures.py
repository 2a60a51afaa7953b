"""Pictures: grids of samples, loss curves, and figures as files or inside a page."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UserError
from ..storage import write_bytes, write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

Curves = Mapping[str, Sequence[tuple[int, float, float | None]]]
"""For each model: (step, retain loss, forget loss or None)."""

TOGETHER = 250
"""Pictures that are written at a time."""
_INK = "#5b6470"  # axes and text of figures; inside a page it becomes the page's own text colour


def grid(pixels: Tensor, columns: int = 10, scale: int = 2, gap: int = 2) -> Image:
    """Images uint8 (N, C, H, W), row by row, each enlarged ``scale`` times, ``gap`` grey pixels between them.

    Fewer images than ``columns`` make a narrower picture. Raises UserError for no image or another layout.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(pixels) == 0:
        raise UserError(
            "a grid takes one or more uint8 images of shape (N, C, H, W) with C = 1 or 3, "
            f"got {pixels.dtype} of shape {tuple(pixels.shape)}"
        )
    if columns < 1 or scale < 1 or gap < 0:
        raise UserError(f"a grid needs columns >= 1, scale >= 1 and gap >= 0, got {columns}, {scale} and {gap}")
    big = pixels.cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, channels, height, width = big.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 96, dtype=torch.uint8)
    for index, image in enumerate(big):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return _image(canvas)


def png(image: Tensor | Image) -> bytes:
    """A PNG file of uint8 (C, H, W) or of a PIL image."""
    picture = _image(image) if isinstance(image, Tensor) else image
    with io.BytesIO() as buffer:
        picture.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()


def picture(path: Path) -> Image:
    """A picture file, read whole."""
    from PIL import Image

    with Image.open(path) as image:
        return image.copy()


def save_samples(folder: str | Path, pixels: Tensor, start: int = 0) -> None:
    """Write images uint8 (N, C, H, W) as 00000.png, 00001.png, ... in ``folder``, numbered from ``start``."""
    for first in range(0, len(pixels), TOGETHER):
        numbered = enumerate(pixels[first : first + TOGETHER], start + first)
        write_files({Path(folder) / f"{index:05d}.png": png(image) for index, image in numbered})


def loss_figure(curves: Curves) -> Figure:
    """Retain loss and, where some method has one, forget loss by step; long curves also smoothed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {**dict.fromkeys(inked, _INK), "text.parse_math": False, "legend.frameon": False}
    with rc_context(style):
        has_forget = any(point[2] is not None for curve in curves.values() for point in curve)
        panels = (("retain loss", 1), ("forget loss", 2))[: 1 + has_forget]
        figure = Figure(figsize=(4.8 * len(panels), 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        for axes, (label, column) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            everything = []
            for index, (name, curve) in enumerate(curves.items()):
                points = [(point[0], float(value)) for point in curve if (value := point[column]) is not None]
                if not points:
                    continue
                steps, values = zip(*points, strict=True)
                everything += [value for value in values if math.isfinite(value)]
                window, line = len(points) // 20, {"color": f"C{index}", "linewidth": 1.6}
                if window > 1:
                    axes.plot(steps, values, **{**line, "alpha": 0.25, "linewidth": 0.8})
                    tail = torch.tensor(values, dtype=torch.float64).unfold(0, window, 1).mean(1)
                    steps, values = steps[window - 1 :], tuple(tail.tolist())
                axes.plot(steps, values, label=name, **line)
            if everything and 0 < 20 * min(everything) < max(everything):
                axes.set_yscale("log")
            axes.set(xlabel="step", ylabel=label)
            axes.patch.set_alpha(0)
            axes.spines[["top", "right"]].set_visible(False)
            if axes.lines:
                axes.legend()
    return figure


def write_figure(figure: Figure, path: Path) -> bytes:
    """``path`` with .png and .svg, each written whole and without a date; returns the PNG."""
    from matplotlib import rc_context

    content = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with rc_context({"svg.hashsalt": "msgm"}), io.BytesIO() as buffer:
            figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
            content[kind] = buffer.getvalue()
        write_bytes(path.with_suffix(f".{kind}"), content[kind])
    return content["png"]


def svg(figure: Figure) -> Any:
    """The figure as inline SVG in the page's own colour and font, marked as needing no escape."""
    from markupsafe import Markup
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "msgm"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    # Inline, the XML prolog and the name spaces say nothing.
    text = text[text.index("<svg") :].replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    text = text.replace(' xmlns="http://www.w3.org/2000/svg"', "").replace(_INK, "currentColor")
    return Markup(text)


def _image(pixels: Tensor) -> Image:
    """The PIL image of uint8 (C, H, W), C = 1 or 3."""
    from PIL import Image

    array = pixels.cpu().permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    return Image.fromarray(array)
