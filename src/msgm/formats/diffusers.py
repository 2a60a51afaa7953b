"""Folders of diffusers: a pipeline's (unet/, scheduler/, model_index.json) or a bare `UNet2DModel`, or a hub name.

What cannot be read is refused by name: latent and text models, schedulers of other processes, pickles with code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from ..model.precondition import Noise, Precondition
from ..model.score import Origin, ScoreModel
from ..model.space import UNIT, Space
from ..process.sde import DDPM, SDE, VESDE
from ..storage import read_json
from .networks import Chosen, chosen_of, read_network
from .schedulers import SCHEDULER, read_scheduler
from .tensors import MARK, Stored, stored, together

NETWORKS = ("unet", "unet_ema")
STEM = "diffusion_pytorch_model"
INDEX = re.compile(r"\.index(\.\w+)?\.json$")
"""How the name of a list of shards ends; a variant stands in it."""
LATENT = ("vae", "vqvae", "movq", "image_encoder", "text_encoder", "tokenizer", "bert", "prior", "transformer")
"""Parts of a pipeline that is no pixel model without conditions."""
ENCODERS, LATENT_PIPELINES = ("Autoencoder", "VQModel", "CLIP"), ("LDM", "Latent", "StableDiffusion")
"""What the classes of such parts, and of such pipelines, have in their names."""
OURS = ("config.json", "score.json", "moderation.json", "run.json", "log.jsonl")
"""Files that msgm writes itself, in the place of those that came with a model."""
LOADED = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5", ".onnx", ".npz")
"""Files of weights: copies of what is to be forgotten are not kept."""
KEPT_SIZE, KEPT_FILES = 2**20, 100


def read(root: Path, *, weights: str | None = None, class_label: int | None = None) -> ScoreModel:
    """A model of diffusers in the folder ``root``, or in the pipeline's folder around it where ``root`` is its network.

    ``weights`` names a file or folder in it where there are several, ``class_label`` the class of a conditional model.
    Raises UserError naming what is missing, broken or not read.
    """
    around = root.absolute().parent
    if root.absolute().name in NETWORKS and _is_pipeline(around) and not (around / "score.json").exists():
        name = root.absolute().name
        asked = name if weights in (None, name) else f"{name}/{weights.split('/')[-1]}"
        return read(around, weights=asked, class_label=class_label)
    index = read_json(root / "model_index.json") if (root / "model_index.json").is_file() else {}
    _refuse_other_pipelines(root, index)
    folder, others = _network_folder(root, index, weights)
    where = folder / "config.json"
    config = read_json(where)
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{where} describes a {str(config['_class_name'])[:40]}; only UNet2DModel networks can be read")
    shape, label = _shape(config, where), _class(config, where, class_label)
    if (times := config.get("time_embedding_type", "positional")) not in ("positional", "fourier"):
        raise UserError(
            f"{where}: time_embedding_type {str(times)[:40]!r} is not read: its times are whole numbers only"
        )
    given, beside = _weights(folder, weights)
    if MARK in given.metadata:
        raise UserError(
            f"{root} is half-written: {given.path} was saved by msgm, and its score.json is missing; make the model "
            f"again, or copy the whole folder"
        )
    sde, precondition, scheduler = _process(root, folder, index)
    network: nn.Module = read_network({**config, "_class_name": "UNet2DModel"}, given, where)
    if config.get("out_channels") == 2 * shape[0] or label is not None:
        network = Chosen(network, channels=shape[0], class_label=label)
    space = UNIT if isinstance(sde, VESDE) else Space()
    model = ScoreModel(network, sde, shape=shape, precondition=precondition, space=space)
    kept, more = _kept(root, scheduler)
    notes = [
        *chosen_of(config, label),
        *([] if scheduler else ["no scheduler there: DDPM's own is assumed"]),
        *([f"not taken: {', '.join([*others, *beside])}"] if others or beside else []),
        *([f"of its other files {more} are not given back"] if more else []),
    ]
    model.origin = Origin(
        family=f"diffusers {index.get('_class_name', 'UNet2DModel')}",
        weights=str(given.path.relative_to(root)) if given.path.is_relative_to(root) else str(given.path),
        notes=tuple(notes),
        kept=kept,
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


def _is_pipeline(folder: Path) -> bool:
    places = (folder / "model_index.json", folder / SCHEDULER, *(folder / name for name in LATENT))
    return any(place.exists() for place in places)


def _refuse_other_pipelines(root: Path, index: Mapping[str, Any]) -> None:
    parts = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    parts |= {name for name in LATENT if (root / name).is_dir()}
    for path in root.glob("*/config.json"):
        kind = str(read_json(path).get("_class_name")) if path.parent.name not in NETWORKS else ""
        parts |= {path.parent.name} if any(word in kind for word in ENCODERS) else set()
    if any(word in str(index.get("_class_name")) for word in LATENT_PIPELINES):
        parts.add("latents")
    if more := sorted(parts - {"unet", "scheduler"}):
        raise UserError(
            f"{root} holds a {str(index.get('_class_name', 'pipeline'))[:60]} with {', '.join(more)[:80]}: msgm reads "
            f"models of pixels alone, not latent or text-conditional ones"
        )


def _network_folder(root: Path, index: Mapping[str, Any], asked: str | None) -> tuple[Path, list[str]]:
    """Where the network's configuration is, and the names of other networks that are left alone."""
    there = [name for name in NETWORKS if (root / name / "config.json").is_file()]
    place = asked if asked in NETWORKS else (asked or "").rpartition("/")[0]
    if place and place not in there:
        known = ", ".join(there) or "its own, without a folder's name"
        raise UserError(f"no network {place} in {root} (no {place}/config.json); there are: {known}")
    if place:
        chosen = place
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
    if asked is not None and asked not in NETWORKS:
        name = asked.split("/")[-1]
        chosen = next((p for p in found if p.name == name), None)
        if chosen is None:
            known = ", ".join(p.name for p in found) or "none"
            raise UserError(f"no weights {asked} in {folder}; there are: {known}")
    elif found:
        chosen = min(found, key=_rank)
    else:
        raise UserError(f"{folder / f'{STEM}.safetensors'} is missing; the folder is incomplete: copy or save it again")
    others = [p.name for p in found if p != chosen]
    return (_sharded(chosen) if INDEX.search(chosen.name) else stored(chosen)), others


def _is_shard(path: Path) -> bool:
    return "-of-" in path.name and not path.name.endswith(".json")


def _rank(path: Path) -> tuple[bool, bool, bool, str]:
    """Plain names before variants (fp16), safetensors before pickles, shards before one file: as diffusers does."""
    sharded = INDEX.search(path.name)
    name = INDEX.sub("", path.name)
    variant = name not in (f"{STEM}.safetensors", f"{STEM}.bin") or (sharded is not None and sharded[1] is not None)
    return variant, not name.endswith(".safetensors"), sharded is None, path.name


def _sharded(index: Path) -> Stored:
    names = read_json(index).get("weight_map")
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(n, str) and Path(n).name == n for n in names.values())
    ):
        raise UserError(f"{index} names no files of weights (weight_map); copy or save it again")
    return together(index, [index.parent / name for name in sorted(set(names.values()))])


def _process(root: Path, folder: Path, index: Mapping[str, Any]) -> tuple[SDE, Precondition, Path | None]:
    """The process and what the network predicts, by the scheduler, and where that is; without one DDPM's."""
    places = [root / "scheduler", root, folder, folder.parent / "scheduler", *sorted(root.glob("*scheduler*"))]
    found = [p / "scheduler_config.json" for p in places if (p / "scheduler_config.json").is_file()]
    if found:
        # Those of the DPM solvers have an infinite number in them.
        config, named = read_json(found[0], finite=False), index.get("scheduler")
        # The pipeline's word for the class is what diffusers goes by.
        if isinstance(named, list) and len(named) == 2 and isinstance(named[1], str):
            config = {**config, "_class_name": named[1]}
        return *read_scheduler(config, found[0]), found[0]
    fourier = read_json(folder / "config.json").get("time_embedding_type", "positional") != "positional"
    if fourier:
        raise UserError(f"{root} has no scheduler_config.json, and its network's time is not DDPM's; add the scheduler")
    return DDPM(), Noise(), None


def _kept(root: Path, scheduler: Path | None) -> tuple[dict[str, bytes], int]:
    """Small files that are not weights nor the network's configuration, by their place, to be given back as they were.

    The scheduler that was read is among them, wherever it lay. Also how many there were too many of.
    """
    inside = (root.resolve(), (root.parent.parent / "blobs").resolve())
    kept, more = dict[str, bytes](), 0
    named = [root / "model_index.json", *root.glob("*scheduler*/*")]
    for path in [*sorted(named), *sorted(set(root.glob("*")) - set(named))]:
        place = str(path.relative_to(root))
        ours = place in OURS or path.name.startswith(".")
        weights = path.name.endswith(LOADED) or INDEX.search(path.name)
        if ours or weights or not path.is_file() or path.stat().st_size > KEPT_SIZE:
            continue
        if len(kept) == KEPT_FILES:
            more += 1
        elif any(path.resolve().is_relative_to(place) for place in inside):
            kept[place] = path.read_bytes()
    if scheduler is not None and not any(place.endswith(scheduler.name) for place in kept):
        kept[SCHEDULER] = scheduler.read_bytes()
    return kept, more
