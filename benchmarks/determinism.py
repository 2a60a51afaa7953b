"""What is equal to the bit, and what to rounding: a run, samples and likelihoods, each time with one thing changed.

Each of them is made by processes of its own. A difference is the largest one, over the largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from common import Report, arguments, main
from msgm.cli.options import Data, images_of
from msgm.data import ForgetRequest
from msgm.forgetting.methods import moderate
from msgm.formats import load
from msgm.likelihood import log_likelihood
from msgm.model.score import ScoreModel
from msgm.model.vectors import flat
from msgm.sampling import DPMSolver
from msgm.training.loop import unlearn
from msgm.training.runs import RunSpec, read_log
from msgm.training.settings import UnlearnSettings
from team import team

RULE = "label in [3, 7]"
CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "stopped half way, and resumed": {"stopped": True},
    "two processes": {"processes": 2},
    "two threads": {"threads": 2},
    "batches of samples and likelihoods of another size": {"batch": 3},
}
REFERENCE = "nothing: the reference"


class Stop:
    """Ends a run from outside after the step that follows its saved state."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, step: int, average: ScoreModel) -> bool:
        if step == self.step:
            raise KeyboardInterrupt
        return False

    def ship(self, average: ScoreModel) -> dict[str, Any]:
        """Nothing."""
        return {}


def made(folder: str, out: str, steps: int, classifier: int, n: int, batch: int, stopped: bool) -> dict[str, Tensor]:
    """A short run, samples and likelihoods."""
    model, place = load(folder), Path(out) / "run"
    split = ForgetRequest(RULE).split(images_of(model, Data().of(model), "train"))
    settings = UnlearnSettings(steps=steps, batch=8, warmup=1, save_every=steps // 2)
    run: dict[str, Any] = {"folder": place, "device": "cpu", "progress": False}
    how: dict[str, Any] = {"method": moderate(steps=classifier), "settings": settings}
    if stopped:
        with suppress(KeyboardInterrupt):
            unlearn(model, split, **how, run=RunSpec(**run), watch=Stop(steps // 2 + 1))
    weights = flat(unlearn(model, split, **how, run=RunSpec(**run, resume=stopped)))
    likelihoods = log_likelihood(model, split.forget.rows(slice(n)), steps=2, check=False, batch=batch)
    samples = DPMSolver(model, steps=6).sample(n, batch=batch)
    return {"weights": weights, "samples": samples, "likelihoods": likelihoods.nats}


def losses(out: Path) -> Tensor:
    """The retain losses of a run."""
    return torch.tensor([line["retain"] for line in read_log(out / "run")])


def run(given: Sequence[str] | None = None) -> Path:
    """The benchmark; the path of its JSON file."""
    options = arguments(
        __doc__ or "", given, steps=(4, 20, "steps of a run"),
        classifier=(50, 600, "steps of the classifier that is trained before"),
        n=(8, 24, "samples, and images with a likelihood"),
    )  # fmt: skip
    report = Report(
        name="determinism",
        claim="What changes to the bit, and how much, with one thing changed: weights after a run and its losses, "
        "samples and likelihoods.",
        options=options,
    )
    found: dict[str, dict[str, Tensor]] = {}
    with TemporaryDirectory() as place:
        for case, how in {REFERENCE: {}, **CASES}.items():
            out = Path(place) / case
            out.mkdir()
            with team(how.get("processes", 1), how.get("threads", 1)) as call:
                batch, stopped = how.get("batch", options.n // 2), how.get("stopped", False)
                words = (options.model, str(out), options.steps, options.classifier, options.n, batch, stopped)
                found[case] = call(made, *words)[0]
            found[case]["losses"] = losses(out)
    report.tables["One thing changed"] = [
        {"changed": case, **{key: said(difference(found[REFERENCE][key], found[case][key])) for key in found[case]}}
        for case in CASES
    ]
    return report.write()


def difference(a: Tensor, b: Tensor) -> float:
    """0 for the same bits; else the largest difference over the largest value."""
    return 0.0 if torch.equal(a, b) else max(1e-12, float((a - b).abs().max() / a.abs().max()))


def said(apart: float) -> str:
    """In words."""
    return f"to {apart:.0e}" if apart else "to the bit"


if __name__ == "__main__":
    main(run)
