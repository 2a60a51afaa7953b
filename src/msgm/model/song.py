"""The networks of Song et al. 2021: DDPM, DDPM++ and NCSN++, with the parameter names under which they are published.

Written from the paper's appendix H and from the names and shapes in published weights; numbers in `Song.all_modules`
are places in a list, in the order of use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = math.sqrt(0.5)


@dataclass(frozen=True, kw_only=True)
class SongConfig:
    """What sets these networks apart.

    Args:
        channels: of an image.
        width: of the first level; ``multiples`` of it are those of each level.
        blocks: residual blocks a level.
        attention: the levels with self-attention, from 0.
        biggan: residual blocks that change the size (NCSN++, DDPM++), or convolutions between them (DDPM).
        fourier: random Fourier features of log sigma (VE), or sinusoids of the label (VP).
        residual_input: the image, made smaller and smaller, is added at each level (NCSN++).
        sigmas: how many noise levels the file lists beside; the network does not use them.
        dropout: in residual blocks.
    """

    channels: int = 3
    width: int = 128
    multiples: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (1,)
    biggan: bool = True
    fourier: bool = True
    residual_input: bool = True
    sigmas: int = 1000
    dropout: float = 0.1


def norm(channels: int) -> nn.GroupNorm:
    """Group norm as these networks have it."""
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def filtered(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """x (B, C, H, W) padded and filtered with a kernel (k, k), the same in every channel."""
    padded = functional.pad(x, (before, after, before, after))
    return functional.conv2d(padded, kernel.expand(x.shape[1], 1, *kernel.shape).to(x), groups=x.shape[1])


def binomial() -> Tensor:
    """The low-pass filter [1, 3, 3, 1], outer product, of sum 1."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(row, row) / 64


def halved(x: Tensor, smooth: bool) -> Tensor:
    """Half the size: filtered and thinned out, or means of 2x2."""
    return filtered(x, binomial(), 1, 1)[:, :, ::2, ::2] if smooth else functional.avg_pool2d(x, 2)


def doubled(x: Tensor, smooth: bool) -> Tensor:
    """Twice the size: filled with zeros and filtered, or each value four times."""
    if not smooth:
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return filtered(wide, 4 * binomial(), 2, 1)


class NIN(nn.Module):
    """A linear map of the channels of each pixel."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(before, after) / math.sqrt(before))
        self.b = nn.Parameter(torch.zeros(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


class Fourier(nn.Module):
    """sin and cos of 2 pi W log sigma, W ~ N(0, 16^2) kept as it was drawn."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.W = nn.Parameter(16 * torch.randn(size), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        phase = 2 * math.pi * x[:, None] * self.W.to(x)
        return torch.cat([phase.sin(), phase.cos()], dim=1)


def sinusoids(label: Tensor, size: int) -> Tensor:
    """sin and cos of the label at frequencies 1 ... 1/10000, (B, size)."""
    rates = torch.exp(-math.log(10000) / (size // 2 - 1) * torch.arange(size // 2, device=label.device))
    phase = label[:, None] * rates.to(label)
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class Residual(nn.Module):
    """norm, act, convolution, time, norm, act, convolution; and what it is added to."""

    def __init__(
        self, before: int, after: int, config: SongConfig, resample: Literal["up", "down"] | None = None
    ) -> None:
        super().__init__()
        self.resample, self.smooth, self.scale = resample, config.fourier, ROOT if config.biggan else 1.0
        self.GroupNorm_0 = norm(before)
        self.Conv_0 = nn.Conv2d(before, after, 3, padding=1)
        self.Dense_0 = nn.Linear(4 * config.width, after)
        self.GroupNorm_1 = norm(after)
        self.Dropout_0 = nn.Dropout(config.dropout)
        self.Conv_1 = nn.Conv2d(after, after, 3, padding=1)
        if config.biggan and (before != after or resample):
            self.Conv_2 = nn.Conv2d(before, after, 1)
        elif before != after:
            self.NIN_0 = NIN(before, after)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = functional.silu(self.GroupNorm_0(x))
        if self.resample:
            resize = halved if self.resample == "down" else doubled
            h, x = resize(h, self.smooth), resize(x, self.smooth)
        h = self.Conv_0(h) + self.Dense_0(functional.silu(time))[:, :, None, None]
        h = self.Conv_1(self.Dropout_0(functional.silu(self.GroupNorm_1(h))))
        skip = self.Conv_2(x) if hasattr(self, "Conv_2") else self.NIN_0(x) if hasattr(self, "NIN_0") else x
        out: Tensor = (skip + h) * self.scale
        return out


class Attention(nn.Module):
    """Self-attention of pixels, with one head."""

    def __init__(self, channels: int, config: SongConfig) -> None:
        super().__init__()
        self.scale = ROOT if config.biggan else 1.0
        self.GroupNorm_0 = norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.NIN_0, self.NIN_1, self.NIN_2))
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        out: Tensor = (x + self.NIN_3(h)) * self.scale
        return out


class Down(nn.Module):
    """A convolution to half the size, padded to the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Conv_0(functional.pad(x, (0, 1, 0, 1)))
        return out


class Up(nn.Module):
    """Twice the size, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Conv_0(doubled(x, False))
        return out


class Smaller(nn.Module):
    """The image at half the size: filtered, and a convolution that takes every second place."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(before, after, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Conv2d_0(filtered(x, binomial(), 2, 2))
        return out


class Song(nn.Module):
    """``(x, label) -> raw``, images of any size that the levels divide.

    With ``fourier`` (VE) x lies in [0, 1], the label is sigma and the output the score; without (VP) x lies in [-1, 1]
    and the output is minus the score times sigma, the noise.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        for name in {"multiples", "attention"} & options.keys():
            options[name] = tuple(options[name])
        self.layout = c = SongConfig(**options)
        self.config: dict[str, Any] = asdict(c)
        if c.sigmas:
            self.register_buffer("sigmas", torch.zeros(c.sigmas))
        widths, last = [c.width * m for m in c.multiples], len(c.multiples) - 1
        parts: list[nn.Module] = [Fourier(c.width)] if c.fourier else []
        parts += [nn.Linear(2 * c.width if c.fourier else c.width, 4 * c.width), nn.Linear(4 * c.width, 4 * c.width)]
        parts.append(nn.Conv2d(c.channels, c.width, 3, padding=1))
        held, here, image = [c.width], c.width, c.channels
        for level, width in enumerate(widths):
            for _ in range(c.blocks):
                parts.append(Residual(here, width, c))
                here = width
                parts += [Attention(here, c)] if level in c.attention else []
                held.append(here)
            if level < last:
                parts.append(Residual(here, here, c, "down") if c.biggan else Down(here))
                parts += [Smaller(image, here)] if c.residual_input else []
                image = here
                held.append(here)
        parts += [Residual(here, here, c), Attention(here, c), Residual(here, here, c)]
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(c.blocks + 1):
                parts.append(Residual(here + held.pop(), width, c))
                here = width
            parts += [Attention(here, c)] if level in c.attention else []
            if level > 0:
                parts.append(Residual(here, here, c, "up") if c.biggan else Up(here))
        parts += [norm(here), nn.Conv2d(here, c.channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(parts)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        c, parts = self.layout, iter(self.all_modules)
        time: Tensor = next(parts)(label.log()) if c.fourier else sinusoids(label, c.width)
        time = next(parts)(time.to(x))
        time = next(parts)(functional.silu(time))
        image = 2 * x - 1 if c.fourier else x
        h: Tensor = self._up(*self._down(image, time, parts), time, parts)
        h = functional.silu(next(parts)(h))  # each part is taken before what it is given is worked out
        h = next(parts)(h)
        return torch.div(h, label.to(h)[:, None, None, None]) if c.fourier else h

    def _down(self, image: Tensor, time: Tensor, parts: Iterator[nn.Module]) -> tuple[Tensor, list[Tensor]]:
        c, h = self.layout, next(parts)(image)
        held, last = [h], len(self.layout.multiples) - 1
        for level in range(last + 1):
            for _ in range(c.blocks):
                h = next(parts)(h, time)
                h = next(parts)(h) if level in c.attention else h
                held.append(h)
            if level < last:
                h = next(parts)(h, time) if c.biggan else next(parts)(h)
                if c.residual_input:
                    h = image = (next(parts)(image) + h) * ROOT
                held.append(h)
        h = next(parts)(h, time)
        h = next(parts)(h)
        return next(parts)(h, time), held

    def _up(self, h: Tensor, held: list[Tensor], time: Tensor, parts: Iterator[nn.Module]) -> Tensor:
        c = self.layout
        for level in reversed(range(len(c.multiples))):
            for _ in range(c.blocks + 1):
                h = next(parts)(torch.cat([h, held.pop()], dim=1), time)
            h = next(parts)(h) if level in c.attention else h
            if level > 0:
                h = next(parts)(h, time) if c.biggan else next(parts)(h)
        return h
