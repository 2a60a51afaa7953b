"""The commands that read a model and say what it is, or write it down as ours; and how all the others read one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data import request_of
from ..folders import vacant
from ..formats import Reading, describe, save
from ..formats.networks import bare, config_of
from ..formats.tensors import weights_sha256
from ..model.score import ScoreModel


def read_model(name: str, reading: Reading = Reading()) -> ScoreModel:
    """`formats.load`, which says in one line how the model was read."""
    model = reading.load(name)
    print(f"{name}: {describe(model)}", flush=True)
    return model


def read_models(names: Sequence[str], reading: Reading) -> dict[str, ScoreModel]:
    """Several; what is chosen is for those that are not ours, and refused where all are."""
    chosen = {name: reading.beside(name) for name in names}
    if reading not in chosen.values():
        chosen[names[-1]] = reading
    return {name: read_model(name, each) for name, each in chosen.items()}


def inspect(
    model: str,
    *,
    reading: Reading = Reading(),
) -> None:
    """How a model is read: family, process, prediction, size, weights, and what its record says.

    Args:
        model: folder or file of a model, name of one on the hub, or demo.
        reading: Reading
    """
    read = read_model(model, reading)
    network, record, origin = bare(read.network), read.record, read.origin
    said: dict[str, object] = {
        "process": read.sde,
        "precondition": read.precondition,
        "images": f"{read.shape}, {read.space}, folded by {read.patch}",
        "network": f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()):,} weights",
        "configuration": ", ".join(f"{k}={v}" for k, v in config_of(read.network).items() if not k.startswith("_")),
        "weights_sha256": weights_sha256(read.network),
        "kept beside": ", ".join(sorted(origin.kept)) if origin is not None else "",
        **{key: record[key] for key in ("kind", "status", "command", "seed") if key in record},
        "request": request_of(record["request"]).words if record.get("request") else None,
        "parent": (record.get("parent") or {}).get("weights_sha256"),
    }
    for key, value in said.items():
        if value not in (None, ""):
            print(f"  {key:<16}{value}")


def convert(
    model: str,
    *,
    out: Path,
    reading: Reading = Reading(),
    half: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a model of another family down as a folder of ours; diffusers reads it where it knows the process.

    Args:
        model: folder or file of a model, name of one on the hub, or demo.
        out: folder to write.
        reading: Reading
        half: store the weights as float16.
        overwrite: replace what is in the output folder.
    """
    vacant(out, overwrite=overwrite)
    read = read_model(model, reading)
    save(read, out, overwrite=overwrite, half=half)
    print(f"saved {out}")
