"""One or two models measured with the same noise: samples, one table, results.json, a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data import Images, Request
from ...folders import Making, Opened, opened
from ...metrics.judge import Judge
from ...metrics.shares import forget_classes
from ...metrics.worth import worth_for
from ...model.score import ScoreModel
from ...processes import here
from ...report.page import commit, write_html, write_json
from ...report.pictures import grid, save_samples
from ...report.results import Results
from ...report.samples import PICTURES
from ...sampling.filters import FILTERS, Filter
from ..core.evaluate import EvaluateSettings, beside, check, evaluate

MADE = Making(kind="evaluation", names=(f"samples/*/{PICTURES}", "results.json", "report.html"), anew=True)
SHOWN = 100
"""Samples of each model in the report."""


def compare(
    models: Mapping[str, ScoreModel],
    *,
    request: Request,
    judge: Judge | None,
    test: Images,
    settings: EvaluateSettings,
    out: Path,
    command: str = "",
    notes: Sequence[str] = (),
    overwrite: bool = False,
) -> Results:
    """Measure each model, and write ``samples/NAME``, ``results.json`` and ``report.html``.

    Args:
        models: by name, in the order of the table; the others are measured beside the first.
        request: what was to be forgotten.
        judge: of the samples; None for a request without a rule.
        test: images of both sets.
        settings: how much evidence to gather.
        out: folder for all of it.
        command: that asks for it, for the record.
        notes: sentences for the report.
        overwrite: replace the evaluation that is in the folder.

    Raises UserError, before any work, as `check` does, for a judge that cannot tell the sets apart, and for a folder
    that must not be written.
    """
    for model in models.values():
        check(model, judge, request, test)
    worth = worth_for(judge, request, test) if judge is not None else None
    if worth is not None:
        worth.check()
    size = len(models) * settings.n * (math.prod(test.shape) + 200)
    with opened(out, replace(MADE, identity={"command": command}, size=size), overwrite=overwrite) as place:
        rows, pixels = [], {}
        for name, model in models.items():
            row, subject = evaluate(
                model, name=name, method=_made_by(model), judge=judge, request=request, test=test, settings=settings
            )
            rows.append(row)
            pixels[name] = subject.pixels
        rows[1:] = beside(rows[0], rows[1:], judge, forget_classes(request, judge))
        results = Results(
            command=command, seed=settings.seed, commit=commit(), budget={"evaluation": asdict(settings)}, rows=rows,
            judge=worth,
        )  # fmt: skip
        if here().first:
            _write(place, results, pixels, request, notes, {name: model.record for name, model in models.items()})
    return results


def _write(
    place: Opened, results: Results, pixels: Mapping[str, Tensor], request: Request, notes: Sequence[str],
    records: Mapping[str, Mapping[str, Any]],
) -> None:  # fmt: skip
    """The samples first, and last what refers to them."""
    out, title = place.path, f"Forgotten: {request.words}"
    place.clear()
    for name, samples in pixels.items():
        save_samples(out / "samples" / name, samples)
    write_json(out / "results.json", results.to_dict())
    write_html(
        out / "report.html", results, title=title, curves={}, notes=list(notes), records=records,
        grids=[(name, grid(samples[:SHOWN])) for name, samples in pixels.items()],
    )  # fmt: skip
    place.end()


def _made_by(model: ScoreModel) -> str:
    """The method that made a model, and the filter around it."""
    method = str(model.record.get("method", {}).get("name", "standard"))
    around = [name for name, kind in FILTERS.items() if type(model) is kind]
    return " + ".join([method, *around]) if isinstance(model, Filter) else method
