"""What a model was made to forget before: a new request must not train it back in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..data import FileRequest, ForgetRequest, ImageRequest, Images, Request, Split, parts, request_of, together
from ..data.rules import renumbered
from ..errors import UserError
from ..formats.ledger import chain

Earlier = Literal["forget", "ignore"]
"""Whether what was forgotten earlier is forgotten along with what is new, or may come back."""
FORGETS_NOTHING = "standard"


def requests(record: Mapping[str, Any]) -> list[tuple[Request, Mapping[str, Any]]]:
    """The requests that a model's chain of records met, the oldest first, each once, with its entry ``data``."""
    found: dict[Request, Mapping[str, Any]] = {}
    for entry in chain(record):
        if entry.get("request") and (entry.get("method") or {}).get("name") != FORGETS_NOTHING:
            for request in parts(request_of(entry["request"])):
                found.setdefault(request, entry.get("data") or {})
    return list(found.items())


def before(record: Mapping[str, Any], data: Images) -> Request | None:
    """All of them as one request, which can be asked of these images; None where there was none.

    Raises UserError where one cannot be: the images are another source's, or lack what it asks for.
    """
    found = requests(record)
    for request, entry in found:
        try:
            _check_same(request, entry, data)
            request.mask(data)
        except UserError as error:
            raise UserError(
                f"the model was made to forget {request}, and which images these are cannot be told here ({error}): "
                f"they could come back. Use the data of its record, or ignore what was asked earlier",
                option="earlier",
            ) from None
    return together(*(request for request, _ in found)) if found else None


def forgetting(split: Split, record: Mapping[str, Any], earlier: Earlier) -> tuple[Split, dict[str, Any]]:
    """The split with what was forgotten earlier moved to ``forget``; or the note, for the record, that it was not."""
    if earlier == "ignore":
        ignored = [request.to_dict() for request, _ in requests(record)]
        return split, {"ignored": ignored} if ignored else {}
    if earlier != "forget":
        raise UserError(f"earlier must be forget or ignore, not {earlier!r}", option="earlier")
    old = before(record, split.whole)
    return (split if old is None else split.also(old)), {}


def _check_same(request: Request, entry: Mapping[str, Any], data: Images) -> None:
    """UserError unless the request means of these images what it meant of those that a record names."""
    if entry.get("sha256") == data.digest:
        return
    told = data.to_dict()
    alike = all(entry.get(key) == told.get(key) for key in ("name", "labels"))
    if not alike or not isinstance(request, ForgetRequest | FileRequest | ImageRequest):
        raise UserError(f"these are images of {data.name}, not those of {entry.get('name', 'its record')}")
    same_classes(request, entry, data)


def same_classes(request: Request, entry: Mapping[str, Any], data: Images) -> None:
    """UserError where a number in a rule means another class of these images than of those that a record names."""
    before = _classes(entry)
    for each in parts(request) if before else ():
        if isinstance(each, ForgetRequest):
            for number, (was, now) in renumbered(each.rule, before, data.label_names).items():
                raise UserError(f"label {number} was {was!r}, and is {now!r} here; state it by name", option="forget")


def _classes(entry: Mapping[str, Any]) -> dict[int, str]:
    """The names of the classes that a record has; none in older records."""
    try:
        return {int(label): str(name) for label, name in dict(entry.get("classes") or {}).items()}
    except (TypeError, ValueError):
        raise UserError("the record's classes cannot be read; copy the model's folder again") from None
