"""Our model folders: safetensors and JSON in diffusers' layout, with a record of what the model was made to forget.

unet/config.json, unet/diffusion_pytorch_model.safetensors     the network, as diffusers writes it
scheduler/scheduler_config.json, model_index.json              where diffusers knows the process: DDPMPipeline loads it
checkpoint.pth                                                 where the network is score_sde's: its own kind of file
score.json                                                     process, precondition, shape, space (`ScoreModel`)
moderation.json                                                the record, with the hash of the weights and its seal
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from json import dumps, loads
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..model.precondition import PRECONDITIONS
from ..model.score import Origin, ScoreModel
from ..model.space import Space
from ..process.sde import PROCESSES, SDE
from ..processes import here
from ..storage import read_json, write_bytes, write_json
from . import ledger, module, score_sde
from .networks import Chosen, bare, chosen_of, config_of, read_network
from .publish import MARKER, published, refuse_half_written
from .schedulers import PIPELINE, SCHEDULER, pipeline_of, scheduler_of
from .tensors import MARK, sha256, stored, weights_sha256, write_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
SCORE, RECORD = "score.json", "moderation.json"
OURS = ("unet/config.json", f"unet/{WEIGHTS}", SCORE, RECORD)
MODEL = tuple(sorted({name.split("/")[0] for name in (*OURS, SCHEDULER, PIPELINE, MARKER)}))
"""The files and folders that every model may have."""
EMBEDDED = "demo"
LARGEST_SIDE, LARGEST_VECTOR = 1024, 10**6


def embedded(name: str) -> Path:
    """The folder of what ships inside the package: ``model`` or ``judge``."""
    return Path(str(files("msgm"))) / "embedded" / name


def write_model(model: ScoreModel, out: Path, *, half: bool = False) -> None:
    """Publish the model's files into a folder that may hold others (a training run's log).

    Files that came with a foreign model and are not ours go with it as they were. Raises UserError where a file that
    msgm did not write stands in the way.
    """
    if not here().first:
        return
    config, kept, made = config_of(model.network), _kept(model), score_sde.checkpoint(model)
    out.mkdir(parents=True, exist_ok=True)
    with published(out, _before(out)) as staging:
        write_json(staging / "unet" / "config.json", config)
        inner, state = bare(model.network).state_dict(), model.network.state_dict()
        stored_state = {k: _halved(k, v) if half and v.is_floating_point() else v for k, v in inner.items()}
        # Without score.json these are no foreign model's: `diffusers.read` asks for the mark.
        settings = {**_describe(model), "kept": sorted(kept), "made": sorted(made)}
        mark = {"format": "pt", MARK: _described(config, settings)}
        write_tensors(staging / "unet" / WEIGHTS, stored_state, mark)
        write_json(staging / SCORE, settings)
        for name, content in {**kept, **made}.items():
            write_bytes(staging / name, content)
        # The hash is that of the weights as they will be read, rounded to half precision or not.
        rounded = {k: v.half().to(v.dtype) if half and v.is_floating_point() else v for k, v in state.items()}
        write_json(staging / RECORD, ledger.sealed({**model.record, "weights_sha256": sha256(rounded)}))


def _halved(name: str, value: Tensor) -> Tensor:
    if bool((value.half().isfinite() != value.isfinite()).any()):
        raise UserError(f"{name} has values beyond half precision's 65504; save the model in full precision")
    return value.half()


def _described(config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Hash of what unet/config.json and score.json say, but for the library's version."""
    said = [{k: v for k, v in each.items() if not k.startswith("_diffusers")} for each in (config, settings)]
    return hashlib.sha256(dumps(said, sort_keys=True).encode()).hexdigest()


def names(model: ScoreModel) -> list[str]:
    """The files and folders that `write_model` makes."""
    return sorted({*MODEL, *(name.split("/")[0] for name in (*_kept(model), *score_sde.made(model)))})


def _kept(model: ScoreModel) -> dict[str, bytes]:
    """The files that are written beside ours: those that came with the model, or what diffusers needs to load it."""
    kept = dict(model.origin.kept) if model.origin is not None else {}
    if (made := scheduler_of(model)) is None:
        return kept
    there = [kept[name] for name in sorted(kept) if name.endswith("scheduler_config.json")]
    scheduler = there[0] if there else dumps(made, indent=2).encode()
    if PIPELINE not in kept:
        pipeline = pipeline_of(loads(scheduler).get("_class_name", made["_class_name"]))
        kept = {SCHEDULER: scheduler, PIPELINE: dumps(pipeline, indent=2).encode(), **kept}
    elif not there:
        kept[SCHEDULER] = scheduler
    return kept


def _before(out: Path) -> list[str]:
    """What an earlier model of ours has put into the folder, by its own word."""
    if not (out / SCORE).is_file():
        return []
    try:
        settings = read_json(out / SCORE)
        beside = [*settings.get("kept", []), *settings.get("made", [])]
        return [*OURS, *(name for name in beside if _inside(name))]
    except UserError:
        return list(OURS)


def _inside(name: object) -> bool:
    """Whether this names a file in the folder that it is relative to."""
    return isinstance(name, str) and 0 < len(name) < 200 and not {"..", "/"} & set(PurePosixPath(name).parts)


def _describe(model: ScoreModel) -> dict[str, Any]:
    kind = next(name for name, cls in PROCESSES.items() if type(model.sde) is cls)
    network = model.network
    described = {
        "sde": {"kind": kind, **asdict(model.sde)},
        "prediction": model.prediction,
        **asdict(model.precondition),
        "patch": model.patch,
        "shape": list(model.shape),
        "space": asdict(model.space),
    }
    chosen = {"class_label": network.class_label} if isinstance(network, Chosen) else {}
    origin = {"family": model.origin.family} if model.origin is not None else {}
    return {**described, **chosen, **origin}


def configuration(model: ScoreModel) -> dict[str, Any]:
    """What a model's folder says of it but for the weights; `UserError` for a network that cannot be saved."""
    network = {k: v for k, v in config_of(model.network).items() if k != "_diffusers_version"}
    return {"network": network, **_describe(model)}


def read(root: Path, *, module_factory: str | None = None) -> ScoreModel:
    """A model folder of ours. Raises `UserError` naming the file that is missing, broken or of another model.

    ``module_factory`` names the function that makes the network, where code of the user's does.
    """
    refuse_half_written(root)
    settings, path = read_json(root / SCORE), root / SCORE
    try:
        model, channels, label = _model(settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} does not describe a score model: {str(error)[:80]}") from None
    record = read_record(root / RECORD)
    where, weights = root / "unet" / "config.json", root / "unet" / WEIGHTS
    config = read_json(where)
    made = None if module_factory is None else module.make(module_factory, None).network
    given = stored(weights)
    network = read_network(config, given, where, made=made, factory=module_factory or "")
    both = config.get("out_channels") == 2 * channels and config.get("in_channels") == channels
    model.network = Chosen(network, channels=channels, class_label=label) if both or label is not None else network
    found = weights_sha256(model.network)
    if found != record["weights_sha256"]:
        raise UserError(
            f"{weights} ({found[:12]}…) is not what {root / RECORD} is about ({record['weights_sha256'][:12]}…): "
            f"one was changed or belongs to another model; copy or make the folder again"
        )
    if given.metadata.get(MARK, "1") not in ("1", _described(config, settings)):
        raise UserError(
            f"{path} or {where} is not what {weights} was saved with: it was changed or belongs to another model; copy "
            f"or make the folder again"
        )
    model.record = record
    kept = {name: (root / name).read_bytes() for name in settings.get("kept", []) if (root / name).is_file()}
    notes = tuple(chosen_of(config, label)) if both or label is not None else ()
    model.origin = Origin(family=settings.get("family", "msgm"), weights=f"unet/{WEIGHTS}", kept=kept, notes=notes)
    return model


def _model(settings: Mapping[str, Any]) -> tuple[ScoreModel, int, int | None]:
    """The model that score.json describes, without its network; the channels of that, and its class."""
    kind = PRECONDITIONS[settings["prediction"]]
    shape, patch = settings["shape"], settings["patch"]
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape) or len(shape) not in (1, 3):
        raise UserError(f"shape is (channels, height, width) or (numbers,); got {str(shape)[:40]}")
    sides = shape[1:]
    if (sides and max(shape) > LARGEST_SIDE) or shape[0] > LARGEST_VECTOR:
        raise UserError(f"images of shape {shape} are larger than {LARGEST_SIDE} pixels a side")
    if type(patch) is not int or patch < 1 or any(side % patch for side in sides):
        raise UserError(f"patch is a whole number that divides the images' sides; got {str(patch)[:40]}")
    label = settings.get("class_label")
    if label is not None and (type(label) is not int or label < 0):
        raise UserError(f"class_label is a whole number from 0; got {str(label)[:40]}")
    if not isinstance(settings.get("family", ""), str) or not all(map(_inside, settings.get("kept", []))):
        raise UserError("family is a word, and kept a list of files in the folder")
    model = ScoreModel(
        nn.Identity(),
        _process(settings["sde"]),
        shape=tuple(shape),
        precondition=kind(**{name: settings[name] for name in ("sigma_data", "per_nat") if name in settings}),
        patch=patch,
        space=Space(**settings.get("space", {})),
    )
    return model, shape[0] * patch**2 if sides else shape[0], label


def _process(config: Mapping[str, Any]) -> SDE:
    constants = {name: value for name, value in config.items() if name != "kind"}
    if config.get("kind") not in PROCESSES:
        raise UserError(f"the process {str(config.get('kind'))[:40]!r} is unknown; known: {', '.join(PROCESSES)}")
    if constants.get("betas") is not None:
        constants["betas"] = tuple(constants["betas"])
    return PROCESSES[config["kind"]](**constants)


TEXTS = ("kind", "command")
TABLES = ("request", "method", "settings", "parent", "data", "loaded", "versions", "selection")


def read_record(path: Path) -> dict[str, Any]:
    """moderation.json without its seal; UserError for one that is not what it should be, or was changed since."""
    if not path.is_file():
        raise UserError(f"{path} is missing: the folder is half-written, or its record was removed; make it again")
    record = read_json(path)
    for kind, names in ((str, (*TEXTS, "weights_sha256")), (dict, TABLES)):
        for name in names:
            if name in record and record[name] is not None and not isinstance(record[name], kind):
                raise UserError(f"{path}: {name} is no {'text' if kind is str else 'table'}; copy the folder again")
    rule = (record.get("request") or {}).get("rule", "")
    if not isinstance(rule, str):
        raise UserError(f"{path}: the request's rule is no text; copy the folder again")
    if len(record.get("weights_sha256") or "") != 64:
        raise UserError(f"{path} names no weights (weights_sha256): whose record it is cannot be told; copy it again")
    ledger.check(record, path)
    record.pop("seal", None)
    return record
