"""Pages of which marked blocks are generated: ``<!-- name:begin -->`` to ``<!-- name:end -->``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"<!-- (\w[\w-]*):begin -->\n.*?<!-- \1:end -->", re.DOTALL)


def fill(page: Path, made: Mapping[str, str], *, check: bool) -> int:
    """Put each text of ``made`` into its block; with ``check`` only say, as exit status, whether all of them are."""
    text = page.read_text()
    filled = _BLOCK.sub(lambda match: f"<!-- {match[1]}:begin -->\n{made[match[1]]}\n<!-- {match[1]}:end -->", text)
    if check:
        return int(filled != text)
    page.write_text(filled)
    return 0


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.strip() for cell in line) + " |" for line in lines)
