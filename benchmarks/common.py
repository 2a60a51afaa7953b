"""What the benchmarks share: options, interleaved timing, rates of growth, and a dated report in JSON and Markdown."""

from __future__ import annotations

import argparse
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from msgm.errors import UserError
from msgm.formats.native import EMBEDDED
from msgm.metrics import Rate
from msgm.progress import bar
from msgm.report.page import commit, write_json
from msgm.report.pictures import write_figure
from msgm.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"

Row = Mapping[str, Any]


def arguments(description: str, given: Sequence[str] | None, **budget: tuple[Any, Any, str]) -> argparse.Namespace:
    """The options of a benchmark. ``budget``: for each of its own, the quick value, the full one and what it is."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="minutes: a smaller budget, wider errors")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the Markdown file")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--model", default=EMBEDDED, help="model folder, or demo for the one in the package")
    parser.add_argument("--seed", type=int, default=0)
    for name, (quick, full, text) in budget.items():
        many = isinstance(full, tuple)
        kind = type(full[0] if many else full)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=str if full is None else kind,
            nargs="+" if many else None,
            help=text if full is None else f"{text} (quick {quick}, full {full})",
        )
    options = parser.parse_args(given)
    for name, (quick, full, _) in budget.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    options.command = shlex.join(["python", f"benchmarks/{Path(parser.prog).name}", *(given or sys.argv[1:])])
    if options.threads < 1:
        raise UserError(f"--threads must be 1 or more; got {options.threads}")
    torch.set_num_threads(options.threads)
    return options


def main(run: Callable[[], Path]) -> None:
    """Run a benchmark as a program: bad input is one line and exit status 2."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        print(f"written: {run()}")
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(title: str, tasks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """``rounds`` times each task in turn, which returns its own seconds; first all of them once, unrecorded.

    Every second round runs backwards. So whatever else the machine does meets all tasks alike, and the ratio of two
    tasks within a round is worth more than that of their best times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    with bar(title, (rounds + 1) * len(tasks)) as tick:
        for index in range(-1, rounds):
            for name in list(tasks) if index % 2 else reversed(tasks):
                found = tasks[name]()
                if index >= 0:
                    seconds[name].append(found)
                tick(1, note=name)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """How many times ``slow`` (times ``scale``) takes as long as ``fast``: median over the rounds, least and most."""
    each = [scale * a / b for a, b in zip(slow, fast, strict=True)]
    return {"ratio": median(each), "least": min(each), "most": max(each)}


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The p of seconds ~ size^p by least squares in logarithms."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, seconds))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def machine(threads: int) -> dict[str, Any]:
    """What the times depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


@dataclass(kw_only=True)
class Report:
    """One run of a benchmark. ``facts`` are its headline numbers, ``ratio`` among them."""

    name: str
    claim: str
    options: argparse.Namespace
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Sequence[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figure: Figure | None = None

    def __post_init__(self) -> None:
        self.started = datetime.now()
        self.machine = machine(self.options.threads)

    def to_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.options).items()}
        return {
            "benchmark": self.name,
            "claim": self.claim,
            "date": self.started.isoformat(timespec="seconds"),
            "commit": commit(Path(__file__).parent),
            "command": options.pop("command"),
            "seed": options.pop("seed"),
            "quick": options.pop("quick"),
            "model": options.pop("model"),
            "machine": self.machine,
            "seconds": round((datetime.now() - self.started).total_seconds(), 1),
            **self.facts,
            "options": {k: v for k, v in options.items() if k not in ("out", "threads")},
            "tables": {title: [dict(row) for row in rows] for title, rows in self.tables.items()},
            "notes": list(dict.fromkeys(self.notes)),
            **({"figure": f"{self.stem}.png"} if self.figure else {}),
        }

    @property
    def stem(self) -> str:
        """``NAME-MODEL-DATE``, the name of its files."""
        parts = [self.name, Path(self.options.model).name, "quick" if self.options.quick else ""]
        return "-".join([*filter(None, parts), self.started.strftime("%Y-%m-%d-%H%M")])

    def write(self) -> Path:
        """Write ``NAME-MODEL-DATE.json``, ``.md`` and any figure into the results, print the second."""
        from rich.console import Console
        from rich.markdown import Markdown

        found = self.to_dict()
        path = self.options.out / f"{self.stem}.json"
        if path.exists():
            raise UserError(f"{path} already exists; name another folder with --out")
        text = markdown(found)
        if self.figure:
            write_figure(self.figure, path.with_suffix(".png"))
        write_json(path, found)
        write_bytes(path.with_suffix(".md"), text.encode())
        Console().print(Markdown(text))
        return path


def markdown(found: Mapping[str, Any]) -> str:
    """A report from what its JSON file holds."""
    machine = found["machine"]
    where = f"{machine['device']}, {machine['precision']}" if "device" in machine else _processor(machine)
    lines = [
        f"# {found['benchmark']}: {found['model']}{' (quick)' if found['quick'] else ''}",
        "",
        found["claim"],
        "",
        f"`{found['command']}`",
        "",
        f"{found['date']}, commit {(found['commit'] or 'unknown')[:12]}, seed {found['seed']}, "
        f"{found['seconds']:.0f} seconds in all; {where}.",
        "",
    ]
    known = {"benchmark", "claim", "date", "commit", "command", "seed", "quick", "model", "machine", "seconds"}
    facts = [(k, v) for k, v in found.items() if k not in known | {"options", "tables", "notes", "figure"}]
    lines += _table([{"measured": k.replace("_", " "), "value": v} for k, v in facts])
    lines += [f"![{found['benchmark']}]({found['figure']})", ""] if "figure" in found else []
    for title, rows in found["tables"].items():
        lines += [f"## {title}", "", *_table(rows)]
    if found["notes"]:
        lines += ["## Notes", "", *(f"- {note}" for note in found["notes"]), ""]
    return "\n".join(lines)


def _processor(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores, load {machine['load_at_start']} at the "
        f"start, torch {machine['torch']}"
    )


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    # A column that is left out of one row is empty there.
    heads = list(dict.fromkeys(key for row in rows for key in row))
    body = [[cell(row.get(key)) for key in heads] for row in rows]
    return [
        "| " + " | ".join(heads) + " |",
        "|" + "|".join(" --- " if isinstance(rows[0].get(key), str) else " ---: " for key in heads) + "|",
        *("| " + " | ".join(row) + " |" for row in body),
        "",
    ]


def cell(value: Any) -> str:
    """A value as text, numbers to three digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    return str(value)


def percent(rate: Rate) -> str:
    """A share and its 95 % interval in per cent."""
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}] %"
