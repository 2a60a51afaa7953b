"""What a command leaves behind: results.json and a one-file HTML report."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..storage import write_bytes
from .pictures import Curves, loss_figure, png, svg
from .results import Results
from .tables import Sheet, judged_sheets, results_sheet
from .verdict import verdict

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGE = Path(__file__).parents[1]


def commit(folder: str | Path | None = None) -> str | None:
    """Hash of the git commit that ``folder`` (default: this package) is checked out from, or packed from.

    A bundle (scripts/bundle.py) says so in a file COMMIT. None when neither does: a wheel in a virtual environment
    inside some checkout is not that commit.
    """
    place = str(PACKAGE if folder is None else folder)
    packed = PACKAGE / "COMMIT"
    if folder is None and packed.is_file():
        return packed.read_text(encoding="utf-8").strip() or None
    # Inside a git hook these variables point at another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        tracked, head = (
            subprocess.run(
                ["git", "-C", place, *arguments],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
                env=env,
            ).stdout.strip()
            for arguments in (("ls-files", "--", "."), ("rev-parse", "HEAD"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head if tracked else None


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` (JSON values, or anything with ``to_dict``) atomically; NaN and infinity become null."""
    write_bytes(Path(path), (_json(obj) + "\n").encode())


def write_html(
    path: str | Path,
    results: Results | Mapping[str, Any],
    *,
    title: str,
    answer: str | None = None,
    sheets: Sequence[Sheet] | None = None,
    figures: Sequence[tuple[str, bytes]] = (),
    grids: Sequence[tuple[str, Tensor | Image]] = (),
    curves: Curves | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """One HTML file with everything in it, written atomically; nothing in it is fetched from elsewhere.

    What it answers stands first, then pictures and tables, and last how it was made, folded away. ``answer``: a
    sentence; by default the `verdict` on ``results``. ``sheets``: its tables; by default those of the rows of
    ``results``, which otherwise may be any JSON object with command, seed, commit and budget. ``figures``: (caption,
    PNG file), as wide as the page. ``grids``: (caption, uint8 (C, H, W) or PIL image), shown side by side. ``curves``:
    as in `loss_figure`. ``records``: for each model, what was forgotten and how. All text is escaped.
    """
    from jinja2 import Environment, StrictUndefined

    source = files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    data = plain(results)
    if sheets is None:
        assert isinstance(results, Results)
        sheets = [results_sheet(results), *judged_sheets(results)]
    if answer is None:
        assert isinstance(results, Results)
        answer = verdict(results)
    page = environment.from_string(source).render(
        title=title,
        answer=answer,
        results=data,
        sheets=sheets,
        figures=[(caption, _url(content)) for caption, content in figures],
        grids=[(caption, _data_url(image)) for caption, image in grids],
        figure=svg(loss_figure(curves)) if curves else None,
        records={name: (plain(record), _json(record)) for name, record in (records or {}).items()},
        raw=_json(data),
        notes=notes,
    )
    write_bytes(Path(path), page.encode())


def plain(obj: Any) -> Any:
    """JSON values only: what JSON has no number for is null, what it has no value for is its text."""
    if hasattr(obj, "to_dict"):
        return plain(obj.to_dict())
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    return obj if obj is None or isinstance(obj, str | int) else str(obj)


def _json(obj: Any) -> str:
    return json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False)


def _data_url(image: Tensor | Image) -> str:
    return _url(png(image))


def _url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
