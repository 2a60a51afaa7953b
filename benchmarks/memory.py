"""Peak memory of unlearning from many images, and how long it takes to begin.

Makes two folders of Parquet shards with 32x32 colour images, few and many, and unlearns from both for some steps, each
run in a process of its own, the first with an empty cache. The network is untrained: what it says does not
matter to memory or clock.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

import msgm
from common import Report, arguments, main
from msgm.model.networks import preset
from msgm.model.score import ScoreModel

SHAPE = (3, 32, 32)
LIMIT = 600
"""MB that the many may cost above the few."""
RUNS = (("orthogonal", "empty"), ("orthogonal", "filled"), ("deflect", "filled"))
"""Methods, and whether the cache of decoded images has been filled before."""
SHARD = 50_000


def make(folder: Path, n: int, seed: int) -> None:
    """n images of 4 x 4 blocks of random colours, ten classes, as PNGs in shards."""
    draw = np.random.default_rng(seed)
    folder.mkdir()
    for number, start in enumerate(range(0, n, SHARD)):
        count = min(SHARD, n - start)
        blocks = draw.integers(0, 256, (count, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        images = []
        for pixels in blocks:
            Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG", compress_level=1)
            images.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"image": images, "label": np.arange(start, start + count) % 10})
        pq.write_table(table, folder / f"train-{number:05d}.parquet")


class Began:
    """A watch that notes when the first step is through."""

    at = 0.0

    def __call__(self, step: int, average: ScoreModel) -> bool:
        self.at = self.at or (time.perf_counter() if step else 0.0)
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        return {}


def peak() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would start from what the parent held
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def one(folder: str, method: str, steps: int, batch: int) -> dict[str, float]:
    """One run, in this process: its peak in MB, seconds to open the images and until the first step is through."""
    start = time.perf_counter()
    split = msgm.ForgetRequest("label in [3, 7]").split(msgm.Source(folder).open())
    opened = time.perf_counter() - start
    chosen = preset("auto", SHAPE)
    torch.manual_seed(0)
    model, watch = ScoreModel(chosen.build(3), msgm.sde.VESDE(), shape=SHAPE, patch=chosen.patch), Began()
    settings = msgm.UnlearnSettings(steps=steps, batch=batch)
    msgm.unlearn(model, split, method=msgm.methods.METHODS[method](), settings=settings, watch=watch)
    return {"peak_mb": peak(), "open_seconds": opened, "first_step_seconds": watch.at - start}


def apart(folder: Path, method: str, cache: Path, options: Any) -> dict[str, float]:
    """`one` in a process of its own."""
    given = json.dumps([str(folder), method, options.steps, options.batch])
    code = (
        f"import json, torch, memory; torch.set_num_threads({options.threads}); print(json.dumps(memory.one(*{given})))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "MSGM_CACHE": str(cache)},
    )  # fmt: skip
    if child.returncode:
        raise RuntimeError(child.stderr)
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found


def run(given: list[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        few=(300, 3000, "images of the small set"),
        many=(30_000, 300_000, "images of the large set"),
        steps=(20, 20, "steps of each run"),
        batch=(16, 16, "images a step, of each set"),
    )
    report = Report(
        name="memory",
        claim=f"Peak memory of unlearning from {options.many:,} images of 32x32x3 above that from {options.few:,}: at "
        f"most {LIMIT} MB. `ratio`: that limit over the largest difference.",
        options=options,
    )
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in ("few", "many"):
            make(Path(place, name), getattr(options, name), options.seed)
        for method, cache in RUNS:
            found = {name: apart(Path(place, name), method, Path(place, "cache"), options) for name in ("few", "many")}
            rows.append(
                {
                    "method": method,
                    "cache": cache,
                    **{f"{key}, {name}": value for name, each in found.items() for key, value in each.items()},
                    "above_mb": found["many"]["peak_mb"] - found["few"]["peak_mb"],
                }
            )
    report.tables = {"Runs": rows}
    most = max(row["above_mb"] for row in rows)
    report.facts = {
        "ratio": LIMIT / most if most > 0 else None,
        "above_mb": most,
        "limit_mb": LIMIT,
        "met": most <= LIMIT,
        "second_open_seconds": max(row["open_seconds, many"] for row in rows if row["cache"] == "filled"),
    }
    return report.write()


if __name__ == "__main__":
    main(run)
