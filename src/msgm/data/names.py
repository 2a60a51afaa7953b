"""Names of classes and files: one way to write each, and the numbers of classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def nfc(name: str) -> str:
    """The name as it is compared: macOS writes the é of a file's name as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def whole_numbers(names: Sequence[str]) -> list[int] | None:
    """The names as numbers, if all are and no two are the same."""
    if not names or not all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names):
        return None
    numbers = [int(name) for name in names]
    return numbers if len(set(numbers)) == len(numbers) else None


def numbered(names: Sequence[str], more: Sequence[str] = ()) -> dict[str, int]:
    """Each name's number: itself, if all are whole numbers, else its place; ``more`` come after ``names``."""
    known = set(names)
    every = [*names, *(name for name in more if name not in known)]
    if (numbers := whole_numbers(every)) is None:
        first = whole_numbers(names) or range(len(names))
        free = max(first, default=-1) + 1
        numbers = [*first, *range(free, free + len(every) - len(names))]
    return dict(zip(every, numbers, strict=True))
