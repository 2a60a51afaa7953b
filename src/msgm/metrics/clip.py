"""CLIP (Radford et al. 2021): images and words as unit vectors, and a judge's network made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels, in [0, 1], that it was trained on."""
JUNK = ("random noise", "a blurry picture of nothing", "a broken image")
"""What junk looks like, in words."""


class Clip:
    """A model as transformers reads it: a folder, or a name on the hub.

    Raises UserError where it cannot be read, and where transformers is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            from transformers import CLIPModel, CLIPTokenizer
        except ImportError:
            raise UserError(f"CLIP {name} needs another package: pip install 'msgm[clip]'") from None
        self.name = name
        try:
            self.network: Any = CLIPModel.from_pretrained(name).eval().requires_grad_(False)
            self.tokens: Any = CLIPTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())[:120]
            raise UserError(f"{name} cannot be read as a CLIP model ({why}); name its folder, or a judge's") from None

    def images(self, x: Tensor) -> Tensor:
        """Unit vectors (B, F) of images in [0, 1], (B, C, H, W) of any size."""
        x = sized(x, self.network.config.vision_config.image_size)
        mean, std = (torch.tensor(values).to(x)[:, None, None] for values in (MEAN, STD))
        return _unit(self.network.get_image_features(pixel_values=(x - mean) / std))

    def words(self, text: str) -> Tensor:
        """The unit vector (F,) of some words."""
        most = self.network.config.text_config.max_position_embeddings
        tokens = self.tokens([text], return_tensors="pt", truncation=True, max_length=most).to(self.network.device)
        with torch.no_grad():
            return _unit(self.network.get_text_features(**tokens))[0]


class ClipNetwork(nn.Module):
    """A judge's network: the cosine of an image and each class in words, times CLIP's own scale; junk is the last.

    ``prompt`` has ``{}`` where the name of a class stands. Of the words for junk the nearest counts.
    """

    def __init__(self, name: str, names: Sequence[str], prompt: str) -> None:
        super().__init__()
        if "{}" not in prompt:
            raise UserError(f"the prompt needs {{}} where the name of a class is to stand; got {prompt!r}")
        self.config: dict[str, Any] = {"clip": name, "prompt": prompt}
        self.clip = Clip(name)  # no part of the judge's weights, which are these vectors:
        words = [*(prompt.replace("{}", each) for each in names), *JUNK]
        self.text = nn.Parameter(torch.stack([self.clip.words(each) for each in words]), requires_grad=False)

    def features(self, x: Tensor) -> Tensor:
        """Unit vectors of images (B, F), which lie in a judge's space: the middle of pixel k is (k + 1/2) / 128 - 1."""
        return self.clip.images(((x + 1) * 128 - 0.5) / 255)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes + 1)."""
        logits = self.clip.network.logit_scale.exp() * self.features(x) @ self.text.T
        junk = logits[:, -len(JUNK) :].amax(1, keepdim=True)
        return torch.cat([logits[:, : -len(JUNK)], junk], 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClipNetwork:
        self.clip.network._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def sized(x: Tensor, side: int) -> Tensor:
    """In colour and resized, (B, 3, side, side); in [0, 1] as it came."""
    x = x.expand(-1, 3, -1, -1)
    if x.shape[-2:] == (side, side):
        return x
    return functional.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _unit(found: Any) -> Tensor:
    vectors: Tensor = getattr(found, "pooler_output", found)
    return functional.normalize(vectors, dim=1)
