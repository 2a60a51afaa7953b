"""Karras et al. 2022's form of DDPM++ and NCSN++, with the parameter names under which they are published.

Written from the paper's appendix F and the names and shapes in published weights. Parts bear names as ``32x32_block0``:
the size of the images there, and the place.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .song import ROOT, norm

Resample = Literal["up", "down"]


@dataclass(frozen=True, kw_only=True)
class EDMConfig:
    """What sets these networks apart.

    Args:
        size: of the images.
        channels: of an image.
        width: of the first level; ``multiples`` of it are those of each level.
        blocks: residual blocks a level.
        attention: the levels with self-attention, from 0.
        classes: of a class-conditional network; 0 for none.
        augments: numbers that told it in training how an image was augmented; none when images are made.
        fourier: NCSN++ (Fourier features, a smooth filter, the image added at each level), or DDPM++.
        dropout: in residual blocks.
    """

    size: int = 32
    channels: int = 3
    width: int = 128
    multiples: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (1,)
    classes: int = 0
    augments: int = 0
    fourier: bool = False
    dropout: float = 0.13


class Frequencies(nn.Module):
    """cos and sin of 2 pi f c, f ~ N(0, 16^2) kept as it was drawn."""

    freqs: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(size // 2))

    def forward(self, c: Tensor) -> Tensor:
        phase = 2 * math.pi * c[:, None] * self.freqs.to(c)
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class Conv(nn.Module):
    """A convolution; the size is changed with a filter before it, or after it where both are ``fused``."""

    resample_filter: Tensor

    def __init__(
        self,
        before: int,
        after: int,
        k: int,
        resample: Resample | None = None,
        smooth: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.resample, self.fused, self.pad = resample, fused, k // 2
        self.weight = nn.Parameter(torch.randn(after, before, k, k) / math.sqrt(before * k * k))
        self.bias = nn.Parameter(torch.zeros(after))
        if resample:
            row = torch.tensor([1.0, 3.0, 3.0, 1.0] if smooth else [1.0, 1.0])
            self.register_buffer("resample_filter", (torch.outer(row, row) / row.sum() ** 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.resample is None:
            return functional.conv2d(x, self.weight, self.bias, padding=self.pad)
        kernel, channels = self.resample_filter, x.shape[1]
        around = (kernel.shape[-1] - 1) // 2
        if self.fused:  # convolved, then thinned out
            x = functional.conv2d(x, self.weight, padding=self.pad + around)
            return self._thinned(x, 0) + self.bias[:, None, None]
        if self.resample == "down":
            x = self._thinned(x, around)
        else:
            wide = 4 * kernel.expand(channels, 1, -1, -1)
            x = functional.conv_transpose2d(x, wide, groups=channels, stride=2, padding=around)
        return functional.conv2d(x, self.weight, self.bias, padding=self.pad)

    def _thinned(self, x: Tensor, pad: int) -> Tensor:
        kernel = self.resample_filter.expand(x.shape[1], 1, -1, -1)
        return functional.conv2d(x, kernel, groups=x.shape[1], stride=2, padding=pad)


class Block(nn.Module):
    """A residual block, with self-attention of one head where it is asked for."""

    def __init__(
        self, before: int, after: int, c: EDMConfig, *, resample: Resample | None = None, attention: bool = False
    ) -> None:
        super().__init__()
        self.before, self.dropout, self.attention = before, c.dropout, attention
        self.norm0, self.conv0 = norm(before), Conv(before, after, 3, resample, c.fourier)
        self.affine = nn.Linear(4 * c.width, after)
        self.norm1, self.conv1 = norm(after), Conv(after, after, 3)
        self.skip = Conv(before, after, 1, resample, c.fourier) if resample or before != after else nn.Identity()
        if attention:
            self.norm2, self.qkv, self.proj = norm(after), Conv(after, 3 * after, 1), Conv(after, after, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv0(functional.silu(self.norm0(x))) + self.affine(time)[:, :, None, None]
        h = functional.dropout(functional.silu(self.norm1(h)), self.dropout, self.training)
        x = (self.skip(x) + self.conv1(h)) * ROOT
        if self.attention:
            # The channels of q, k and v lie beside each other.
            q, k, v = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (-1, 3)).permute(2, 0, 3, 1).unbind(0)
            h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            x = (x + self.proj(h)) * ROOT
        return x


class SongEDM(nn.Module):
    """``(x, label, classes) -> F``, the raw output of Karras et al. 2022, Eq. 7; the label is log(sigma) / 4."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        for name in {"multiples", "attention"} & options.keys():
            options[name] = tuple(options[name])
        self.layout = c = EDMConfig(**options)
        self.config: dict[str, Any] = asdict(c)
        noise, last = (2 if c.fourier else 1) * c.width, len(c.multiples) - 1
        if c.fourier:
            self.map_noise = Frequencies(noise)
        if c.classes:
            self.map_label = nn.Linear(c.classes, noise)
        if c.augments:
            self.map_augment = nn.Linear(c.augments, noise, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(noise, 4 * c.width), nn.Linear(4 * c.width, 4 * c.width)
        enc: dict[str, nn.Module] = {}
        dec: dict[str, nn.Module] = {}
        held, here, image = [], c.channels, c.channels
        for level, multiple in enumerate(c.multiples):
            place = f"{c.size >> level}x{c.size >> level}"
            if level == 0:
                enc[f"{place}_conv"] = Conv(here, c.width, 3)
                here = c.width
            else:
                enc[f"{place}_down"] = Block(here, here, c, resample="down")
                if c.fourier:
                    enc[f"{place}_aux_residual"] = Conv(image, here, 3, "down", True, fused=True)
                    image = here
            held.append(here)
            for index in range(c.blocks):
                enc[f"{place}_block{index}"] = Block(here, multiple * c.width, c, attention=level in c.attention)
                here = multiple * c.width
                held.append(here)
        for level, multiple in reversed(list(enumerate(c.multiples))):
            place = f"{c.size >> level}x{c.size >> level}"
            if level == last:
                dec[f"{place}_in0"] = Block(here, here, c, attention=True)
                dec[f"{place}_in1"] = Block(here, here, c)
            else:
                dec[f"{place}_up"] = Block(here, here, c, resample="up")
            for index in range(c.blocks + 1):
                attends = index == c.blocks and level in c.attention
                dec[f"{place}_block{index}"] = Block(here + held.pop(), multiple * c.width, c, attention=attends)
                here = multiple * c.width
        dec[f"{c.size}x{c.size}_aux_norm"] = norm(here)
        dec[f"{c.size}x{c.size}_aux_conv"] = Conv(here, c.channels, 3)
        self.enc, self.dec = nn.ModuleDict(enc), nn.ModuleDict(dec)

    def time(self, label: Tensor, classes: Tensor | None) -> Tensor:
        """What the blocks are told of the noise level and the class, (B, 4 width)."""
        c = self.layout
        if c.fourier:
            waves = self.map_noise(label)
        else:
            rates = (1 / 10000) ** (torch.arange(c.width // 2, device=label.device) / (c.width // 2 - 1))
            phase = label[:, None] * rates.to(label)
            waves = torch.cat([phase.cos(), phase.sin()], dim=1)
        # Sines first, as score_sde has them.
        waves = waves.unflatten(1, (2, -1)).flip(1).flatten(1).to(self.map_layer0.weight.dtype)
        if c.classes and classes is not None:
            chosen = functional.one_hot(classes, c.classes).to(waves)
            waves = waves + self.map_label(chosen * math.sqrt(c.classes))
        elif c.classes:
            waves = waves + self.map_label.bias
        return functional.silu(self.map_layer1(functional.silu(self.map_layer0(waves))))

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        time, image = self.time(label, classes), x
        held: list[Tensor] = []
        for name, part in self.enc.items():
            if "aux" in name:
                x = held[-1] = image = (x + part(image)) * ROOT
                continue
            x = part(x, time) if isinstance(part, Block) else part(x)
            held.append(x)
        for name, part in self.dec.items():
            if isinstance(part, Block):
                x = torch.cat([x, held.pop()], dim=1) if x.shape[1] != part.before else x
                x = part(x, time)
            else:
                x = part(functional.silu(x) if name.endswith("conv") else x)
        return x
