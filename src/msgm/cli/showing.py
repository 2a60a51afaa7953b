"""The command that reads a model's chain of records: show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data import parts, request_of
from ..errors import UserError
from ..formats import load
from ..formats.ledger import chain, digest
from ..formats.native import EMBEDDED, RECORD, embedded
from ..storage import read_json


def show(model: str) -> None:
    """The chain of a model's records: what it was made for and to forget, step by step, each linked to the one before.

    Links, seal and weights are checked; what was changed since is named, and the exit status is 2. The last line has
    the hash of the newest record: kept elsewhere, it shows a chain that was forged as a whole.

    Args:
        model: a model folder of ours, or demo.
    """
    place = (embedded("model") if model == EMBEDDED else Path(model)) / RECORD
    if not place.is_file():
        raise UserError(f"{model} has no record: it is no model folder of msgm; see msgm inspect {model}")
    record = load(model).record  # compares weights, seal and links
    if "seal" not in read_json(place):
        raise UserError(f"{place} has no seal: it was taken away, or is older than seals; what it says is not checked")
    entries, asked = chain(record), set[Any]()
    for number, entry in enumerate(entries, 1):
        first, *others = _told(entry, asked)
        print(f"{number:>2}  {first}", *(f"    {line}" for line in others), sep="\n")
    linked = "records, each linked to the one before" if len(entries) > 1 else "record"
    print(f"{len(entries)} {linked}; the weights are the last one's; its hash is {digest(record)}")


def _told(entry: Mapping[str, Any], asked: set[Any]) -> list[str]:
    """An entry in lines; ``asked`` has the requests of those before it, and gets its own."""
    method, settings = (entry.get("method") or {}).get("name"), entry.get("settings") or {}
    run = f" by {method}, {settings.get('steps')} steps of {settings.get('batch')}, seed {entry.get('seed')}"
    status = (entry.get("status") or {}).get("kind", "finished")
    head = entry.get("kind") or "read from files of another family"
    lines = [f"{head}{run if method else ''}{'' if status == 'finished' else f' ({status})'}"]
    if type(step := entry.get("recovered")) is int:
        lines.append(f"  diverged once, at step {step}, and went on at half the learning rate")
    request = entry.get("request")
    if request:
        for each in parts(request_of(request)):
            lines.append(f"  {'again ' if each in asked else ''}forget {each.words}")
            asked.add(each)
        lines.append(f"  in all {request.get('forget')} images, {request.get('retain')} retained")
    lines += [f"  leaving aside: forget {request_of(each).words}" for each in entry.get("ignored", [])]
    data = entry.get("data")
    if data:
        lines.append(f"  data {data.get('name')}, {data.get('images')} images, sha256 {str(data.get('sha256'))[:16]}…")
    return [*lines, f"  weights {str(entry.get('weights_sha256'))[:16]}…"]
