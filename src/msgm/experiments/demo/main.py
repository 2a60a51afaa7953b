"""The main job on real digits: forget 3 and 7 in a trained MNIST model, and prove it."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ...data import ForgetRequest, Source
from ...forgetting.methods import DEFAULT, METHODS, Method, orthogonal, unseen
from ...formats.native import EMBEDDED, RECORD, embedded, load
from ...metrics.judge import Judge
from ...model.score import ScoreModel
from ...report.page import Results, Row, commit, write_html, write_json
from ...report.pictures import grid, save_samples
from ...storage import claim
from ...training.loop import unlearn
from ...training.runs import RunSpec, read_log
from ...training.settings import UnlearnSettings
from ..core.evaluate import EvaluateSettings, evaluate

if TYPE_CHECKING:
    from PIL.Image import Image

RULE = "label in [3, 7]"


def models() -> dict[str, Method]:
    """What the demo compares with the Standard model, the default method last."""
    return {
        "Unseen": unseen(),
        # The paper's alpha = 0.99, every 4th step, changes nothing visible in so few steps (docs/method.md).
        "Orthogonal": orthogonal(alpha=0.7, every=1),
        "Moderated": METHODS[DEFAULT](),
    }


def demo(
    out: Path,
    *,
    unlearning: UnlearnSettings,
    evaluation: EvaluateSettings,
    command: str,
    resume: bool = False,
    overwrite: bool = False,
) -> Results:
    """Unlearn, sample with the same noise before and after, judge, measure likelihoods, and write the report.

    Writes ``models/<name>``, ``samples/<name>/*.png``, ``results.json`` and ``report.html`` into ``out``.
    """
    if not resume:
        claim(out, overwrite=overwrite)
    request, judge, test = ForgetRequest(RULE), Judge.load(embedded("judge")), Source("demo").open("test")
    split, parent = request.split(Source("demo").open()), load(EMBEDDED)
    out.mkdir(parents=True, exist_ok=True)

    rows: list[Row] = []
    grids: list[tuple[str, Image]] = []
    made: dict[str, tuple[ScoreModel, float]] = {"Standard": (parent, 0.0)}
    for name, method in models().items():
        folder, began = out / "models" / name.lower(), time.monotonic()
        if resume and (folder / RECORD).exists():
            made[name] = (load(folder), float("nan"))
            continue
        child = unlearn(
            parent, split, method=method, settings=unlearning,
            run=RunSpec(folder=folder, resume=resume, overwrite=overwrite, device="cpu", command=command),
        )  # fmt: skip
        made[name] = (child, time.monotonic() - began)
    for name, (model, seconds) in made.items():
        method_name = "standard" if name == "Standard" else str(model.record["method"]["name"])
        row, pixels = evaluate(
            model, name=name, method=method_name, judge=judge, request=request, test=test, settings=evaluation,
            seconds=seconds,
        )  # fmt: skip
        shutil.rmtree(out / "samples" / name.lower(), ignore_errors=True)
        save_samples(out / "samples" / name.lower(), pixels)
        rows.append(row)
        grids.append((name, grid(pixels[:100])))

    budget = {"size": "small", "unlearning": asdict(unlearning), "evaluation": asdict(evaluation)}
    results = Results(command=command, seed=evaluation.seed, commit=commit(), budget=budget, rows=rows)
    write_json(out / "results.json", results.to_dict())
    logs = {name: read_log(out / "models" / name.lower()) for name in models()}
    write_html(
        out / "report.html",
        results,
        title="Digits 3 and 7, forgotten",
        grids=grids,
        curves={name: [(int(r["step"]), r["retain"], r["forget"]) for r in log] for name, log in logs.items()},
        records={name: model.record for name, (model, _) in made.items()},
        notes=[
            "Every grid starts from the same noise: picture k of one model is what picture k of another became.",
            f"Of real test images the judge calls {judge.accuracy:.1%} right and {judge.real_called_junk:.2%} junk.",
        ],
    )
    return results
