"""A step of each network of the paper's budget: seconds and memory of training and of fine-tuning with a forget loss.

Each runs in a process of its own. The networks, precisions and settings are the paper's in full; its batch of 400 takes
some 50 GiB on a CPU, so that here it is less.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from apart import GiB, run
from common import Report, arguments, main
from msgm.data import ForgetRequest, Images, Source
from msgm.experiments.paper.budgets import BUDGETS
from msgm.experiments.paper.tables import TABLES, ProcessName, recipe
from msgm.experiments.paper.work import Deadline, Work
from msgm.training.loop import train, unlearn
from msgm.training.runs import RunSpec
from msgm.training.runtime import Runtime

CASES: list[tuple[str, ProcessName]] = [
    (name, part.process)
    for name in ("table2-mnist", "table6", "table2-celeba", "table2-stl10")
    for part in TABLES[name].parts
    if part.origin == "tuned"
]
"""Tables and processes that between them have every network of the paper's budget."""
LIMIT, MEMORY = 1800.0, 32 * GiB


def step(name: str, process: ProcessName, batch: int) -> dict[str, Any]:
    """One step of training, one of fine-tuning with a forget loss, on noise: the seconds, and the parameters."""
    table = TABLES[name]
    budget = BUDGETS["paper"][table.request.data]
    size, channels = budget.image_size, 1 if table.request.data == "mnist" else 3
    labels = torch.arange(2 * max(batch, len(table.request.names))) % len(table.request.names)
    images = Images.of(
        torch.randint(0, 256, (len(labels), channels, size, size), dtype=torch.uint8), name="noise",
        columns={table.request.column: labels},
    )  # fmt: skip
    work = Work(
        out=Path("unused"), budget=budget, request=table.request, data=Source("unused"),
        runtime=Runtime.choose(precision=budget.precision), deadline=Deadline(None),
    )  # fmt: skip
    kind, spec = budget.kinds[process], RunSpec(precision=budget.precision, progress=False)
    began = time.perf_counter()
    model = train(work.untrained(process, images), images, settings=replace(kind.train, steps=1, batch=batch), run=spec)
    trained = time.perf_counter() - began
    split, method = ForgetRequest(table.request.rule).split(images), recipe("orthogonal alpha=0.7 every=1")
    child = unlearn(model, split, method=method, settings=replace(kind.tune, steps=1, batch=batch), run=spec)
    assert all(bool(p.isfinite().all()) for p in child.parameters())
    return {
        "table": name,
        "process": process,
        "data": f"{channels} x {size} x {size}",
        "parameters, M": round(sum(p.numel() for p in child.parameters()) / 1e6, 1),
        "batch": batch,
        "train s": trained,
        "fine-tune s": time.perf_counter() - began - trained,
    }


def measure(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        batch=(1, 4, "images a step"),
        cases=(1, len(CASES), "networks, from the smallest data on"),
    )
    report = Report(name="paper", claim=" ".join((__doc__ or "").split("\n\n")[0].split()), options=options)
    rows = []
    for name, process in CASES[: options.cases]:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "row.json"

            def one(name: str = name, process: ProcessName = process, place: Path = place) -> None:
                place.write_text(json.dumps(step(name, process, options.batch)))

            ended = run(one, Path(folder), limit=LIMIT, memory=MEMORY)
            assert ended.status == 0, f"{name}, {process}: {ended.err}"
            rows.append(json.loads(place.read_text()) | {"memory, GiB": round(ended.memory / GiB, 1)})
    report.facts = {"memory_at_most_gib": max(row["memory, GiB"] for row in rows)}
    report.tables = {"A step of each": rows}
    return report.write()


if __name__ == "__main__":
    main(measure)
