"""What a command leaves behind: results.json, a screen table, sample grids, a one-file HTML report."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UserError
from ..storage import write_bytes
from .metrics import Rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from rich.table import Table

Measured = tuple[float, float | None]
"""Mean and its standard error (None where one value has none)."""
Curves = Mapping[str, Sequence[tuple[int, float, float | None]]]
"""For each model: (step, retain loss, forget loss or None)."""

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
_INK = "#5b6470"  # axes and text of figures; inside a page it becomes the page's own text colour


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
    """Hash of the git commit that ``folder`` (default: this package) is checked out from.

    None when git does not track it: a wheel in a virtual environment inside some checkout is not that commit.
    """
    place = str(Path(__file__).parent if folder is None else folder)
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


def grid(pixels: Tensor, columns: int = 10, scale: int = 2, gap: int = 2) -> Image:
    """Images uint8 (N, C, H, W), row by row, each enlarged ``scale`` times, ``gap`` grey pixels between them.

    Fewer images than ``columns`` make a narrower picture. Raises UserError for no image or another layout.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(pixels) == 0:
        raise UserError(
            "a grid takes one or more uint8 images of shape (N, C, H, W) with C = 1 or 3, "
            f"got {pixels.dtype} of shape {tuple(pixels.shape)}"
        )
    if columns < 1 or scale < 1 or gap < 0:
        raise UserError(f"a grid needs columns >= 1, scale >= 1 and gap >= 0, got {columns}, {scale} and {gap}")
    big = pixels.cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, channels, height, width = big.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = torch.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 96, dtype=torch.uint8)
    for index, image in enumerate(big):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return _image(canvas)


def png(image: Tensor | Image) -> bytes:
    """A PNG file of uint8 (C, H, W) or of a PIL image."""
    picture = _image(image) if isinstance(image, Tensor) else image
    with io.BytesIO() as buffer:
        picture.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()


def save_samples(folder: str | Path, pixels: Tensor, start: int = 0) -> None:
    """Write images uint8 (N, C, H, W) as 00000.png, 00001.png, ... in ``folder``, numbered from ``start``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(pixels, start):
        _image(image).save(folder / f"{index:05d}.png")


def loss_figure(curves: Curves) -> Figure:
    """Retain loss and, where some method has one, forget loss by step; long curves also smoothed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {**dict.fromkeys(inked, _INK), "text.parse_math": False, "legend.frameon": False}
    with rc_context(style):
        has_forget = any(point[2] is not None for curve in curves.values() for point in curve)
        panels = (("retain loss", 1), ("forget loss", 2))[: 1 + has_forget]
        figure = Figure(figsize=(4.8 * len(panels), 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        for axes, (label, column) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            everything = []
            for index, (name, curve) in enumerate(curves.items()):
                points = [(point[0], float(value)) for point in curve if (value := point[column]) is not None]
                if not points:
                    continue
                steps, values = zip(*points, strict=True)
                everything += [value for value in values if math.isfinite(value)]
                window, line = len(points) // 20, {"color": f"C{index}", "linewidth": 1.6}
                if window > 1:
                    axes.plot(steps, values, **{**line, "alpha": 0.25, "linewidth": 0.8})
                    tail = torch.tensor(values, dtype=torch.float64).unfold(0, window, 1).mean(1)
                    steps, values = steps[window - 1 :], tuple(tail.tolist())
                axes.plot(steps, values, label=name, **line)
            if everything and 0 < 20 * min(everything) < max(everything):
                axes.set_yscale("log")
            axes.set(xlabel="step", ylabel=label)
            axes.patch.set_alpha(0)
            axes.spines[["top", "right"]].set_visible(False)
            if axes.lines:
                axes.legend()
    return figure


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

    ``sheets``: its tables; by default one of the rows of ``results``, which otherwise may be any JSON object with
    command, seed, commit and budget. ``figures``: (caption, PNG file), as wide as the page.
    ``grids``: (caption, uint8 (C, H, W) or PIL image), shown side by side. ``curves``: as in `loss_figure`.
    ``records``: for each model, what was forgotten and how. All text is escaped.
    """
    from jinja2 import Environment, StrictUndefined

    source = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    data = plain(results)
    if sheets is None:
        assert isinstance(results, Results)
        sheets = [results_sheet(results)]
    page = environment.from_string(source).render(
        title=title,
        results=data,
        sheets=sheets,
        figures=[(caption, _url(content)) for caption, content in figures],
        grids=[(caption, _data_url(image)) for caption, image in grids],
        figure=_svg(loss_figure(curves)) if curves else None,
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


def _image(pixels: Tensor) -> Image:
    """The PIL image of uint8 (C, H, W), C = 1 or 3."""
    from PIL import Image

    array = pixels.cpu().permute(1, 2, 0).squeeze(-1).contiguous().numpy()
    return Image.fromarray(array)


def _data_url(image: Tensor | Image) -> str:
    return _url(png(image))


def _url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def write_figure(figure: Figure, path: Path) -> bytes:
    """``path`` with .png and .svg, each written whole and without a date; returns the PNG."""
    from matplotlib import rc_context

    content = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        with rc_context({"svg.hashsalt": "msgm"}), io.BytesIO() as buffer:
            figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
            content[kind] = buffer.getvalue()
        write_bytes(path.with_suffix(f".{kind}"), content[kind])
    return content["png"]


def _svg(figure: Figure) -> Any:
    """The figure as inline SVG in the page's own colour and font, marked as needing no escape."""
    from markupsafe import Markup
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "msgm"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    # Inline, the XML prolog and the name spaces say nothing.
    text = text[text.index("<svg") :].replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    text = text.replace(' xmlns="http://www.w3.org/2000/svg"', "").replace(_INK, "currentColor")
    return Markup(text)
