"""Put a trained model and a judge into the package: python scripts/make_embedded_model.py runs/standard runs/judge.

Weights are stored as float16. The commands that make the two are in their records (moderation.json, config.json).
"""

import sys

import msgm
from msgm.formats.native import embedded
from msgm.metrics.judge import Judge

if __name__ == "__main__":
    model, judge = sys.argv[1:]
    msgm.save(msgm.load(model), embedded("model"), half=True, overwrite=True)
    Judge.load(judge).save(embedded("judge"), half=True)
    for folder in (embedded("model"), embedded("judge")):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder.name}: {size / 1e6:.2f} MB")
