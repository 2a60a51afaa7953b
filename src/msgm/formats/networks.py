"""Networks from their configuration: built without memory first and compared with the file, then in earnest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..model.networks import MLP
from ..model.song import Song
from ..model.song_edm import SongEDM
from .tensors import Stored, fill, fit

OURS: dict[str, type[nn.Module]] = {"MLP": MLP, "Song": Song, "SongEDM": SongEDM}
LAYERS = {"UNet2DModel": "layers_per_block", "MLP": "depth", "Song": "blocks", "SongEDM": "blocks"}
"""Networks that can be built from a configuration, and its entry that says how many layers there are in a row."""

OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names of diffusers' attention layers before 0.15, and those of today."""


class Chosen(nn.Module):
    """A network asked about one class, and of whose outputs the first ``channels`` are taken.

    They are the mean where a network predicts its variance, too (Nichol and Dhariwal 2021); its other weights are kept.
    """

    def __init__(self, network: nn.Module, *, channels: int, class_label: int | None) -> None:
        super().__init__()
        self.network, self.channels, self.class_label = network, channels, class_label

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        if self.class_label is None:
            out = self.network(x, label)
        else:
            out = self.network(x, label, torch.full((len(x),), self.class_label, device=x.device))
        out = out if isinstance(out, Tensor) else out.sample
        chosen: Tensor = out[:, : self.channels]
        return chosen


def chosen_of(config: Mapping[str, Any], label: int | None) -> list[str]:
    """What of a network is asked, in words: one of its classes, its mean without the variance."""
    variance = config.get("out_channels") == 2 * config.get("in_channels", 0)
    asked = [] if label is None else [f"class {label} of {config.get('num_class_embeds')}"]
    return [*asked, *(["its variance is left alone"] if variance else [])]


class Made(nn.Module):
    """A network of the user's, and the name of the function that makes it."""

    def __init__(self, network: nn.Module, factory: str) -> None:
        super().__init__()
        self.network, self.factory = network, factory

    def forward(self, x: Tensor, label: Tensor) -> Any:
        return self.network(x, label)


def bare(network: nn.Module) -> nn.Module:
    """The network whose weights are in the file."""
    return network.network if isinstance(network, Chosen | Made) else network


def factory_of(network: nn.Module) -> str | None:
    """The name of the function that makes it, where one of the user's does."""
    return network.factory if isinstance(network, Made) else None


def config_of(network: nn.Module) -> dict[str, Any]:
    """What describes a network but for its weights; UserError for one that cannot be saved."""
    if isinstance(network, Made):
        return {"_class_name": "Made", "factory": network.factory}
    network = bare(network)
    if type(network).__name__ in OURS:
        own: dict[str, Any] = network.config  # type: ignore[assignment]
        return {"_class_name": type(network).__name__, **own}
    if type(network).__name__ != "UNet2DModel":
        raise UserError(
            f"cannot save a {type(network).__name__}: how to build it again is not known. Load it by a function of "
            f"yours, load(weights, module_factory='package.module:function')"
        )
    config: dict[str, Any] = json.loads(network.to_json_string())  # type: ignore[operator]
    return config


def read_network(
    config: Mapping[str, Any], given: Stored, path: Path, *, made: nn.Module | None = None, factory: str = ""
) -> nn.Module:
    """The network that the configuration in ``path`` describes, with these weights. Raises UserError naming both.

    ``made`` is the network of a ``factory`` of the user's, for a configuration that names one.
    """
    kind = config.get("_class_name")
    if kind == "Made":
        if made is None:
            raise UserError(
                f"{path}: the network is made by code, {str(config.get('factory'))[:80]}, which runs only when you "
                f"name it",
                option="model_factory",
            )
        fit(made, given, path)
        fill(made, given)
        return Made(made, factory)
    if not isinstance(kind, str) or kind not in LAYERS:
        raise UserError(f"{path} describes a {str(kind)[:40]}; read are {', '.join(LAYERS)}")
    layers = config.get(LAYERS[kind], 0)
    if isinstance(layers, int) and layers > len(given.layout):
        raise UserError(f"{given.path} does not fit {path}: {len(given.layout)} tensors for {layers} layers a block")
    try:
        with torch.device("meta"):
            blueprint = _build(kind, config)
    except Exception as error:  # whatever a broken configuration makes of a constructor
        words = " ".join(str(error).split())[:120]
        raise UserError(f"{path} does not describe a {kind}: {words}") from None
    given = renamed(given, blueprint)
    fit(blueprint, given, path)
    with torch.random.fork_rng(devices=[]):
        network = _build(kind, config)
    fill(network, given)
    return network


def _build(kind: str, config: Mapping[str, Any]) -> nn.Module:
    options = {name: value for name, value in config.items() if not name.startswith("_")}
    if kind in OURS:
        return OURS[kind](**options)
    from diffusers import UNet2DModel

    network: nn.Module = UNet2DModel.from_config(options)
    return network


def renamed(given: Stored, blueprint: nn.Module) -> Stored:
    """The same tensors with attention layers of old named as today."""
    own = blueprint.state_dict().keys()

    def name(old: str) -> str:
        new = old
        for before, after in OLD_NAMES.items():
            new = new.replace(before, after)
        return new if old not in own and new in own else old

    if all(name(old) == old for old in given.layout):
        return given
    layout = {name(old): kind for old, kind in given.layout.items()}
    return replace(given, layout=layout, read=lambda: {name(old): value for old, value in given.read().items()})
