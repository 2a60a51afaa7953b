"""Memory of an unlearning run that watches itself, over an hour: flat after the first minutes.

The command line runs in a process of its own, with more steps than it will ever take; its resident memory is noted
every few seconds, and SIGTERM ends it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from common import Report, arguments, main
from msgm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 20.0
"""MB an hour that the upper end of the interval of the growth may reach."""
BLOCKS = 10
"""Means of so many equal parts of the time give the slope: what is noted every few seconds is no independent draw."""
PATIENCE = 900.0
"""Seconds to wait for the first step."""

Sample = tuple[float, float]
"""Minutes since the first step, resident memory in MB."""


def words(model: str, out: Path, threads: int, seed: int) -> list[str]:
    """The command line: small checkpoints often, and no limit at which it would end by itself."""
    given = (
        "--forget|label in [3, 7]|--select|--select-every|10|--select-n|32|--select-images|4|--select-stop|1e9|"
        f"--guard|1e9|--steps|70000|--batch|16|--lr|1e-5|--save-every|50|--device|cpu|--threads|{threads}|--seed|{seed}"
    )
    return ["unlearn", model, "--out", str(out), *given.split("|")]


def watch(child: subprocess.Popen[str], out: Path, minutes: float, every: float) -> list[Sample]:
    """The memory of the child, from its first logged step on."""
    log, process = out / "log.jsonl", psutil.Process(child.pid)
    began = time.monotonic()
    while not log.exists() or not log.stat().st_size:
        if child.poll() is not None or time.monotonic() - began > PATIENCE:
            raise UserError(
                f"the run did not begin: {child.communicate()[1][-300:] if child.poll() else 'no step yet'}"
            )
        time.sleep(0.1)
    found: list[Sample] = []
    began = time.monotonic()
    while (now := (time.monotonic() - began) / 60) < minutes:
        _alive(child)
        found.append((now, process.memory_info().rss / 2**20))
        time.sleep(every)
    return found


def _alive(child: subprocess.Popen[str]) -> None:
    if child.poll() is not None:
        raise UserError(f"the run ended by itself: {child.communicate()[1].strip()[-300:]}")


def soak(options: Any, out: Path) -> tuple[list[Sample], int, str]:
    """The samples of one run, its exit status and its last words."""
    child = subprocess.Popen(
        [sys.executable, "-m", "msgm", *words(options.model, out, options.threads, options.seed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        samples = watch(child, out, options.minutes, options.every)
        child.send_signal(signal.SIGTERM)
        said = child.communicate(timeout=600)[1]
    finally:
        child.kill()
        child.wait()
    return samples, child.returncode, (said.strip().splitlines() or [""])[-1]


def slope(samples: Sequence[Sample], blocks: int = BLOCKS) -> tuple[float, float, float]:
    """MB an hour by least squares through the means of equal parts of the time, and the ends of its 95 % interval."""
    from scipy import stats

    parts = np.array_split(np.asarray(samples), blocks)
    hours, memory = (np.array([part[:, k].mean() for part in parts]) / scale for k, scale in ((0, 60), (1, 1)))
    fit = stats.linregress(hours, memory)
    reach = float(stats.t.ppf(0.975, blocks - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - reach, float(fit.slope) + reach


def figure(samples: Sequence[Sample], settle: float, fit: tuple[float, float, float]) -> Figure:
    """Memory over time, and the line through what came after the first minutes."""
    from matplotlib.figure import Figure

    found = Figure(figsize=(8, 3.6), layout="constrained")
    axes = found.subplots()
    at, memory = np.asarray(samples).T
    axes.plot(at, memory, color="#0072B2", linewidth=0.8)
    late = at >= settle
    axes.plot(
        at[late], memory[late].mean() + fit[0] / 60 * (at[late] - at[late].mean()), color="#D55E00",
        label=f"{fit[0]:+.1f} [{fit[1]:+.1f}, {fit[2]:+.1f}] MB an hour",
    )  # fmt: skip
    axes.axvspan(0, settle, color="#eeeeee")
    axes.set(xlabel="minutes since the first step", ylabel="resident memory, MB", ylim=(0, 1.15 * memory.max()))
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return found


def by_minute(samples: Sequence[Sample], parts: int = 60) -> list[dict[str, float]]:
    """Means and highest values of as many equal parts of the time at most."""
    return [
        {"until minute": float(part[-1, 0]), "mean MB": float(part[:, 1].mean()), "highest MB": float(part[:, 1].max())}
        for part in np.array_split(np.asarray(samples), min(parts, len(samples)))
    ]


def run(given: list[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        minutes=(3.0, 60.0, "how long it is watched"),
        settle=(1.0, 5.0, "the first minutes, which do not count"),
        every=(1.0, 5.0, "seconds from one look to the next"),
    )
    report = Report(
        name="soak",
        claim=f"Growth of the memory of `msgm unlearn --select` over {options.minutes:g} minutes, without the "
        f"first {options.settle:g}: at most {LIMIT:g} MB an hour at the upper end of its 95 % interval. `ratio`: that "
        "limit over that end.",
        options=options,
    )
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "out")
        samples, status, said = soak(options, out)
        steps = len((out / "log.jsonl").read_text().splitlines())
        watched = len(json.loads((out / "watched.json").read_text())["rows"])
    late = [sample for sample in samples if sample[0] >= options.settle]
    if len(late) < 2 * BLOCKS:
        raise UserError(f"{len(late)} looks after the first minutes are too few: more --minutes, or less --every")
    fit = slope(late)
    report.facts = {
        "ratio": LIMIT / fit[2] if fit[2] > 0 else None,
        "mb_an_hour": fit[0],
        "least": fit[1],
        "most": fit[2],
        "limit_mb_an_hour": LIMIT,
        "met": fit[2] <= LIMIT and status == 128 + signal.SIGTERM,
        "highest_mb": max(memory for _, memory in samples),
        "steps": steps,
        "checkpoints": watched,
        "looks": len(samples),
        "exit_status": status,
    }
    report.notes = [f"SIGTERM was answered with: {said}".replace(str(out), "OUT")]
    report.tables = {"Memory": by_minute(samples)}
    report.figure = figure(samples, options.settle, fit)
    return report.write()


if __name__ == "__main__":
    main(run)
