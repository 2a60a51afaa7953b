"""What a command leaves behind: results.json, a screen table, a one-file HTML report."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import UserError
from ..metrics.shares import Rate
from ..storage import write_bytes
from .pictures import Curves, loss_figure, png, svg

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.table import Table

Measured = tuple[float, float | None]
"""Mean and its standard error (None where one value has none)."""

Columns = Mapping[str, Callable[["Row"], str]]
"""More columns of a table, by heading: the text of a row's cell."""

HEADINGS = (
    "Model",
    "Method",
    "UR % [low, high]",
    "junk %",
    "retained %",
    "NLL retain ± se",
    "NLL forget ± se",
    "seconds",
)
LEGEND = (
    "UR: share of all samples in the forget classes, with its 95 % interval; junk: neither forgotten nor "
    "retained. NLL in bits/dim, ± its standard error."
)
_KEYS = frozenset({"model", "method", "unlearning_ratio", "junk", "retained", "nll", "seconds"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model's measured numbers; None where something was not measured.

    Shares are in [0, 1]; NLLs are (mean, standard error) in bits/dim. ``extra`` adds keys to the JSON row.
    Raises UserError when one of them is a name that the schema has already.
    """

    model: str
    method: str
    unlearning_ratio: Rate | None = None
    junk: Rate | float | None = None
    retained: Rate | float | None = None
    nll_retain: Measured | None = None
    nll_forget: Measured | None = None
    seconds: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := _KEYS & set(self.extra):
            raise UserError(f"extra keys {sorted(taken)} are fields of a result row; give them other names")

    def to_dict(self) -> dict[str, Any]:
        """The row of results.json; the same keys whatever was measured."""
        rate = self.unlearning_ratio
        return {
            "model": self.model,
            "method": self.method,
            "unlearning_ratio": rate.to_dict() if rate else dict.fromkeys(("value", "low", "high", "n")),
            "junk": _share(self.junk),
            "retained": _share(self.retained),
            "nll": {
                name: dict(zip(("bits_per_dim", "stderr"), measured or (None, None), strict=True))
                for name, measured in (("retain", self.nll_retain), ("forget", self.nll_forget))
            },
            "seconds": self.seconds,
            **self.extra,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Row:
        """The inverse of `to_dict`; shares come back as plain numbers."""
        rate, nll = row["unlearning_ratio"], row["nll"]
        values = [(nll[name]["bits_per_dim"], nll[name]["stderr"]) for name in ("retain", "forget")]
        retain, forget = (None if value[0] is None else value for value in values)
        return cls(
            unlearning_ratio=None if rate["value"] is None else Rate(**rate),
            nll_retain=retain,
            nll_forget=forget,
            extra={key: value for key, value in row.items() if key not in _KEYS},
            **{key: row[key] for key in ("model", "method", "junk", "retained", "seconds")},
        )

    def cells(self) -> tuple[str, ...]:
        """The row as text under `HEADINGS`; an en dash where nothing was measured."""
        rate = self.unlearning_ratio
        interval = f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" if rate else "–"
        shares = (_share(self.junk), _share(self.retained))
        return (
            self.model,
            self.method,
            interval,
            *("–" if share is None else f"{100 * share:.1f}" for share in shares),
            *(_measured(nll) for nll in (self.nll_retain, self.nll_forget)),
            "–" if self.seconds is None else f"{self.seconds:.{0 if self.seconds >= 10 else 1}f}",
        )


@dataclass(frozen=True, kw_only=True)
class Results:
    """What results.json holds: the command, what it ran with, and a row for each model, in order."""

    command: str
    seed: int
    commit: str | None
    budget: Mapping[str, Any]
    rows: Sequence[Row]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "command": self.command,
            "seed": self.seed,
            "commit": self.commit,
            "budget": dict(self.budget),
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, results: Mapping[str, Any]) -> Results:
        """The inverse of `to_dict`."""
        rows = tuple(Row.from_dict(row) for row in results["rows"])
        return cls(**{key: results[key] for key in ("command", "seed", "commit", "budget")}, rows=rows)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table as text: ``rows`` of cells under ``headings``, and a ``legend`` that says what they are."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""


def commit(folder: str | Path | None = None) -> str | None:
    """Hash of the git commit that ``folder`` (default: this package) is checked out from, or packed from.

    A bundle (scripts/bundle.py) says so in a file COMMIT. None when neither does: a wheel in a virtual environment
    inside some checkout is not that commit.
    """
    place = str(Path(__file__).parent if folder is None else folder)
    packed = Path(place) / "COMMIT"
    if packed.is_file():
        return packed.read_text().strip() or None
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


def results_sheet(results: Results, more: Columns | None = None) -> Sheet:
    """The rows as text, with ``more`` columns at their end."""
    more = more or {}
    rows = [(*row.cells(), *(text(row) for text in more.values())) for row in results.rows]
    return Sheet(title="Results", headings=(*HEADINGS, *more), rows=rows, legend=LEGEND)


def judged_sheets(results: Results) -> list[Sheet]:
    """What the judge took the samples for, class by class: one table, or none where no row has ``judged``."""
    rows = [row for row in results.rows if row.extra.get("judged")]
    if not rows:
        return []
    names, cells = list(rows[0].extra["judged"]), []
    for row in rows:
        counts = row.extra["judged"]
        shares = (100 * counts[name] / sum(counts.values()) for name in names)
        cells.append((row.model, row.method, *(f"{share:.1f}" for share in shares)))
    legend = "Share of the samples, %. A kept class that has become rare is a cost that the unlearning ratio hides."
    return [Sheet(title="What the judge saw", headings=("Model", "Method", *names), rows=cells, legend=legend)]


def table(results: Results, more: Columns | None = None) -> Table:
    """The rows as a `rich` table, with ``more`` columns at its end."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, caption=LEGEND, caption_justify="left")
    sheet = results_sheet(results, more)
    for index, heading in enumerate(sheet.headings):
        # On 80 columns the errors of the NLLs go to a second line, and nothing else is broken.
        wraps = heading.startswith(("NLL", "retained")) or heading not in HEADINGS
        shown.add_column(
            heading.replace("[", r"\["),
            justify="left" if index < 2 else "right",
            no_wrap=not wraps,
            min_width=7 if wraps else None,
            overflow="fold",
        )
    for row in sheet.rows:
        shown.add_row(*map(Text, row))  # Text: a name with brackets is no markup
    return shown


def write_html(
    path: str | Path,
    results: Results | Mapping[str, Any],
    *,
    title: str,
    sheets: Sequence[Sheet] | None = None,
    figures: Sequence[tuple[str, bytes]] = (),
    grids: Sequence[tuple[str, Tensor | Image]] = (),
    curves: Curves | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """One HTML file with everything in it, written atomically; nothing in it is fetched from elsewhere.

    ``sheets``: its tables; by default those of the rows of ``results``, which otherwise may be any JSON object with
    command, seed, commit and budget. ``figures``: (caption, PNG file), as wide as the page.
    ``grids``: (caption, uint8 (C, H, W) or PIL image), shown side by side. ``curves``: as in `loss_figure`.
    ``records``: for each model, what was forgotten and how. All text is escaped.
    """
    from jinja2 import Environment, StrictUndefined

    source = files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    data = plain(results)
    if sheets is None:
        assert isinstance(results, Results)
        sheets = [results_sheet(results), *judged_sheets(results)]
    page = environment.from_string(source).render(
        title=title,
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


def _share(share: Rate | float | None) -> float | None:
    return share.value if isinstance(share, Rate) else share


def _measured(nll: Measured | None) -> str:
    if nll is None:
        return "–"
    mean, error = nll
    return f"{mean:.3f}" if error is None or math.isnan(error) else f"{mean:.3f} ± {error:.3f}"


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
