"""What a run is made of: its images, what each counts, what it will have on record, and what resuming must find."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from torch import Tensor

from ..data import Images, Split
from ..errors import UserError
from ..forgetting.methods import Method
from ..formats.native import configuration
from ..model.score import ScoreModel
from .runtime import Runtime
from .settings import TrainSettings


def sets(
    model: ScoreModel, data: Images | Split, method: Method, settings: TrainSettings
) -> tuple[Images, Images | None]:
    """The images to keep, and those to forget where a term asks for them."""
    if isinstance(data, Images):
        if method.forget is not None or not method.sees_forget:
            raise UserError(f"method {method.name} needs to know what to forget; give a request", option="forget")
        retain, forget = data, None
    elif method.sees_forget:
        retain, forget = data.retain.join(data.forget), None
    else:
        retain, forget = data.retain, data.forget if method.forget is not None else None
    (data if isinstance(data, Images) else data.whole).check_shape(model.shape)
    if low := {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.dtype.itemsize < 4}:
        raise UserError(f"the model's weights are {', '.join(sorted(low))}, where small steps are lost; use .float()")
    if settings.flip and len(model.shape) != 3:
        raise UserError("flip mirrors images, and the data are vectors; leave it out")
    return retain, forget


def counts(method: Method, confidence: Tensor | None, rows: int) -> Tensor | None:
    """What each retained row counts: confidence^power, of mean 1; None where all count alike."""
    if not method.power:
        return None
    if confidence is None:
        raise UserError(f"method {method.name} weighs images by a judge's confidence; give it", option="confidence")
    powers = confidence.detach().cpu().float() ** method.power
    if powers.shape != (rows,) or not bool((confidence >= 0).all() & (confidence <= 1).all() & powers.any()):
        raise UserError(f"confidence must be {rows} numbers in [0, 1], not all 0; got shape {tuple(confidence.shape)}")
    return powers / powers.mean()


def record(
    model: ScoreModel,
    data: Images | Split,
    *,
    kind: str,
    method: Method,
    settings: TrainSettings,
    weights: Tensor | None,
    runtime: Runtime,
    command: str,
) -> dict[str, Any]:
    """What the model's folder will say of the run but for how it ended; ``weights`` are what the rows count."""
    whole = data if isinstance(data, Images) else data.whole
    return {
        "format": 1,
        **model.record,
        "kind": kind,
        "data": whole.to_dict(),
        **({} if isinstance(data, Images) else {"request": data.to_dict(), "forgotten_sha256": data.forget.digest}),
        **({} if weights is None else {"confidence_sha256": hashlib.sha256(weights.numpy().tobytes()).hexdigest()}),
        "method": method.to_dict(),
        "settings": asdict(settings),
        "seed": settings.seed,
        "runtime": runtime.to_dict(),
        "command": command,
        "versions": {name: version(name) for name in ("msgm", "torch", "diffusers")},
    }


def identity(record: Mapping[str, Any], model: ScoreModel, runtime: Runtime) -> dict[str, Any]:
    """All that a run's numbers depend on, of its record and its model."""
    apart = ("command", "versions", "earlier", "previous")  # the parent's weights are in it
    parts = {k: v for k, v in record.items() if k not in apart}
    parts["data"] = record["data"]["sha256"]  # whichever place they were read from
    parts["settings"] = {k: v for k, v in record["settings"].items() if k != "save_every"}
    parts["runtime"] = runtime.identity
    parts["model"] = configuration(model)
    return parts
