"""Whether a second request brings the first one back: forget 7, then 3, and judge samples after each.

For each seed the demo's model forgets the first rule, and what comes of it the second. With ``earlier`` ignored as
well, which is a model that is only asked the second time: what `unlearn` is there to prevent. Models are kept in
``--models``, so that a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Report, arguments, main, percent
from msgm.cli.options import Data, images_of
from msgm.data import ForgetRequest, Images
from msgm.forgetting.methods import moderate
from msgm.formats import load
from msgm.formats.ledger import chain
from msgm.formats.native import RECORD, embedded
from msgm.metrics import Judge
from msgm.metrics.shares import forget_classes, judged_shares
from msgm.model.score import ScoreModel
from msgm.sampling import DPMSolver
from msgm.training.loop import unlearn
from msgm.training.runs import RunSpec
from msgm.training.settings import UnlearnSettings


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "",
        given,
        first=("label == 7", "label == 7", "the first request"),
        second=("label == 3", "label == 3", "the second request"),
        steps=(100, 300, "steps of each run"),
        batch=(24, 24, "images a step, of each set"),
        classifier=(100, 600, "steps of the classifier that is trained before"),
        seeds=(3, 3, "runs"),
        n=(300, 1000, "samples judged"),
        ignored=(1, 1, "whether earlier requests are ignored as well, 0 or 1"),
        models=(None, None, "folder of the models, to go on later"),
    )
    report = Report(
        name="sequential",
        claim="UR of the first request's class after the first request and after the second. `within`: of how many "
        "seeds the second lies in the interval of the first, or below.",
        options=options,
    )
    parent = load(options.model)
    images = images_of(parent, Data().of(parent), "train")
    judge = Judge.load(embedded("judge"))
    rows = [
        row
        for seed in range(options.seed, options.seed + options.seeds)
        for row in _rows(parent, images, judge, seed, options)
    ]
    rates = {(row["seed"], row["requests"]): row.pop("rate") for row in rows if row["earlier"] == "forget"}
    report.tables = {"Requests": [{k: v for k, v in row.items() if k != "rate"} for row in rows]}
    report.facts = {
        "ratio": None,
        "seeds": options.seeds,
        "within": sum(rate.value <= rates[seed, 1].high for (seed, requests), rate in rates.items() if requests == 2),
    }
    report.notes = ["first, second: share of samples of that request's class, in %, by the package's judge."]
    return report.write()


def _rows(parent: ScoreModel, images: Images, judge: Judge, seed: int, options: Any) -> list[dict[str, Any]]:
    first, second = ForgetRequest(options.first), ForgetRequest(options.second)
    classes = {"first": forget_classes(first, judge), "second": forget_classes(second, judge)}
    settings = UnlearnSettings(steps=options.steps, batch=options.batch, seed=seed)
    place = Path(options.models) if options.models else None

    def made(start: ScoreModel, request: ForgetRequest, name: str, **how: Any) -> ScoreModel:
        folder = place / f"{name}-{seed}" if place is not None else None
        if folder is not None and (folder / RECORD).exists():
            return load(folder)
        run = RunSpec(folder=folder, resume=folder is not None, device="cpu", progress=False)
        method = moderate(steps=options.classifier)
        return unlearn(start, request.split(images), method=method, settings=settings, run=run, **how)

    once = made(parent, first, "first")
    models = [(1, "forget", once), (2, "forget", made(once, second, "second"))]
    if options.ignored:
        models.append((2, "ignore", made(once, second, "ignored", earlier="ignore")))
    return [
        {"seed": seed, "requests": count, "earlier": how, "records": len(chain(model.record))}
        | _judged(model, judge, classes, seed, options.n)
        for count, how, model in models
    ]


def _judged(model: ScoreModel, judge: Judge, classes: Mapping[str, set[int]], seed: int, n: int) -> dict[str, Any]:
    pixels = model.space.to_pixels(DPMSolver(model).sample(n, seed=1000 + seed))
    verdicts = judge.predict(pixels)
    found = {key: judged_shares(verdicts, forget, judge.classes) for key, forget in classes.items()}
    rates = {key: percent(shares.unlearning_ratio) for key, shares in found.items()}
    first = found["first"]
    return {**rates, "junk": percent(first.junk), "rate": first.unlearning_ratio}


if __name__ == "__main__":
    main(run)
