"""Model folders: safetensors and JSON in diffusers' layout, with a record of what the model was made to forget.

unet/config.json, unet/diffusion_pytorch_model.safetensors     the network, as diffusers writes it
scheduler/scheduler_config.json, model_index.json              only for DDPM: diffusers' DDPMPipeline loads it
score.json                                                     process, prediction kind, shape (`ScoreModel`)
moderation.json                                                the record; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..model.networks import MLP
from ..model.precondition import PRECONDITIONS, Noise, Precondition, Sample, V
from ..model.score import ScoreModel
from ..model.space import Space
from ..process.sde import DDPM, PROCESSES, SDE
from ..storage import claim, read_json, write_bytes, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"
RECORD = "moderation.json"
EMBEDDED = "demo"


def embedded(name: str) -> Path:
    """The folder of what ships inside the package: ``model`` or ``judge``."""
    return Path(str(files("msgm"))) / "embedded" / name


def weights_sha256(module: nn.Module) -> str:
    """Hash of all parameters and buffers, by name, whatever file they came from."""
    return _sha256(module.state_dict())


def _sha256(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """`write_bytes` of a safetensors file."""
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata or {}))
    write_bytes(path, content)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; a missing or truncated one is named."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing; the model folder is incomplete: copy or save it again")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error}); copy or save it again") from None
    return tensors


def save(model: ScoreModel, folder: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False) -> None:
    """Save a model folder. It is written beside its place first, then moved there; ``half`` stores float16 weights.

    Raises `UserError` where the folder exists and ``overwrite`` is false.
    """
    out = Path(folder)
    claim(out, overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    write_model(model, out, half=half)


def write_model(model: ScoreModel, out: Path, *, half: bool = False) -> None:
    """Write the model's files into a folder that may hold others (a training run's log); the record comes last."""
    staging = out / f".model.{os.getpid()}.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        (staging / "unet").mkdir(parents=True)
        write_json(staging / "unet" / "config.json", _network_config(model.network))
        state = model.network.state_dict()
        stored = {k: v.half() for k, v in state.items()} if half else state
        write_tensors(staging / "unet" / WEIGHTS, stored)
        write_json(staging / "score.json", _describe(model))
        if isinstance(model.sde, DDPM) and isinstance(model.precondition, Noise) and model.patch == 1:
            (staging / "scheduler").mkdir()
            write_json(staging / "scheduler" / "scheduler_config.json", _scheduler(model.sde))
            write_json(staging / "model_index.json", _PIPELINE)
        # The hash is that of the weights as they will be read, rounded to half precision or not.
        read = {k: v.to(state[k].dtype) for k, v in stored.items()}
        write_json(staging / RECORD, {**model.record, "weights_sha256": _sha256(read)})
        for name in ("unet", "scheduler", "model_index.json", "score.json", RECORD):
            if (staging / name).exists():
                _replace(staging / name, out / name)
            else:  # left by a model of another process that was here before
                _remove(out / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(new: Path, place: Path) -> None:
    if place.is_dir():
        old = place.with_name(f".{place.name}.old")
        _remove(old)  # of a run that was killed right here
        os.replace(place, old)
        os.replace(new, place)
        shutil.rmtree(old)
    else:
        os.replace(new, place)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


_PIPELINE = {
    "_class_name": "DDPMPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def _scheduler(sde: DDPM) -> dict[str, Any]:
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": sde.steps,
        "beta_start": sde.beta_start,
        "beta_end": sde.beta_end,
        "beta_schedule": sde.schedule,
        "prediction_type": "epsilon",
    }


def _network_config(network: nn.Module) -> dict[str, Any]:
    if isinstance(network, MLP):
        return {"_class_name": "MLP", **network.config}
    if type(network).__name__ != "UNet2DModel":
        raise UserError(f"cannot save a {type(network).__name__}; save a diffusers UNet2DModel or an msgm MLP")
    config: dict[str, Any] = json.loads(network.to_json_string())  # type: ignore[operator]
    return config


def _describe(model: ScoreModel) -> dict[str, Any]:
    kind = next(name for name, cls in PROCESSES.items() if type(model.sde) is cls)
    return {
        "sde": {"kind": kind, **asdict(model.sde)},
        "prediction": model.precondition.name,
        **asdict(model.precondition),
        "space": asdict(model.space),
        "patch": model.patch,
        "shape": list(model.shape),
    }


def configuration(model: ScoreModel) -> dict[str, Any]:
    """What a model's folder says of it but for the weights; `UserError` for a network that cannot be saved."""
    network = {k: v for k, v in _network_config(model.network).items() if k != "_diffusers_version"}
    return {"network": network, **_describe(model)}


def load(folder: str | os.PathLike[str]) -> ScoreModel:
    """Load a model folder: ours, a diffusers pipeline folder (``DDPMPipeline``) or a plain ``UNet2DModel`` folder.

    ``demo`` names the model that ships in the package. A foreign folder is read as DDPM with its scheduler's betas
    (diffusers' defaults where it has none). Raises `UserError` naming the file that is missing or broken.
    """
    root = embedded("model") if str(folder) == EMBEDDED else Path(folder)
    if not root.is_dir():
        raise UserError(f"no model folder {root}; give the path of one, or 'demo' for the model in the package")
    if (root / "score.json").is_file():
        settings = read_json(root / "score.json")
        try:
            sde = _process(settings.pop("sde"), root / "score.json")
            shape, patch = tuple(settings.pop("shape")), settings.pop("patch")
            space = Space(**settings.pop("space", {}))
            precondition = PRECONDITIONS[settings.pop("prediction")](**settings)
            model = ScoreModel(nn.Identity(), sde, shape=shape, patch=patch, space=space, precondition=precondition)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{root / 'score.json'} does not describe a score model: {error}") from None
        model.network = _read_network(root / "unet")
    else:
        model = _load_foreign(root)
    if (root / RECORD).is_file():
        model.record = read_json(root / RECORD)
    return model.eval()


def _process(config: dict[str, Any], path: Path) -> SDE:
    kind = config.pop("kind", None)
    if kind not in PROCESSES:
        raise UserError(f"{path} names the process {kind!r}; known: {', '.join(PROCESSES)}")
    return PROCESSES[kind](**config)


def _load_foreign(root: Path) -> ScoreModel:
    inner = root / "unet" if (root / "unet").is_dir() else root
    if not (inner / "config.json").is_file():
        raise UserError(f"{root} is not a model folder: no score.json, unet/config.json or config.json in it")
    network = _read_network(inner)
    config = read_json(inner / "config.json")
    size = config.get("sample_size")
    if not size or not config.get("in_channels"):
        raise UserError(f"{inner / 'config.json'} names no sample_size or in_channels: unknown size of images")
    height, width = (size, size) if isinstance(size, int) else size
    scheduler = root / "scheduler" / "scheduler_config.json"
    given = read_json(scheduler) if scheduler.is_file() else {}
    kinds: dict[str, type[Precondition]] = {"epsilon": Noise, "v_prediction": V, "sample": Sample}
    kind = kinds.get(given.get("prediction_type", "epsilon"))
    schedule = given.get("beta_schedule", "linear")
    if kind is None or schedule not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        raise UserError(f"{scheduler}: prediction_type or beta_schedule is not one that msgm reads (docs/method.md)")
    for name in ("trained_betas", "rescale_betas_zero_snr"):
        if given.get(name):
            raise UserError(f"{scheduler}: {name} is not supported; the betas must be those of a named beta_schedule")
    sde = DDPM(
        steps=given.get("num_train_timesteps", 1000),
        beta_start=given.get("beta_start", 1e-4),
        beta_end=given.get("beta_end", 0.02),
        schedule=schedule,
    )
    return ScoreModel(network, sde, shape=(config["in_channels"], height, width), precondition=kind())


def _read_network(folder: Path) -> nn.Module:
    config = read_json(folder / "config.json")
    kind = config.pop("_class_name", None)
    weights = {name: tensor.float() for name, tensor in read_tensors(folder / WEIGHTS).items()}
    if kind not in ("MLP", "UNet2DModel"):
        raise UserError(f"{folder / 'config.json'} describes a {kind}; only UNet2DModel and MLP networks can be read")
    network: nn.Module
    try:
        if kind == "MLP":
            network = MLP(**config)
        else:
            from diffusers import UNet2DModel

            network = UNet2DModel.from_config(config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} does not describe a {kind}: {error}") from None
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{folder / WEIGHTS} does not fit {folder / 'config.json'}: {first}") from None
    return network
