"""How fast a GPU is at what the paper's tables ask of it: a report from the piece ``speed`` of such a grid.

``python benchmarks/throughput.py RUN`` reads the results.json of `msgm reproduce cifar10 --budget gpu --out RUN`, which
measured it on its machine, and writes throughput-NETWORK-DATE.json and the same as Markdown.
"""

import argparse
from pathlib import Path
from typing import Any

from common import RESULTS, main, markdown
from msgm.errors import UserError
from msgm.report.page import write_json
from msgm.storage import read_json, write_bytes

CLAIM = (
    "How many images a second one GPU trains on, samples and measures likelihoods of, in the tables' settings and "
    "batches, and what share of the card's peak the training takes; no ratio is claimed."
)


def report(results: dict[str, Any]) -> dict[str, Any]:
    """What the JSON file holds."""
    speed, budget = results["speed"], results["budget"]
    kind = next(iter(budget["kinds"].values()))
    steps, batches = speed["steps_per_second"], {"train": kind["train"]["batch"], "tune": kind["tune"]["batch"]}
    rows = [
        {"what": name, "batch": batches["train" if name.startswith("train") else "tune"], "steps/s": rate}
        | {"seconds to the first timed step": speed["start_seconds"].get(name)}
        for name, rate in steps.items()
    ]
    audit = budget["audit"]
    sampled = [
        {"what": f"{draw['sampler']}, {draw['steps']} steps", "batch": draw["batch"], "images/s": rate}
        for draw, rate in zip(audit["draws"], speed["samples_per_second"].values(), strict=True)
    ]
    measured = {"what": f"likelihoods, {audit['nll_steps']} steps, float32", "batch": audit["nll_images"]}
    return {
        "benchmark": "throughput",
        "claim": CLAIM,
        "date": results["date"],
        "commit": results["commit"],
        "command": results["command"],
        "seed": kind["train"]["seed"],
        "quick": False,
        "model": budget["network"],
        "machine": speed["device"],
        "seconds": round(speed["piece_seconds"], 1),
        "images_per_second": speed["images_per_second"],
        "samples_per_second": sampled[0]["images/s"],
        "likelihoods_per_second": speed["likelihoods_per_second"],
        "tflops_of_a_matrix_product": speed["peak_flops"] / 1e12,
        "share_of_it_in_training": speed["training_share_of_peak"],
        "compiling_makes_faster": steps["train"] / steps["train, not compiled"],
        "parameters": speed["parameters"],
        "operations_of_one_evaluation": speed["operations"],
        "options": {},
        "tables": {
            "Training and fine-tuning": rows,
            "Evidence": [*sampled, {**measured, "images/s": speed["likelihoods_per_second"]}],
        },
        "notes": [
            "Of the whole loop, drawing and noising the images included; a fine-tuning step with a forget loss has as "
            "many forget images beside its batch.",
            "A training step counts as three forward passes; the peak is that of a product of two 8192x8192 matrices "
            "on the same card in the same precision.",
            "tune: a run that takes the mean of all methods' times.",
        ],
    }


def run() -> Path:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="folder of a grid with --budget gpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and the Markdown file")
    options = parser.parse_args()
    results = read_json(options.run / "results.json")
    if not results.get("speed"):
        raise UserError(f"{options.run} has no piece speed; make it with msgm reproduce cifar10 --budget gpu")
    found = report(results)
    path: Path = options.out / f"throughput-{found['model']}-{found['date']}.json"
    if path.exists():
        raise UserError(f"{path} already exists; name another folder with --out")
    write_json(path, found)
    write_bytes(path.with_suffix(".md"), markdown(found).encode())
    return path


if __name__ == "__main__":
    main(run)
