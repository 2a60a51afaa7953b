"""Commands that edit images with a model: inpaint, reconstruct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from ..choice import Choice
from ..data import ForgetRequest, Images
from ..errors import UserError
from ..formats.native import EMBEDDED
from ..formats.tensors import weights_sha256
from ..metrics.judge import Judge
from ..metrics.restoration import check_judge, restored
from ..model.score import ScoreModel
from ..progress import bar
from ..report.comparison import comparison
from ..report.page import commit, write_json
from ..report.pictures import png, save_samples
from ..report.samples import clear
from ..sampling import SAMPLERS, Heun
from ..sampling.editing import STEPS, check_settings, read_mask
from ..sampling.editing import inpaint as fill_in
from ..sampling.editing import reconstruct as rebuild
from ..storage import claim, write_bytes
from .options import Data, hardware, images_of
from .reading import read_model

SHOWN = 16
"""Images of each set in comparison.png."""
SETS, COLUMNS = ("all", "retain", "forget"), ("before", "masked", "after")
UNKNOWN = 128
"""Grey of unknown pixels in pictures."""


def inpaint(
    model: str,
    *,
    mask: str,
    out: Path,
    command: str,
    images: str | None = None,
    data: Data = Data(),
    forget: str | None = None,
    judge: str | None = None,
    n: int = 16,
    sampler: Annotated[Choice, SAMPLERS] = Choice.of("pc", steps=STEPS),
    resample: int = 1,
    jump: int = 1,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Fill in unknown pixels of images: before, masked and after as PNGs, comparison.png, results.json.

    Args:
        model: a model folder, or demo.
        mask: what is unknown; upper-half, band, box:x,y,w,h, or an image file that is white there.
        out: folder for the pictures and results.json.
        images: a folder of images of your own, instead of a data set.
        data: the test images; by default those of the model's record.
        forget: rule that parts the images, n of each part are filled in; by default the model's own request, if any.
        judge: a judge folder, or demo for the MNIST judge in the package; by default demo for its images, else none.
        n: images of each set, the first ones.
        sampler: how it is drawn; pc is the predictor-corrector of the paper.
        resample: how often each step is made (RePaint); more fits the unknown pixels better to the known ones.
        jump: steps between two of RePaint's jumps back.
        seed: image k depends on the seed and k alone.
        threads: CPU threads.
        device: auto, cpu or cuda.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    job = _prepare(model, out, overwrite, device, images, data, forget, judge, n)
    check_settings(resample=resample, jump=jump)
    known = read_mask(mask, job.model.shape)
    drawer = sampler.maker("sampler", SAMPLERS)(job.model)

    def edit(pixels: Tensor, tick: Callable[[float], None]) -> Tensor:
        return fill_in(drawer, pixels, known, resample=resample, jump=jump, seed=seed, tick=tick)

    settings = {"mask": mask, "sampler": sampler.name, **dict(sampler.options), "resample": resample, "jump": jump}
    job.run(edit, known, out, {"command": command, "seed": seed, "settings": settings})


def reconstruct(
    model: str,
    *,
    out: Path,
    command: str,
    images: str | None = None,
    data: Data = Data(),
    forget: str | None = None,
    judge: str | None = None,
    n: int = 16,
    perturb: float = 0.02,
    steps: int = 40,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Rebuild images from their own latents, slightly disturbed: PNGs before and after, comparison.png, results.json.

    Args:
        model: a model folder, or demo.
        out: folder for the pictures and results.json.
        images: a folder of images of your own, instead of a data set.
        data: the test images; by default those of the model's record.
        forget: rule that parts the images, n of each part are rebuilt; by default the model's own request, if any.
        judge: a judge folder, or demo for the MNIST judge in the package; by default demo for its images, else none.
        n: images of each set, the first ones.
        perturb: time to which the latent is noised, from 0 (not at all) to 1.
        steps: times that Heun visits on each way.
        seed: image k depends on the seed and k alone.
        threads: CPU threads.
        device: auto, cpu or cuda.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    job = _prepare(model, out, overwrite, device, images, data, forget, judge, n)

    check_settings(perturb=perturb)
    flow = Heun(job.model, steps=steps)

    def edit(pixels: Tensor, tick: Callable[[float], None]) -> Tensor:
        return rebuild(flow, pixels, perturb=perturb, seed=seed, tick=tick)

    settings = {"perturb": perturb, "steps": steps}
    job.run(edit, None, out, {"command": command, "seed": seed, "settings": settings})


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A model, the sets of images that it is to edit, and who judges the results."""

    name: str
    model: ScoreModel
    sets: Mapping[str, Images]
    request: ForgetRequest | None
    judge: Judge | None
    judged_by: str | None

    def run(self, edit: Callable[..., Tensor], known: Tensor | None, out: Path, record: Mapping[str, Any]) -> None:
        """Edit every set, and write all there is to see of it into ``out``."""
        groups, found = {}, {}
        for key, data in self.sets.items():
            before = data.rows()
            with bar(f"{key}: {len(data)} images", len(data)) as tick:
                after = edit(before, tick)
            columns = {"before": before, "after": after}
            if known is not None:
                columns = {"before": before, "masked": before.where(known, UNKNOWN), "after": after}
            groups[key] = columns
            region = None if known is None else ~known
            found[key] = restored(data, after, region=region, judge=self.judge, request=self.request)
        for key, column in product(SETS, COLUMNS):
            clear(out / key / column)
        for key, columns in groups.items():
            for column, pixels in columns.items():
                save_samples(out / key / column, pixels)
            print(f"{key}: {found[key]}")
        shown = {key: {name: pixels[:SHOWN] for name, pixels in columns.items()} for key, columns in groups.items()}
        write_bytes(out / "comparison.png", png(comparison(shown)))
        results = {
            **record,
            "commit": commit(),
            "model": {"name": self.name, "weights_sha256": weights_sha256(self.model.network)},
            "rule": self.request.rule if self.request else None,
            "judge": self.judged_by,
            "sets": found,
        }
        write_json(out / "results.json", results)
        print(f"look at {out / 'comparison.png'}")


def _prepare(
    model: str,
    out: Path,
    overwrite: bool,
    device: str,
    images: str | None,
    data: Data,
    forget: str | None,
    judge: str | None,
    n: int,
) -> _Job:
    """Read all that is asked for; `UserError` where it does not fit together."""
    claim(out, overwrite=overwrite)
    if n < 1:
        raise UserError(f"--n must be 1 or more; got {n}")
    if images and data.name:
        raise UserError("--images and --data both say which images; give one of them")
    editor = read_model(model).to(device)
    asked = replace(data, name=images or data.name).of(editor)
    found = images_of(editor, asked, "train" if images else "test")
    rule = forget or (None if images else editor.record.get("request", {}).get("rule"))
    request, sets = ForgetRequest(rule) if rule else None, {"all": found}
    if request is not None:
        mask = request.mask(found)
        sets = {"retain": found.select(~mask), "forget": found.select(mask)}
    for key, part in sets.items():
        if not len(part):
            raise UserError(f"rule {rule!r} leaves no {key} images of {found.name}")
    if judge is None and found.name == EMBEDDED:
        judge = EMBEDDED
    classifier = Judge.load(judge) if judge else None
    if classifier is not None:
        check_judge(classifier, found, request)
    sets = {key: part.select(slice(n)) for key, part in sets.items()}
    return _Job(name=model, model=editor, sets=sets, request=request, judge=classifier, judged_by=judge)
