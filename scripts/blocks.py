"""The generated parts of a page: what stands between <!-- NAME:begin --> and <!-- NAME:end -->."""

import re
from collections.abc import Mapping, Sequence

BLOCK = re.compile(r"<!-- (\w[\w-]*):begin -->\n.*?<!-- \1:end -->", re.DOTALL)


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """The page with these blocks; a name that it has and they have not is a KeyError."""
    return BLOCK.sub(lambda m: f"<!-- {m[1]}:begin -->\n{blocks[m[1]]}\n<!-- {m[1]}:end -->", page)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.strip() for cell in line) + " |" for line in lines)
