"""Networks: diffusers' U-Net in a few sizes, an MLP for vectors, and the judge's CNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class UNetPreset:
    """A `diffusers.UNet2DModel` for square images of one size; ``patch`` folds squares of pixels into channels."""

    size: int
    patch: int
    channels: tuple[int, ...]
    attention: tuple[int, ...]
    """Resolutions with self-attention, counted inside the network."""
    blocks: int = 1
    dropout: float = 0.0
    head_dim: int = 16
    groups: int = 8

    def build(self, image_channels: int) -> nn.Module:
        """The network, freshly initialised from torch's global generator."""
        from diffusers import UNet2DModel

        inner = self.size // self.patch
        sizes = [inner // 2**level for level in range(len(self.channels))]
        down = ["AttnDownBlock2D" if size in self.attention else "DownBlock2D" for size in sizes]
        up = ["AttnUpBlock2D" if size in self.attention else "UpBlock2D" for size in reversed(sizes)]
        network: nn.Module = UNet2DModel(
            sample_size=inner,
            in_channels=image_channels * self.patch**2,
            out_channels=image_channels * self.patch**2,
            layers_per_block=self.blocks,
            block_out_channels=self.channels,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            attention_head_dim=self.head_dim,
            norm_num_groups=self.groups,
            dropout=self.dropout,
        )
        return network


PRESETS: dict[str, UNetPreset] = {
    # Made for a CPU, 0.4 to 0.7 M parameters. 28x28 is seen as 4 x 14x14, at a quarter of the cost.
    "small-16": UNetPreset(size=16, patch=1, channels=(32, 64), attention=(8,)),
    "small-28": UNetPreset(size=28, patch=2, channels=(24, 48), attention=(7,)),
    "small-32": UNetPreset(size=32, patch=2, channels=(32, 64), attention=(8,)),
    "small-64": UNetPreset(size=64, patch=4, channels=(32, 64), attention=(8,)),
    # Made for a GPU: 14.7 M parameters, below 30 MB in half precision.
    "gpu-28": UNetPreset(size=28, patch=1, channels=(64, 128, 256), attention=(14,), blocks=2, head_dim=64, groups=32),
    "gpu-64": UNetPreset(size=64, patch=2, channels=(64, 128, 256), attention=(16,), blocks=2, head_dim=64, groups=32),
    "gpu-32": UNetPreset(size=32, patch=1, channels=(64, 128, 256), attention=(16,), blocks=2, head_dim=64, groups=32),
    # The paper's networks: 128 channels x (1, 2, 2, 2), two residual blocks, attention at 16x16 (Ho et al. 2020: 35.7 M
    # weights); for MNIST a level less, as 28 can be halved twice.
    "paper-28": UNetPreset(
        size=28,
        patch=1,
        channels=(128, 256, 256),
        attention=(14,),
        blocks=2,
        dropout=0.1,
        head_dim=256,
        groups=32,
    ),
    "paper-32": UNetPreset(
        size=32,
        patch=1,
        channels=(128, 256, 256, 256),
        attention=(16,),
        blocks=2,
        dropout=0.1,
        head_dim=256,
        groups=32,
    ),
    "paper-64": UNetPreset(
        size=64,
        patch=1,
        channels=(128, 256, 256, 256),
        attention=(16,),
        blocks=2,
        dropout=0.1,
        head_dim=256,
        groups=32,
    ),
}


def preset(name: str, shape: tuple[int, ...]) -> UNetPreset:
    """The preset of this name, or ``auto``: the CPU-sized one for the images' size. Shape is (C, H, W)."""
    size, sides = shape[-1], sorted({each.size for each in PRESETS.values()})
    if name == "auto" and size not in sides:
        raise UserError(
            f"no network preset is for {shape[-2]}x{size} images, but for {', '.join(map(str, sides))} pixels a side; "
            "resize the images, or name a preset",
            option="data.size",
        )
    if name == "auto":
        name = f"small-{size}"
    if name not in PRESETS:
        raise UserError(f"no network preset {name!r}; known: {', '.join(PRESETS)}. Name one, or resize the images")
    chosen = PRESETS[name]
    if shape[-2:] != (chosen.size, chosen.size):
        raise UserError(
            f"network preset {name!r} takes {chosen.size}x{chosen.size} images, the data has "
            f"{shape[-2]}x{shape[-1]}; choose another preset, or resize to {chosen.size}",
            option="data.size",
        )
    return chosen


class MLP(nn.Module):
    """A residual perceptron on vectors ``(B, dim)``, with a sinusoidal embedding of the time label.

    The time shifts and scales the first layer (FiLM, Perez et al. 2018), so that its resolution can follow the noise
    level; a factor that depends on the time alone lets the output grow with it, as some optima do.
    """

    omega: Tensor

    def __init__(self, dim: int = 2, width: int = 128, depth: int = 3, frequencies: int = 16) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"dim": dim, "width": width, "depth": depth, "frequencies": frequencies}
        self.enter = nn.Linear(dim, width)
        self.shift = nn.Linear(2 * frequencies, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, dim)
        self.log_gain = nn.Linear(2 * frequencies, 1)
        self.scale = nn.Linear(2 * frequencies, width)
        for neutral in (self.log_gain, self.scale):
            nn.init.zeros_(neutral.weight)
            nn.init.zeros_(neutral.bias)
        self.register_buffer("omega", 0.3 * 0.6 ** torch.arange(frequencies), persistent=False)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        phase = label[:, None] * self.omega.to(label)
        waves = torch.cat([phase.sin(), phase.cos()], dim=1).to(x)
        h = self.enter(x) * (1 + self.scale(waves)) + self.shift(waves)
        for layer in self.layers:
            h = h + layer(nn.functional.silu(h))
        out: Tensor = self.log_gain(waves).exp() * self.leave(nn.functional.silu(h))
        return out
