"""Results as text: tables for pages, and for a terminal in blocks that fit it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..metrics.quantities import ABOUT
from .results import Result, Results

if TYPE_CHECKING:
    from rich.table import Table

Columns = Mapping[str, Callable[[Result], str]]
"""More columns of a table, by heading: the text of a row's cell."""

NAMES = ("Model", "Method")


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table as text: ``rows`` of cells under ``headings``, and a ``legend`` that says what they are."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""

    @property
    def words(self) -> set[int]:
        """The columns that hold words; cells of the others are numbers, or empty."""
        return {
            place
            for place in range(len(self.headings))
            if place == 0 or not all(re.match(r"[-+±–†]*\d|[-–]?$|nan", row[place]) for row in self.rows)
        }


def columns(rows: Sequence[Result]) -> dict[str, str]:
    """Heading by name of what has a number in any of the rows, apart from details; in the order of their measures."""
    found = {name: each for row in rows for name, each in row.measured.items()}
    shown = [name for name, each in found.items() if not each.detail]
    known = {name for row in rows for name, each in row.measured.items() if each.value is not None}
    order = {name: place for place, name in enumerate(ABOUT)}
    shown.sort(key=lambda name: order.get(name, len(order)))
    return {name: found[name].heading for name in shown if name in known}


def results_sheet(results: Results, more: Columns | None = None) -> Sheet:
    """The rows as text, with ``more`` columns at their end; an en dash where nothing was measured."""
    more, shown = more or {}, columns(results.rows)
    rows = [
        (row.model, row.method, *(_cell(row, name) for name in shown), *(text(row) for text in more.values()))
        for row in results.rows
    ]
    return Sheet(title="Results", headings=(*NAMES, *shown.values(), *more), rows=rows, legend=legend(results))


def _cell(row: Result, name: str) -> str:
    return row.measured[name].text() if name in row.measured else "–"


def legend(results: Results) -> str:
    """What the columns are, and what the judge is worth."""
    said = [ABOUT[name] for name in columns(results.rows) if ABOUT.get(name)]
    said += [str(results.judge)] if results.judge is not None else []
    return ". ".join([*said, "In brackets 95 % intervals, ± standard errors"]) + "."


def judged_sheets(results: Results) -> list[Sheet]:
    """What the judge took the samples for, class by class: one table, or none where no row has ``judged``."""
    rows = [row for row in results.rows if row.judged]
    if not rows:
        return []
    names, cells = list(rows[0].judged), []
    for row in rows:
        shares = (100 * row.judged[name] / sum(row.judged.values()) for name in names)
        cells.append((row.model, row.method, *(f"{share:.1f}" for share in shares)))
    about = "Share of the samples, %. A kept class that has become rare is a cost that the unlearning ratio hides."
    return [Sheet(title="What the judge saw", headings=("Model", "Method", *names), rows=cells, legend=about)]


def screen_tables(results: Results, more: Columns | None = None, *, width: int = 80) -> Iterator[Table]:
    """The rows as `rich` tables, each at most ``width`` wide: where one is too wide, its last columns go to the next.

    No number is broken; only a model's name may be, where it takes more than a third of the width.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    sheet = results_sheet(results, more)
    texts = [[heading, *cells] for heading, *cells in zip(sheet.headings, *sheet.rows, strict=True)]
    widths = [max(map(len, column)) for column in texts]
    widths[0] = min(widths[0], width // 3)
    for block in _blocks(widths, width):
        shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for place in block:
            left = place < len(NAMES) or place >= len(sheet.headings) - len(more or {})
            shown.add_column(
                Text(sheet.headings[place]),
                justify="left" if left else "right",
                no_wrap=place > 0 and widths[place] <= width // 3,
                max_width=widths[place],
                overflow="fold",
            )
        for row in sheet.rows:
            shown.add_row(*(Text(row[place]) for place in block))  # Text: a name with brackets is no markup
        yield shown


def _blocks(widths: Sequence[int], width: int, gap: int = 3) -> list[list[int]]:
    """Which columns stand in which table: the first in each, and as many others as fit, at least one."""
    found = [[0]]
    used = widths[0] + gap
    for place, wide in enumerate(widths[1:], 1):
        if used + wide + gap > width and len(found[-1]) > 1:
            found.append([0])
            used = widths[0] + gap
        found[-1].append(place)
        used += wide + gap
    return found
