"""A model for the hub: its folder, with a card made from its record and its audit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data import parts, request_of
from ...errors import UserError
from ...formats import describe, save
from ...formats.ledger import chain, digest
from ...formats.schedulers import PIPELINE
from ...formats.tensors import weights_sha256
from ...metrics.measured import Measured
from ...model.score import ScoreModel
from ...storage import read_json, write_bytes

CARD = "README.md"
TASK = "unconditional-image-generation"


def prepare(
    model: ScoreModel, out: Path, *, licence: str, name: str, base: str | None = None, audit: Path | None = None
) -> None:
    """Write the model's folder and its card (README.md).

    Args:
        model: the model, as loaded.
        out: folder to write.
        licence: of the weights, by the hub's name of it.
        name: of the model, on the hub.
        base: the hub's name of the model that it was made from; by default as the first of its commands has it.
        audit: an audit.json of these weights, whose numbers become the hub's evaluation entries.

    Raises UserError for an audit of other weights.
    """
    found = read_audit(audit, weights_sha256(model.network)) if audit is not None else None
    save(model, out, overwrite=True)
    text = card(
        model, licence=licence, name=name, base=base or base_of(model.record), audit=found,
        pipeline=(out / PIPELINE).is_file(),
    )  # fmt: skip
    write_bytes(out / CARD, text.encode())


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Make the hub's repository of this name, if there is none, and put the folder there; its address.

    Raises UserError where the hub cannot be reached, or says no.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    hub = HfApi()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=name, folder_path=folder, commit_message=f"{name}, by msgm"))
    except HFValidationError as error:
        raise UserError(f"{name!r} is no name of a model on the hub, OWNER/NAME ({error})", option="to") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        words = " ".join(str(error).split())[:160]
        raise UserError(f"the hub did not take {name}: {words}; log in with hf auth login, and be online") from None


def read_audit(path: Path, sha256: str) -> dict[str, Any]:
    """An audit.json of the weights with this hash; UserError for one of others."""
    found = read_json(path)
    of = (found.get("weights_sha256") or {}).get("model")
    if of != sha256:
        raise UserError(f"{path} is an audit of other weights ({str(of)[:12]}…, not {sha256[:12]}…); audit this model")
    return found


def base_of(record: Mapping[str, Any]) -> str | None:
    """The hub's name of the model that the first run on record started from, where its command has one."""
    for entry in chain(record):
        words = shlex.split(entry.get("command") or "")
        if words[:2] == ["msgm", "unlearn"] and len(words) > 2:
            name = words[2]
            return name if name.count("/") == 1 and not name.startswith((".", "/", "~", "runs/")) else None
    return None


def card(
    model: ScoreModel,
    *,
    licence: str,
    name: str,
    base: str | None = None,
    audit: Mapping[str, Any] | None = None,
    pipeline: bool = False,
) -> str:
    """The model's card: what the hub reads, then what people read; ``pipeline``: diffusers loads the folder."""
    from huggingface_hub import ModelCardData

    record = model.record
    data = record.get("data") or {}
    facts = ModelCardData(
        license=licence, base_model=base, library_name="diffusers", pipeline_tag=TASK,
        tags=["unlearning", "msgm"], model_name=name, eval_results=_entries(data, audit) or None,
    )  # fmt: skip
    sections = [f"# {name.split('/')[-1]}", *_told(model), *_measured(audit), *_used(name, pipeline), *_checked(record)]
    return f"---\n{facts.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _numbers(audit: Mapping[str, Any], subject: str) -> dict[str, Measured]:
    numbers = audit["attacks"]["ask"]["numbers"].get(subject, {})
    return {key: Measured.from_dict(each) for key, each in numbers.items()}


def _entries(data: Mapping[str, Any], audit: Mapping[str, Any] | None) -> list[Any]:
    from huggingface_hub import EvalResult

    name = str(data.get("name", "unknown"))
    entries = []
    for each in _numbers(audit, "model").values() if audit is not None else ():
        if each.value is None:
            continue
        known = f"95 % interval {each.low:.4g} to {each.high:.4g}, {each.n} samples" if each.interval else None
        entries.append(
            EvalResult(
                task_type=TASK, dataset_type=name, dataset_name=name, dataset_split="test",
                metric_type=each.name.lower().replace(" ", "_"), metric_name=each.name, metric_value=each.value,
                metric_config=known,
            )
        )  # fmt: skip
    return entries


def _told(model: ScoreModel) -> list[str]:
    """What it was made to forget, step by step."""
    lines = []
    for entry in chain(model.record):
        method, settings = (entry.get("method") or {}).get("name"), entry.get("settings") or {}
        made = f" by `{method}`, {settings.get('steps')} steps of {settings.get('batch')}" if method else ""
        lines.append(f"1. {entry.get('kind') or 'read from files of another family'}{made}{_asked(entry)}")
    request = model.record.get("request")
    said = f"made to forget `{request_of(request).words}`" if request else "not asked to forget anything"
    data = model.record.get("data") or {}
    where = [f"Images: {data['name']}, {data.get('images')} of them, SHA-256 `{data.get('sha256')}`."] if data else []
    return [f"{describe(model)}. It was {said}.", "## How it was made", "\n".join(lines), *where]


def _asked(entry: Mapping[str, Any]) -> str:
    request = entry.get("request")
    if not request:
        return ""
    words = "; ".join(f"forget `{each.words}`" for each in parts(request_of(request)))
    return f": {words} ({request.get('forget')} images, {request.get('retain')} retained)"


def _measured(audit: Mapping[str, Any] | None) -> list[str]:
    if audit is None:
        return ["## Audit", "None: nothing is claimed of what this model still makes."]
    model, parent = _numbers(audit, "model"), _numbers(audit, "parent")
    rows = [
        f"| {each.heading} | {each.text()} | {parent[key].text() if key in parent else '–'} |"
        for key, each in model.items()
    ]
    table = ["| asked for nothing | this model | its parent |", "| --- | --- | --- |", *rows]
    notes = "In brackets 95 % intervals. UR: share of samples that the judge takes for what was to be forgotten."
    return ["## Audit", str(audit["verdict"]), "\n".join(table), notes, str(audit["judge"]["text"])]


def _used(name: str, pipeline: bool) -> list[str]:
    loaded = f"model = msgm.load({name!r})\nimages = msgm.Heun(model).sample(16, seed=0)"
    code = f"import msgm\n\n{loaded}"
    if pipeline:
        loaded = f"pipeline = DiffusionPipeline.from_pretrained({name!r})\nimages = pipeline(batch_size=16).images"
        code = f"from diffusers import DiffusionPipeline\n\n{loaded}"
    return ["## Use", f"```python\n{code}\n```"]


def _checked(record: Mapping[str, Any]) -> list[str]:
    told = "`moderation.json` has the whole record; `msgm show` checks it and the weights."
    return ["## Record", f"{told} Its hash is `{digest(record)}`." if record else told]
