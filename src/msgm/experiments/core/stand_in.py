"""Where all images are to be forgotten and none are there to be retained: the model's own samples stand in."""

from __future__ import annotations

import torch

from ...data import Images, Request, Split, together
from ...data.near import near
from ...errors import UserError
from ...metrics.judge import JUNK, Judge
from ...metrics.shares import forget_classes
from ...metrics.worth import LEAST_RECALL, by_rules, verdicts_on
from ...model.score import ScoreModel
from ...progress import bar
from ...sampling import DPMSolver

MOST = 1_000_000
"""Samples that may be asked for."""


def stand_in(
    model: ScoreModel, images: Images, request: Request, *, n: int, judge: Judge | None, seed: int,
    also: Request | None = None, show: bool = True,
) -> Split:  # fmt: skip
    """The images to forget, and of ``n`` samples of the model those that are none of them, to retain.

    The ``judge`` says which: a sample of a class to forget, or junk, is left out. Without one a sample is left out that
    looks like an image to forget (`data.near`): of anything else the model draws alike it knows nothing. ``also`` is
    what was to be forgotten earlier: a judge leaves out samples of its classes, too. Raises UserError where the request
    leaves images to retain, for a judge of other images or one that does not know those to forget, and where no sample
    is left.
    """
    meant = int(request.mask(images).sum())
    if meant < len(images):
        raise UserError(
            f"{request} leaves {len(images) - meant} of {len(images)} images to retain: no samples are needed"
        )
    if not 1 <= n <= MOST:
        raise UserError(f"samples to retain must be 1 or more, and at most {MOST}; got {n}")
    if judge is not None:
        _check(judge, model, images, request)
    with bar(f"{n} samples to retain", n, show=show) as tick:
        pixels = model.space.to_pixels(DPMSolver(model).sample(n, seed=seed, tick=tick)).cpu()
    every = request if also is None else together(request, also)
    if judge is None:
        bad = near(Images.of(pixels, name="samples"), images)
    else:
        bad = torch.isin(judge.predict(pixels), torch.tensor([JUNK, *forget_classes(every, judge)]))
    kept = pixels[~bad]
    if not len(kept):
        raise UserError(f"of {n} samples none is left to retain; take more of them, or give images to retain")
    whole = Images.of(
        torch.cat([images.rows(), kept]),
        columns={
            name: torch.cat([values, torch.full((len(kept),), -1)]) for name, values in images.columns.items()
        },
        name=images.name, about=images.about, label_names=images.label_names, source=images.source,
        # The samples follow from the model, their number and their seed, which are on record; the images must be these.
        known={"digest": images.digest},
    )  # fmt: skip
    return Split(
        whole=whole, retain=whole.select(slice(len(images), None)), forget=whole.select(slice(len(images))),
        request=request, samples={"drawn": n, "seed": seed, "by": "judge" if judge is not None else "thumbnails"},
    )  # fmt: skip


def _check(judge: Judge, model: ScoreModel, images: Images, request: Request) -> None:
    if judge.shape != model.shape:
        raise UserError(
            f"the judge takes images of shape {judge.shape}, not {model.shape}; name another", option="judge"
        )
    verdicts = verdicts_on(judge, images.select(by_rules(request, images)))
    found = torch.isin(verdicts, torch.tensor(sorted(forget_classes(request, judge)))).double().mean()
    if found < LEAST_RECALL:
        raise UserError(
            f"the judge cannot tell what is to be forgotten: it finds {found:.0%} of {len(verdicts)} images of it; "
            "name a judge that was trained on such data",
            option="judge",
        )
