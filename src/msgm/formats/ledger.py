"""The chain of a model's records: what it was made for, step by step, each record linked to the one before.

A record is an entry of the chain. ``earlier`` has its parent's entries, the oldest first; ``previous`` is the hash of
the last of them and ``seal`` that of the record itself. So a change after the fact shows. It does not show who wrote a
record: whoever makes all hashes anew forges it, unless the last one is kept elsewhere as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError

Record = Mapping[str, Any]
APART = ("earlier", "seal")
"""What is not part of an entry itself."""


def digest(record: Record) -> str:
    """SHA-256 (hex) of an entry: of its JSON with sorted keys, without those entries before it and its own seal."""
    content = {key: value for key, value in record.items() if key not in APART}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sealed(record: Record) -> dict[str, Any]:
    """The record with its seal, as it is written down."""
    return {**record, "seal": digest(record)}


def following(record: Record, weights_sha256: str) -> dict[str, Any]:
    """What the record of a child starts with: the entries up to its parent's, whose weights have this hash."""
    if not record:
        return {}
    entries = chain({**record, "weights_sha256": weights_sha256})
    return {"earlier": entries, "previous": digest(entries[-1])}


def chain(record: Record) -> list[dict[str, Any]]:
    """All entries, the oldest first and the record's own last."""
    return [*record.get("earlier", []), {key: value for key, value in record.items() if key not in APART}]


def check(record: Record, where: Path) -> None:
    """Raise UserError, naming the entry, for a chain in which something was changed, added or taken away."""
    earlier = record.get("earlier", [])
    if not isinstance(earlier, list) or not all(isinstance(entry, dict) for entry in earlier):
        raise UserError(f"{where}: its earlier records are no list of tables; copy the folder again")
    if "seal" in record and record["seal"] != digest(record):
        raise UserError(f"{where}: the record was changed after it was written (seal); copy the folder again")
    before: Record | None = None
    for number, entry in enumerate(chain(record), 1):
        expected = None if before is None else digest(before)
        if entry.get("previous") != expected:
            which = f"record {number - 1}" if before is not None else "the record before the first"
            raise UserError(
                f"{where}: {which} of the chain was changed or taken away (record {number} names the hash "
                f"{str(entry.get('previous'))[:12]}…, and it is {str(expected)[:12]}…); copy the folder again"
            )
        if before is not None and (entry.get("parent") or {}).get("weights_sha256") != before.get("weights_sha256"):
            raise UserError(f"{where}: record {number} is not of a child of the model of record {number - 1}")
        before = entry
