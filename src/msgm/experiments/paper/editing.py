"""What an edited image says of a model: half filled in (the paper's Table 3), rebuilt from its latent (Table 4)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...data import ForgetRequest, Images
from ...formats import load
from ...metrics.distances import frechet_distance
from ...metrics.judge import Judge
from ...metrics.restoration import restored
from ...metrics.similarity import ssim
from ...model.score import ScoreModel
from ...report.comparison import UNKNOWN, comparison
from ...report.pictures import png
from ...sampling import Heun, PredictorCorrector
from ...sampling.editing import inpaint, read_mask, reconstruct
from ...storage import write_bytes
from ...training.runtime import Runtime
from .budgets import EditSettings
from .printed import Edit

EDITED = "edited.png"
SHOWN = 8
"""Images of each set in a picture."""


def edited(
    model: Path,
    edit: Edit,
    *,
    test: Images,
    rule: ForgetRequest,
    judge: Judge,
    mask: str,
    settings: EditSettings,
    runtime: Runtime,
    picture: Path,
) -> dict[str, Any]:
    """Numbers of each set, the first test images of it, and a picture of some, before and after.

    ``accuracy``: the share that the judge gives their own label, ``clean`` that of the originals. The rest compares
    edited images with their originals: ``psnr`` and ``ssim`` over whole images; ``frechet``, the Fréchet distance of
    the judge's features; ``features``, the mean of their cosine distances, in hundredths. Each with the standard error
    of its mean over the images, where it is a mean.
    """
    score = runtime.place(load(model))
    known = read_mask(mask, score.shape) if edit == "inpaint" else None
    chosen, found, shown = rule.mask(test), {}, {}
    for name, rows in (("retain", ~chosen), ("forget", chosen)):
        part = test.select(rows).select(slice(settings.n))
        before = part.rows()
        with runtime.active():
            after = _edit(score, before.to(runtime.device), known, settings).cpu()
        found[name] = _compared(part, before, after, judge)
        masked = {} if known is None else {"masked": before.where(known, UNKNOWN)[:SHOWN]}
        shown[name] = {"before": before[:SHOWN], **masked, "after": after[:SHOWN]}
    write_bytes(picture, png(comparison(shown)))
    return {"sets": found}


def _edit(model: ScoreModel, pixels: Tensor, known: Tensor | None, settings: EditSettings) -> Tensor:
    if known is None:
        return reconstruct(Heun(model, steps=settings.flow_steps), pixels, seed=settings.seed)
    sampler = PredictorCorrector(model, steps=settings.inpaint_steps)
    return inpaint(sampler, pixels, known.to(pixels.device), seed=settings.seed)


def _compared(part: Images, before: Tensor, after: Tensor, judge: Judge) -> dict[str, Any]:
    device = next(judge.parameters()).device
    rates = restored(part, after.to(device), judge=judge)
    assert rates.accuracy is not None and rates.accuracy_before is not None
    ours, theirs = (judge.features(x.to(device)).cpu() for x in (after, before))
    alike = _mean(ssim(before, after))
    apart = _mean(100 * (1 - functional.cosine_similarity(ours.double(), theirs.double())))
    return {
        "n": len(part),
        "accuracy": round(rates.accuracy.value * len(part)),
        "clean": round(rates.accuracy_before.value * len(part)),
        "psnr": {"value": rates.psnr, "stderr": rates.psnr_stderr},
        "ssim": alike,
        "features": apart,
        "frechet": frechet_distance(ours, theirs),
    }


def _mean(values: Tensor) -> dict[str, float | None]:
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return {"value": float(values.mean()), "stderr": error}
