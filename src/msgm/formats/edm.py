"""Networks of EDM (Karras et al. 2022): DDPM++ and NCSN++ in their form, as safetensors or a state dict alone.

The published files are pickles that hold code, and are refused; where EDM's own code is installed, one line makes a
file of the weights: ``torch.save(pickle.load(open(FILE, "rb"))["ema"].state_dict(), OUT)``. Names and shapes tell the
network apart, images lie in [-1, 1), and sigma goes from 0.002 to 80, as in their sampler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from ..errors import UserError
from ..model.precondition import EDM
from ..model.score import Origin, ScoreModel
from ..model.song_edm import EDMConfig
from ..process.sde import VESDE
from .networks import Chosen, read_network
from .tensors import Stored, layout_of

PREFIX = "model."


def belongs(found: Mapping[str, object]) -> bool:
    """Whether these are the names of such a network."""
    return any(re.search(r"(^|\.)enc\.\d+x\d+_conv\.weight$", str(name)) for name in found)


def read(found: Mapping[str, Tensor], path: Path, *, class_label: int | None = None) -> ScoreModel:
    """The model of a state dict that was read from ``path``; ``class_label`` where it is class-conditional.

    Raises UserError for networks of another kind, naming what is not as expected.
    """
    state = {str(k).removeprefix(PREFIX): v for k, v in found.items() if isinstance(v, Tensor)}
    config = layout(state, path)
    if config.classes and (class_label is None or not 0 <= class_label < config.classes):
        raise UserError(
            f"{path}: the network is class-conditional; choose a class, 0 to {config.classes - 1}",
            option="class_label",
        )
    if class_label is not None and not config.classes:
        raise UserError(f"{path}: the network has no classes; leave out class_label")
    given = Stored(path=path, layout=layout_of(state), read=lambda: state)
    network: nn.Module = read_network({"_class_name": "SongEDM", **asdict(config)}, given, path)
    if class_label is not None:
        network = Chosen(network, channels=config.channels, class_label=class_label)
    shape = (config.channels, config.size, config.size)
    model = ScoreModel(network, VESDE(sigma_min=0.002, sigma_max=80.0), shape=shape, precondition=EDM(per_nat=0.25))
    notes = () if class_label is None else (f"class {class_label} of {config.classes}",)
    model.origin = Origin(family="EDM", weights=path.name, notes=notes)
    return model


def layout(state: Mapping[str, Tensor], path: Path) -> EDMConfig:
    """The network that has these names and shapes."""
    try:
        return _layout({name: tuple(value.shape) for name, value in state.items()})
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise UserError(
            f"{path}: its network is neither DDPM++ nor NCSN++ as EDM has them (ADM is not read); name the function "
            "that builds it",
            option="model_factory",
        ) from None


def _layout(shapes: Mapping[str, tuple[int, ...]]) -> EDMConfig:
    found = [re.match(r"enc\.(\d{1,4})x\d+_block(\d+)\.conv1\.weight$", name) for name in shapes]
    places = [(int(m[1]), int(m[2])) for m in found if m]
    sizes = sorted({size for size, _ in places}, reverse=True)
    first = shapes[f"enc.{sizes[0]}x{sizes[0]}_conv.weight"]
    names = [f"enc.{size}x{size}_block0" for size in sizes]
    return EDMConfig(
        size=sizes[0],
        channels=first[1],
        width=first[0],
        multiples=tuple(shapes[f"{name}.conv1.weight"][0] // first[0] for name in names),
        blocks=1 + max(index for _, index in places),
        attention=tuple(level for level, name in enumerate(names) if f"{name}.qkv.weight" in shapes),
        classes=shapes["map_label.weight"][1] if "map_label.weight" in shapes else 0,
        augments=shapes["map_augment.weight"][1] if "map_augment.weight" in shapes else 0,
        fourier="map_noise.freqs" in shapes,
    )
