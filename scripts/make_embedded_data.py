"""Make the MNIST subset that ships in the package from the complete MNIST files.

python scripts/make_embedded_data.py --data-dir FOLDER [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from msgm.data import Source
from msgm.data.find import EMBEDDED
from msgm.data.idx import write_idx

SIZES = {"train": 8000, "test": 2000}


def choose(n: int, k: int, seed: int) -> list[int]:
    """k of n rows, drawn without replacement, in ascending order: the classes keep their natural shares."""
    return sorted(random.Random(seed).sample(range(n), k))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make(data_dir: str, seed: int, out: Path) -> None:
    """Write the four idx files and ``data.json`` into ``out``."""
    splits: dict[str, Any] = {}
    files: dict[str, str] = {}
    for split, size in SIZES.items():
        full = Source("mnist", dir=data_dir).open(split)  # type: ignore[arg-type]
        rows = choose(len(full), size, seed)
        part = full.select(rows)
        prefix = "train" if split == "train" else "t10k"
        tensors = {"images-idx3": part.rows()[:, 0], "labels-idx1": part.labels.byte()}
        for kind, values in tensors.items():
            path = out / f"{prefix}-{kind}-ubyte.gz"
            write_idx(path, values)
            files[path.name] = digest(path.read_bytes())
        counts = Counter(part.labels.tolist())
        splits[split] = {
            "images": size,
            "of": len(full),
            "per_digit": [counts[digit] for digit in range(10)],
            "rows_sha256": digest(",".join(map(str, rows)).encode()),
            "source_sha256": full.digest,
            "sha256": part.digest,
        }
    record = {
        "command": f"python scripts/make_embedded_data.py --data-dir MNIST --seed {seed}",
        "seed": seed,
        "rows": "sorted(random.Random(seed).sample(range(of), images)), for each split; "
        "rows_sha256 is over these numbers joined by commas",
        "sha256": "source_sha256 and sha256 are msgm's Images.digest of all MNIST and of the subset; "
        "files gives those of the files",
        "source": "The MNIST database of handwritten digits, http://yann.lecun.com/exdb/mnist/",
        "authors": "Yann LeCun, Corinna Cortes, Christopher J. C. Burges",
        "licence": "CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/",
        "splits": splits,
        "files": files,
    }
    (out / "data.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with MNIST's four idx files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.data_dir, arguments.seed, EMBEDDED)
