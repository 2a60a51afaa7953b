"""A judge's configuration, read with suspicion: every entry is what it should be, or it is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..storage import read_json

MOST_CLASSES, MOST_WIDE, LARGEST_SIDE, LEAST_SIDE = 10_000, 1024, 1024, 4


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a judge's folder. Raises UserError naming the entry that is not what it should be."""
    config = read_json(path)
    try:
        problem = _problem(config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = str(error)[:60]
    if problem:
        raise UserError(f"{path} is not a judge's configuration ({problem}); copy the folder again")
    return config


def _problem(config: Mapping[str, Any]) -> str:
    classes, names, shape, record = (config[key] for key in ("classes", "names", "shape", "record"))
    if not _whole_numbers(classes) or len(classes) > MOST_CLASSES or not all(abs(label) < 2**63 for label in classes):
        return f"classes are at most {MOST_CLASSES} whole numbers"
    if not _are(names, str) or len(names) != len(classes):
        return "names are words, one for each class"
    if not _whole_numbers(shape) or len(shape) != 3 or shape[0] not in (1, 3) or max(shape) > LARGEST_SIDE:
        return f"shape is channels, height and width up to {LARGEST_SIDE}"
    network, column = config["network"], config["column"]
    if "clip" in network:
        if not isinstance(network["clip"], str) or not isinstance(network["prompt"], str):
            return "the network's clip and prompt are words"
    elif type(network["width"]) is not int or not 1 <= network["width"] <= MOST_WIDE:
        return f"the network's width is a whole number up to {MOST_WIDE}"
    if not isinstance(column, str) or not isinstance(config["weights_sha256"], str):
        return "column and weights_sha256 are words"
    return _of_record(record, len(classes) + 1)


def _of_record(record: Any, outputs: int) -> str:
    if not isinstance(record, dict):
        return "record is a table"
    recall = record.get("junk_recall", {})
    if not isinstance(recall, dict) or not all(type(v) in (int, float) and 0 <= v <= 1 for v in recall.values()):
        return "record.junk_recall has shares by kind"
    data = record.get("data", {})
    if not isinstance(data, dict) or not all(isinstance(part, dict) for part in data.values()):
        return "record.data is a table of tables"
    if not all(isinstance(part.get("name", ""), str) for part in data.values()):
        return "record.data has names"
    # Without its errors on record what it says is no evidence; whoever trains a judge measures it.
    rows: Any = record.get("confusion")
    fine = _are(rows, list) and all(_whole_numbers(row) and len(row) == outputs for row in rows)
    if not fine or len(rows) != outputs or min(map(min, rows)) < 0 or not sum(map(sum, rows[:-1])):
        return f"record.confusion counts test images in {outputs} rows of {outputs}"
    return ""


def _are(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(each) is kind for each in value)


def _whole_numbers(value: Any) -> bool:
    return _are(value, int)
