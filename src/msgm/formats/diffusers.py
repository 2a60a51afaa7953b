"""Folders of diffusers: a pipeline's (unet/, scheduler/, model_index.json) or a bare `UNet2DModel`, or a hub name.

What cannot be read is refused by name: latent and text models, schedulers of other processes, pickles with code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from ..model.precondition import Noise, Precondition
from ..model.score import Origin, ScoreModel
from ..process.sde import DDPM, SDE
from ..storage import read_json
from .networks import Chosen, read_network
from .schedulers import read_scheduler
from .tensors import MARK, Stored, stored, together

NETWORKS = ("unet", "unet_ema")
STEM = "diffusion_pytorch_model"
LATENT = ("vae", "vqvae", "movq", "image_encoder", "text_encoder", "tokenizer", "bert", "prior", "transformer")
"""Parts of a pipeline that is no pixel model without conditions."""
LOADED = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5", ".onnx", ".npz", ".index.json")
"""Files of weights: copies of what is to be forgotten are not kept."""
KEPT_SIZE, KEPT_FILES = 2**20, 100


def read(root: Path, *, weights: str | None = None, class_label: int | None = None) -> ScoreModel:
    """A model of diffusers in the folder ``root``.

    ``weights`` names a file or folder in it where there are several, ``class_label`` the class of a conditional model.
    Raises UserError naming what is missing, broken or not read.
    """
    index = read_json(root / "model_index.json") if (root / "model_index.json").is_file() else {}
    _refuse_other_pipelines(root, index)
    folder, others = _network_folder(root, index, weights)
    where = folder / "config.json"
    config = read_json(where)
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{where} describes a {str(config['_class_name'])[:40]}; only UNet2DModel networks can be read")
    shape, label = _shape(config, where), _class(config, where, class_label)
    given, beside = _weights(folder, weights)
    if MARK in given.metadata:
        raise UserError(
            f"{root} is half-written: {given.path} was saved by msgm, and its score.json is missing; make the model "
            f"again, or copy the whole folder"
        )
    sde, precondition, assumed = _process(root, folder)
    network: nn.Module = read_network({**config, "_class_name": "UNet2DModel"}, given, where)
    variance = config.get("out_channels") == 2 * shape[0]
    if variance or label is not None:
        network = Chosen(network, channels=shape[0], class_label=label)
    model = ScoreModel(network, sde, shape=shape, precondition=precondition)
    notes = [
        *([] if label is None else [f"class {label} of {config['num_class_embeds']}"]),
        *(["its variance is left alone"] if variance else []),
        *([assumed] if assumed else []),
        *([f"not taken: {', '.join([*others, *beside])}"] if others or beside else []),
    ]
    model.origin = Origin(
        family=f"diffusers {index.get('_class_name', 'UNet2DModel')}",
        weights=str(given.path.relative_to(root)) if given.path.is_relative_to(root) else str(given.path),
        notes=tuple(notes),
        kept=_kept(root),
    )
    return model


def in_cache(name: str) -> Path:
    """The folder of a model of the hub, by its name, in the local cache; UserError if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except HFValidationError:
        raise UserError(f"no model folder or file {name}, and no name of a model of the hub") from None
    except (LocalEntryNotFoundError, OSError):
        raise UserError(
            f"no folder {name}, and no model of that name in the local cache; fetch it with: hf download {name}"
        ) from None


def _refuse_other_pipelines(root: Path, index: Mapping[str, Any]) -> None:
    parts = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    parts |= {name for name in LATENT if (root / name).is_dir()}
    if more := sorted(parts - {"unet", "scheduler"}):
        raise UserError(
            f"{root} holds a {str(index.get('_class_name', 'pipeline'))[:60]} with {', '.join(more)[:80]}: msgm reads "
            f"models of pixels alone, not latent or text-conditional ones"
        )


def _network_folder(root: Path, index: Mapping[str, Any], asked: str | None) -> tuple[Path, list[str]]:
    """Where the network's configuration is, and the names of other networks that are left alone."""
    there = [name for name in NETWORKS if (root / name / "config.json").is_file()]
    if asked is not None and asked.split("/")[0] in there:
        chosen = asked.split("/")[0]
    elif there:
        # A pipeline is what its author ships; in a training checkpoint the average draws the better pictures.
        chosen = there[0] if index else there[-1]
    elif (root / "config.json").is_file():
        return root, []
    elif (root / "unet").is_dir():
        raise UserError(f"{root / 'unet' / 'config.json'} is missing; the folder is incomplete: copy or save it again")
    else:
        raise UserError(f"{root} is not a model folder: no score.json, unet/config.json or config.json in it")
    return root / chosen, [name for name in there if name != chosen]


def _shape(config: Mapping[str, Any], where: Path) -> tuple[int, int, int]:
    size, channels, out = config.get("sample_size"), config.get("in_channels"), config.get("out_channels")
    if not size or not channels:
        raise UserError(f"{where} names no sample_size or in_channels: unknown size of images")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(n) is int and 0 < n <= 1024 for n in sides):
        raise UserError(f"{where}: sample_size is a number of pixels, or two, up to 1024; got {str(size)[:40]}")
    if type(channels) is not int or channels not in (1, 3):
        raise UserError(
            f"{where}: the network takes {str(channels)[:40]} channels, and images have 1 or 3; latent models and "
            f"those that take a second image are not read"
        )
    if out not in (channels, 2 * channels):
        raise UserError(f"{where}: out_channels is {str(out)[:40]}; expected {channels}, with variance {2 * channels}")
    return channels, sides[0], sides[1]


def _class(config: Mapping[str, Any], where: Path, class_label: int | None) -> int | None:
    count = config.get("num_class_embeds")
    if config.get("class_embed_type") is not None:
        raise UserError(f"{where}: class_embed_type {str(config['class_embed_type'])[:40]} is not read")
    if count is None:
        if class_label is not None:
            raise UserError(f"{where}: the network has no classes; leave out class_label")
        return None
    if type(count) is not int or count < 1:
        raise UserError(f"{where}: num_class_embeds is a number of classes; got {str(count)[:40]}")
    if class_label is None or not 0 <= class_label < count:
        raise UserError(
            f"{where}: the network is class-conditional (num_class_embeds={count}); choose a class, 0 to {count - 1}",
            option="class_label",
        )
    return class_label


def _weights(folder: Path, asked: str | None) -> tuple[Stored, list[str]]:
    """The file of weights to read, and the names of those beside it."""
    found = [p for p in sorted(folder.glob(f"{STEM}*")) if p.is_file() and not _is_shard(p)]
    if asked is not None and (name := asked.split("/")[-1]) not in NETWORKS:
        chosen = next((p for p in found if p.name == name), None)
        if chosen is None:
            known = ", ".join(p.name for p in found) or "none"
            raise UserError(f"no weights {asked} in {folder}; there are: {known}")
    elif found:
        chosen = min(found, key=_rank)
    else:
        raise UserError(f"{folder / f'{STEM}.safetensors'} is missing; the folder is incomplete: copy or save it again")
    others = [p.name for p in found if p != chosen]
    return (_sharded(chosen) if chosen.name.endswith(".index.json") else stored(chosen)), others


def _is_shard(path: Path) -> bool:
    return "-of-" in path.name and not path.name.endswith(".json")


def _rank(path: Path) -> tuple[int, int, str]:
    """Plain names before variants (fp16), safetensors before pickles."""
    name = path.name.removesuffix(".index.json")
    variant = name not in (f"{STEM}.safetensors", f"{STEM}.bin")
    return int(variant), int(not name.endswith(".safetensors")), path.name


def _sharded(index: Path) -> Stored:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise UserError(f"{index} names no files of weights (weight_map); copy or save it again")
    return together(index, [index.parent / name for name in sorted(set(names.values()))])


def _process(root: Path, folder: Path) -> tuple[SDE, Precondition, str]:
    """The process and what the network predicts, by the scheduler; words for what was assumed without one."""
    places = [root / "scheduler", root, folder, folder.parent / "scheduler", *sorted(root.glob("*scheduler*"))]
    found = [p / "scheduler_config.json" for p in places if (p / "scheduler_config.json").is_file()]
    if found:
        path = found[0]
        # Those of the DPM solvers have an infinite number in them.
        return *read_scheduler(read_json(path, finite=False), path), ""
    fourier = read_json(folder / "config.json").get("time_embedding_type", "positional") != "positional"
    if fourier:
        raise UserError(f"{root} has no scheduler_config.json, and its network's time is not DDPM's; add the scheduler")
    return DDPM(), Noise(), "no scheduler there: DDPM's own is assumed"


def _kept(root: Path) -> dict[str, bytes]:
    """Small files that are not weights nor the network's configuration, by their place: given back as they were."""
    inside = (root.resolve(), (root.parent.parent / "blobs").resolve())
    kept: dict[str, bytes] = {}
    for path in sorted([*root.glob("*"), *root.glob("*scheduler*/*")]):
        place = str(path.relative_to(root))
        ours = place in ("config.json", "score.json", "moderation.json") or path.name.startswith(".")
        if ours or path.name.endswith(LOADED) or not path.is_file() or path.stat().st_size > KEPT_SIZE:
            continue
        if any(path.resolve().is_relative_to(place) for place in inside) and len(kept) < KEPT_FILES:
            kept[place] = path.read_bytes()
    return kept
