"""Editing with a model as it is: fill in the unknown pixels of images, or rebuild images from their latents."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..data.decode import Decoder
from ..errors import UserError
from ..model.modes import blank, evaluating
from ..model.score import ScoreModel
from ..process.sde import SDE
from . import Heun, PredictorCorrector, Sampler, Streams, Tick, fitting
from .stochastic import transition

STEPS = 200
"""Of the predictor-corrector sampler that inpaints by default; Song et al. take 1,000."""
MASKS = "upper-half, band, box:x,y,w,h or an image file (white where unknown)"


def inpaint(
    model: ScoreModel | Sampler,
    images: Tensor,
    known: Tensor,
    *,
    resample: int = 1,
    jump: int = 1,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    start: int = 0,
    tick: Tick | None = None,
) -> Tensor:
    """The images with their unknown pixels drawn anew by the model, given the known ones.

    The sampler (``model`` is one, or a `ScoreModel`) takes its steps from t to s on whole images; after each,
    the known region is put back from the input x_0, noised to the same time (Song et al. 2021, App. I.2):

        x_s = known (alpha(s) x_0 + sigma(s) eps) + (1 - known) step(x_t)

    The last denoising step leaves no noise in the unknown pixels. This is an approximation: the unknown pixels
    meet the known ones only through noise. It is exact where the two are independent. ``resample`` > 1 comes
    closer for that many times the work (Lugmayr et al. 2022, RePaint, Algorithm 1): every ``jump`` steps the
    image is noised again, ``jump`` steps back, and these steps are repeated, ``resample`` times in all.

    ``images``: uint8 (B, *shape), or floats in model space; the result is of the same kind, and its known
    pixels are those of the input, bit by bit. ``known``: bool, of a shape that expands to that of the images.
    Image i depends on (``seed``, ``start`` + i) alone, whatever the ``batch``; where nothing is known it is
    the sampler's image of that seed and number. ``tick`` drives a progress bar of B images.

    Raises `UserError`, before any work, for images or masks that do not fit and for settings below 1.
    """
    sampler = model if isinstance(model, Sampler) else PredictorCorrector(model, steps=STEPS)
    score, sde = sampler.model, sampler.model.sde
    check_settings(resample=resample, jump=jump, batch=batch)
    _check(score, images)
    if known.dtype != torch.bool or not _expands(known, images):
        raise UserError(
            f"known must be a bool mask that expands to images of shape {tuple(images.shape)}, "
            f"got {known.dtype} {tuple(known.shape)}"
        )
    if bool(known.all()):
        raise UserError("every pixel is known; mark those to fill in as unknown (False)")
    batch = fitting(score) if batch == "auto" else batch
    known, grid = known.to(images.device).expand_as(images), sampler.times()
    walk = _walk(len(grid), resample, jump)
    out = []
    with evaluating(score):
        for first in range(0, len(images), batch):
            pixels, keep = images[first : first + batch], known[first : first + batch].to(score.device)
            x0, index = _clean(score, pixels), range(start + first, start + first + len(pixels))
            streams, fresh = Streams(seed, index), Streams((seed, "known"), index)
            x = sde.prior_std * streams.normal(x0)
            x = torch.where(keep, sde.marginal(x0, grid[0], fresh.normal(x)), x)
            for here, there in pairwise(walk):
                t, s = grid[here], grid[there]
                x = sampler.step(x, t, s, streams) if there > here else _noised(sde, x, t, s, fresh)
                x = torch.where(keep, sde.marginal(x0, s, fresh.normal(x)), x)
                if tick is not None:
                    tick(len(pixels) / len(walk))
            filled = _as(score, score.denoise(x, grid[-1]), pixels)
            out.append(torch.where(keep.to(pixels.device), pixels, filled))
            if tick is not None:
                tick(len(pixels) / len(walk))
    return torch.cat(out)


def reconstruct(
    model: ScoreModel | Heun,
    images: Tensor,
    *,
    perturb: float = 0.02,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    start: int = 0,
    tick: Tick | None = None,
) -> Tensor:
    """The images that the model rebuilds from their own latents, slightly disturbed.

    The probability-flow ODE (Song et al. 2021, Sec. 4.3) takes an image, read at time t_min without added noise,
    to its latent z at t = 1 and back, by `Heun` (``model`` is one, or a `ScoreModel`: 40 times each way). In between
    the latent is noised to the time ``perturb``, in units of p, the prior's standard deviation:

        z' = p (alpha(perturb) z/p + sigma(perturb) eps)

    VP has p = 1, and its latents stay distributed as they were. VE's latents have a deviation of sigma_max,
    beside which sigma(0.02) alone would be nothing. ``perturb=0`` leaves the latent as it is: the result is
    then the input but for the error of the steps, whatever the model.

    ``images``: uint8 (B, *shape), or floats in model space; the result is of the same kind. Image i depends on
    (``seed``, ``start`` + i) alone, whatever the ``batch``. ``tick`` drives a progress bar of B images.

    Raises `UserError`, before any work, for images that do not fit and for bad settings.
    """
    flow = model if isinstance(model, Heun) else Heun(model, steps=40)
    score, sde = flow.model, flow.model.sde
    check_settings(perturb=perturb, batch=batch)
    _check(score, images)
    batch = fitting(score) if batch == "auto" else batch
    grid, t = flow.times(), torch.tensor(perturb, dtype=torch.float64)
    out = []
    with evaluating(score):
        for first in range(0, len(images), batch):
            pixels = images[first : first + batch]
            x, streams = _clean(score, pixels), Streams(seed, range(start + first, start + first + len(pixels)))
            for way in (grid.flip(0), grid):
                for here, there in pairwise(way):
                    x = flow.step(x, here, there, streams)
                    if tick is not None:
                        tick(len(pixels) / (2 * (len(grid) - 1)))
                if way is not grid and perturb > 0:
                    x = sde.prior_std * sde.marginal(x / sde.prior_std, t, streams.normal(x))
            out.append(_as(score, x, pixels))
    return torch.cat(out)


def read_mask(spec: str, shape: tuple[int, ...]) -> Tensor:
    """The known pixels, bool (H, W), of images of shape (C, H, W) by a short description of the unknown ones.

    ``upper-half``; ``band``: rows H/2 to 3H/4, a quarter of the image (rows 32-47 of 64); ``box:x,y,w,h``: w x h
    pixels from column x and row y on, counted from the upper left corner; or an image file of the same height
    and width, white (128 or more) where unknown. Raises `UserError` for anything else, and for a mask that
    leaves nothing to fill in.
    """
    height, width = shape[-2:]
    known = torch.ones(height, width, dtype=torch.bool)
    if spec == "upper-half":
        known[: height // 2] = False
    elif spec == "band":
        known[height // 2 : 3 * height // 4] = False
    elif spec.startswith("box:"):
        try:
            x, y, w, h = map(int, spec.removeprefix("box:").split(","))
        except ValueError:
            raise UserError(f"mask {spec!r}: a box is box:x,y,w,h in whole pixels, as box:4,0,20,14") from None
        if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
            raise UserError(f"mask {spec!r}: no such box in images of {width}x{height} pixels")
        known[y : y + h, x : x + w] = False
    elif Path(spec).is_file():
        pixels = torch.from_numpy(Decoder(background="refuse")(Path(spec), spec))
        if pixels.shape[1:] != known.shape:
            size = f"{pixels.shape[2]}x{pixels.shape[1]}"
            raise UserError(f"mask {spec}: {size} pixels, but the images have {width}x{height}; draw it at that size")
        known = pixels.float().mean(0) < 128
    else:
        raise UserError(f"no mask {spec!r}; it is one of {MASKS}")
    if bool(known.all()):
        raise UserError(f"mask {spec}: leaves nothing to fill in")
    return known


def _walk(steps: int, resample: int, jump: int) -> list[int]:
    """The places in the grid, in the order of the visits; a smaller one than before is a jump back."""
    walk = [0]
    for first in range(0, steps - 1, jump):
        ahead = range(first + 1, min(first + jump, steps - 1) + 1)
        walk += [*ahead, *([first, *ahead] * (resample - 1))]
    return walk


def _noised(sde: SDE, x: Tensor, t: Tensor, s: Tensor, streams: Streams) -> Tensor:
    """x_s drawn given x_t, for s > t: a step of the forward process."""
    return sde.alpha(s) / sde.alpha(t) * x + transition(sde, s, t) * streams.normal(x)


def check_settings(
    *, resample: int = 1, jump: int = 1, perturb: float = 0.0, batch: int | Literal["auto"] = "auto"
) -> None:
    """Raise `UserError` for settings of `inpaint` or `reconstruct` that mean nothing."""
    for name, value in {"resample": resample, "jump": jump, "batch": 1 if batch == "auto" else batch}.items():
        if not 1 <= value <= 10**6:
            raise UserError(f"{name} must be at least 1, and at most a million, got {value}")
    if not 0 <= perturb <= 1:
        raise UserError(f"perturb must be a time from 0 (none) to 1, got {perturb}")


def _check(model: ScoreModel, images: Tensor) -> None:
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"images must be uint8 pixels or floats in model space, got {images.dtype}; convert them")
    if tuple(images.shape[1:]) != model.shape or len(images) == 0:
        raise UserError(
            f"the model edits images of shape {model.shape}, got {len(images)} of {tuple(images.shape[1:])}; "
            "resize them or change their channels to match"
        )


def _expands(known: Tensor, images: Tensor) -> bool:
    try:
        known.expand_as(images)
    except RuntimeError:
        return False
    return True


def _clean(model: ScoreModel, images: Tensor) -> Tensor:
    """Images in model space, of the model's type and device."""
    return (model.space.to_model(images) if images.dtype == torch.uint8 else images).to(blank(model, 1))


def _as(model: ScoreModel, x: Tensor, images: Tensor) -> Tensor:
    """x in model space as what ``images`` is: pixels or floats, on its device."""
    return model.space.to_pixels(x).to(images.device) if images.dtype == torch.uint8 else x.to(images)
