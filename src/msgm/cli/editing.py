"""Commands that edit images with a model: inpaint, reconstruct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from ..choice import Choice
from ..data import Images
from ..errors import UserError
from ..experiments.editing.main import MADE, edit
from ..folders import ready
from ..formats import Reading
from ..formats.native import EMBEDDED
from ..formats.tensors import weights_sha256
from ..metrics.judge import Judge
from ..metrics.restoration import Restored
from ..model.score import ScoreModel
from ..progress import Tick
from ..sampling import SAMPLERS, Heun
from ..sampling.editing import STEPS, check_settings, read_mask
from ..sampling.editing import inpaint as fill_in
from ..sampling.editing import reconstruct as rebuild
from .asking import Forget, looked_at
from .options import Data, hardware, images_of, judged_by_package
from .reading import read_model


def inpaint(
    model: str,
    *,
    mask: str,
    out: Path,
    command: str,
    images: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    request: Forget = Forget(),
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
        request: What parts the images, n of each; by default the model's own request, if any
        judge: a judge folder, or demo for the MNIST judge in the package; by default demo for MNIST, else none.
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
    ready(out, MADE, overwrite=overwrite)
    editor = read_model(model, reading).to(device)
    check_settings(resample=resample, jump=jump)
    known = read_mask(mask, editor.shape)
    drawer = sampler.maker("sampler", SAMPLERS)(editor)

    def how(pixels: Tensor, tick: Tick) -> Tensor:
        return fill_in(drawer, pixels, known, resample=resample, jump=jump, seed=seed, tick=tick)

    settings = {"mask": mask, "sampler": sampler.name, **dict(sampler.options), "resample": resample, "jump": jump}
    record = {"command": command, "seed": seed, "settings": settings, "model": _named(model, editor)}
    asked = _asked(editor, images, data, request, judge)
    _show(edit(how=how, known=known, out=out, n=n, record=record, overwrite=overwrite, **asked), out)


def reconstruct(
    model: str,
    *,
    out: Path,
    command: str,
    images: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    request: Forget = Forget(),
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
        request: What parts the images, n of each; by default the model's own request, if any
        judge: a judge folder, or demo for the MNIST judge in the package; by default demo for MNIST, else none.
        n: images of each set, the first ones.
        perturb: time to which the latent is noised, from 0 (not at all) to 1.
        steps: times that Heun visits on each way.
        seed: image k depends on the seed and k alone.
        threads: CPU threads.
        device: auto, cpu or cuda.
        overwrite: replace what is in the output folder.
    """
    device = hardware(threads, device)
    ready(out, MADE, overwrite=overwrite)
    editor = read_model(model, reading).to(device)
    check_settings(perturb=perturb)
    flow = Heun(editor, steps=steps)

    def how(pixels: Tensor, tick: Tick) -> Tensor:
        return rebuild(flow, pixels, perturb=perturb, seed=seed, tick=tick)

    settings = {"perturb": perturb, "steps": steps}
    record = {"command": command, "seed": seed, "settings": settings, "model": _named(model, editor)}
    asked = _asked(editor, images, data, request, judge)
    _show(edit(how=how, out=out, n=n, record=record, overwrite=overwrite, **asked), out)


def _asked(editor: ScoreModel, folder: str | None, data: Data, forget: Forget, judge: str | None) -> dict[str, Any]:
    """The images, the request that parts them and the judge: those that are named, else those of the record."""
    if folder and data.name:
        raise UserError("--images and --data both say which images; give one of them")
    asked = replace(data, name=folder or data.name).of(editor)
    request = forget.given(asked) if folder else forget.of(editor, asked)
    images: Images = images_of(editor, asked, "train") if folder else looked_at(editor, asked, request)
    judge = judge or (EMBEDDED if judged_by_package(asked) else None)
    return {
        "images": images,
        "request": request,
        "judge": Judge.load(judge) if judge else None,
        "judged_by": judge,
    }


def _named(name: str, editor: ScoreModel) -> dict[str, str]:
    return {"name": name, "weights_sha256": weights_sha256(editor.network)}


def _show(found: Mapping[str, Restored], out: Path) -> None:
    for key, each in found.items():
        print(f"{key}: {each}")
    print(f"look at {out / 'comparison.png'}")
