"""Pages of which marked blocks are generated: ``<!-- name:begin -->`` to ``<!-- name:end -->``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"<!-- (\w[\w-]*):begin -->\n.*?<!-- \1:end -->", re.DOTALL)


def filled(text: str, made: Mapping[str, str]) -> str:
    """The text with each of ``made`` in its block; a block without one is a KeyError."""
    return _BLOCK.sub(lambda match: f"<!-- {match[1]}:begin -->\n{made[match[1]]}\n<!-- {match[1]}:end -->", text)


def fill(page: Path, made: Mapping[str, str], *, check: bool) -> int:
    """Fill the blocks of a page; with ``check`` only say, as exit status, if they are filled."""
    text = page.read_text()
    whole = filled(text, made)
    if check:
        return int(whole != text)
    page.write_text(whole)
    return 0


def picture(source: Path, name: str, colours: int = 64) -> None:
    """Put a figure into docs/images under this name, in 64 colours: enough, at a third of the size. Photos want 256."""
    from PIL import Image

    Image.open(source).convert("RGB").quantize(colours).save(ROOT / "docs/images" / name, optimize=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.strip() for cell in line) + " |" for line in lines)
