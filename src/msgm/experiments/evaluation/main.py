"""One or two models measured with the same noise: samples, one table, results.json, a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ...data import Images, Request
from ...metrics.judge import Judge
from ...metrics.shares import forget_classes
from ...metrics.worth import worth_for
from ...model.score import ScoreModel
from ...report.page import commit, write_html, write_json
from ...report.pictures import grid, save_samples
from ...report.results import Results
from ...report.samples import clear
from ...sampling.filters import FILTERS, Filter
from ..core.evaluate import EvaluateSettings, beside, check, evaluate

SHOWN = 100
"""Samples of each model in the report."""


def compare(
    models: Mapping[str, ScoreModel],
    *,
    request: Request,
    judge: Judge,
    test: Images,
    settings: EvaluateSettings,
    out: Path,
    command: str = "",
    notes: Sequence[str] = (),
) -> Results:
    """Measure each model, and write ``samples/NAME``, ``results.json`` and ``report.html``.

    Args:
        models: by name, in the order of the table; the others are measured beside the first.
        request: what was to be forgotten.
        judge: of the samples.
        test: images of both sets.
        settings: how much evidence to gather.
        out: folder for all of it.
        command: that asks for it, for the record.
        notes: sentences for the report.

    Raises UserError, before any work, as `check` does, and for a judge that cannot tell the sets apart.
    """
    for model in models.values():
        check(model, judge, request, test)
    worth = worth_for(judge, request, test)
    worth.check()
    rows, grids = [], []
    for name, model in models.items():
        row, subject = evaluate(
            model, name=name, method=_made_by(model), judge=judge, request=request, test=test, settings=settings
        )
        clear(out / "samples" / name)
        save_samples(out / "samples" / name, subject.pixels)
        rows.append(row)
        grids.append((name, grid(subject.pixels[:SHOWN])))
    rows[1:] = beside(rows[0], rows[1:], judge, forget_classes(request, judge))
    results = Results(
        command=command, seed=settings.seed, commit=commit(), budget={"evaluation": asdict(settings)}, rows=rows,
        judge=worth,
    )  # fmt: skip
    write_json(out / "results.json", results.to_dict())
    rule = request.to_dict().get("rule", request)
    write_html(
        out / "report.html", results, title=f"Forgotten: {rule}", grids=grids, curves={}, notes=list(notes),
        records={name: model.record for name, model in models.items()},
    )  # fmt: skip
    return results


def _made_by(model: ScoreModel) -> str:
    """The method that made a model, and the filter around it."""
    method = str(model.record.get("method", {}).get("name", "standard"))
    around = [name for name, kind in FILTERS.items() if type(model) is kind]
    return " + ".join([method, *around]) if isinstance(model, Filter) else method
