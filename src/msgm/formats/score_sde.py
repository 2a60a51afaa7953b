"""Checkpoints of score_sde_pytorch, and of the paper's code that follows it: DDPM, DDPM++ and NCSN++, VE and VP.

``model`` holds the weights by name, ``ema`` their average, in the order of the parameters that are trained; the average
is what their samples are drawn from. A file says nothing of the process or the size of images. Names and shapes tell
the network apart; what they leave open is as in their settings: Fourier features of sigma mean VE on pixels in [0, 1)
with the noise levels that the file lists, sinusoids mean continuous VP on [-1, 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..model.precondition import Noise, Precondition, Score
from ..model.score import Origin, ScoreModel
from ..model.song import Song, SongConfig
from ..model.space import UNIT, Space
from ..process.sde import DDPM, SDE, VESDE, VPSDE
from .networks import bare, read_network
from .tensors import Stored, layout_of

PROCESSES = ("ve", "vp", "ddpm")
PREFIX = "module."


def belongs(found: Mapping[str, Any]) -> bool:
    """Whether this is what such a checkpoint holds."""
    state = found.get("model")
    return isinstance(state, Mapping) and any("all_modules." in str(name) for name in state)


def read(found: Mapping[str, Any], path: Path, *, size: int = 32, process: str | None = None) -> ScoreModel:
    """The average model of a checkpoint that was read from ``path``.

    ``size`` is that of its images, ``process`` one of `PROCESSES` where it is not what the network says.
    Raises UserError for networks of another kind, naming what is not as expected.
    """
    state = {str(k).removeprefix(PREFIX): v for k, v in found["model"].items() if isinstance(v, Tensor)}
    config = layout(state, path)
    state, notes = _average(state, found.get("ema"), path)
    kind = process or ("ve" if config.fourier else "vp")
    if kind not in PROCESSES or (kind == "ve") != config.fourier:
        raise UserError(f"{path}: the network is of {'ve' if config.fourier else 'vp or ddpm'}; process is {kind!r}")
    given = Stored(path=path, layout=layout_of(state), read=lambda: state)
    network = read_network({"_class_name": "Song", **asdict(config)}, given, path)
    sde, precondition, space = _process(kind, state.get("sigmas"))
    model = ScoreModel(network, sde, shape=(config.channels, size, size), precondition=precondition, space=space)
    words = [] if process else [f"{kind} by its time embedding"]
    model.origin = Origin(family="score_sde", weights=path.name, notes=(*words, *notes))
    return model


def made(model: ScoreModel) -> tuple[str, ...]:
    """The name of the file that `checkpoint` makes, if it makes one."""
    return ("checkpoint.pth",) if isinstance(bare(model.network), Song) else ()


def checkpoint(model: ScoreModel) -> dict[str, bytes]:
    """checkpoint.pth of a network of theirs, for their code; nothing for another."""
    if not made(model):
        return {}
    file, network = BytesIO(), bare(model.network)
    weights = [p.detach().cpu() for p in network.parameters() if p.requires_grad]
    state = {f"{PREFIX}{name}": value.cpu() for name, value in network.state_dict().items()}
    ema = {"decay": 0.9999, "num_updates": 0, "shadow_params": weights}
    torch.save({"model": state, "ema": ema, "optimizer": {}, "step": 0}, file)
    return {"checkpoint.pth": file.getvalue()}


def _process(kind: str, sigmas: Tensor | None) -> tuple[SDE, Precondition, Space]:
    if kind == "ve":
        levels = None if sigmas is None or len(sigmas) < 2 else sigmas.double()
        sde = VESDE() if levels is None else VESDE(sigma_min=_round(levels.min()), sigma_max=_round(levels.max()))
        return sde, Score(), UNIT
    # The score is minus the output over sigma. The betas of discrete VP are 0.1/N ... 20/N in N = 1,000 steps.
    return (VPSDE() if kind == "vp" else DDPM()), Noise(), Space()


def _round(value: Tensor) -> float:
    return float(f"{float(value):.6g}")


def _average(state: dict[str, Tensor], ema: object, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights, those that are trained replaced by their average."""
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if shadow is None and ema is not None:
        raise UserError(f"{path}: its average (ema) has no shadow_params; save it as score_sde does, or without ema")
    if shadow is None:
        return state, ["no average in the file: the last weights"]
    trained = [name for name in state if name != "sigmas" and not name.endswith("all_modules.0.W")]
    shapes = [tuple(v.shape) if isinstance(v, Tensor) else v for v in shadow] if isinstance(shadow, list) else None
    if shapes != [tuple(state[n].shape) for n in trained]:
        raise UserError(f"{path}: its average (ema.shadow_params) is not that of its weights; save it again")
    return {**state, **dict(zip(trained, shadow, strict=True))}, ["the average of the weights"]


def layout(state: Mapping[str, Tensor], path: Path) -> SongConfig:
    """The network that has these names and shapes."""
    parts: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, value in state.items():
        if place := re.fullmatch(r"all_modules\.(\d{1,4})\.(.+)", name):
            parts.setdefault(int(place[1]), {})[place[2]] = tuple(value.shape)
    try:
        config = _layout([parts[k] for k in range(len(parts))])
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise UserError(
            f"{path}: its network is none of DDPM, DDPM++ and NCSN++ in the sizes that are read; name the function "
            "that builds it",
            option="model_factory",
        ) from None
    return replace(config, sigmas=len(state["sigmas"]) if "sigmas" in state else 0)


def _layout(parts: list[dict[str, tuple[int, ...]]]) -> SongConfig:
    fourier = "W" in parts[0]
    first = parts[3 if fourier else 2]["weight"]
    width, channels = first[0], first[1]
    body = parts[4 if fourier else 3 :]
    multiples: list[int] = []
    attention: set[int] = set()
    blocks = level = here = 0
    biggan = residual = False
    for part in body:
        if "Dense_0.weight" in part and not _resizes(part):
            here += 1
            if level > 0 and here > blocks:  # the first of the middle
                break
            if here == 1:
                multiples.append(part["Conv_0.weight"][0] // width)
            blocks = here if level == 0 else blocks
        elif "NIN_3.W" in part:
            attention.add(level)
        elif "Conv2d_0.weight" in part:
            residual = True
        elif "Conv_0.weight" in part:
            level, here, biggan = level + 1, 0, "Dense_0.weight" in part
        else:
            raise ValueError("no part of these networks")
    return SongConfig(
        channels=channels, width=width, multiples=tuple(multiples), blocks=blocks, attention=tuple(sorted(attention)),
        biggan=biggan, fourier=fourier, residual_input=residual,
    )  # fmt: skip


def _resizes(part: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a residual block changes the size: it has a shortcut, and as many channels after as before."""
    shape = part["Conv_0.weight"]
    return "Conv_2.weight" in part and shape[0] == shape[1]
