"""A folder of samples: pictures written as they are drawn, by a run that goes on exactly where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.decode import Decoder
from ..errors import Interrupted, UserError
from ..folders import IDENTITY, Making, opened
from ..processes import here
from ..progress import bar, note
from ..sampling import Sampler, fitting
from ..storage import read_json, write_bytes
from .pictures import grid, png, save_samples

PICTURES = "[0-9]" * 5 + ".png"
MOST = 10**5
"""Pictures in a folder: their names have five digits."""
MADE = Making(kind="samples", names=(PICTURES, "grid.png"))


def draw(
    sampler: Sampler,
    n: int,
    out: Path,
    *,
    identity: Mapping[str, Any],
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Write images 0 to n - 1 of the run ``seed`` as 00000.png, ... batch by batch, and grid.png of the first 100.

    The folder's ``run.json`` keeps ``identity`` (JSON values that say which model and sampler), the seed and the size
    of a batch. With ``resume`` a run that was stopped goes on, and one that was finished goes on to more images: the
    batches are those of an undisturbed run, so that the pictures are the same bit for bit. A picture that is cut off
    is drawn again.

    Raises UserError, before any work, where the folder holds something else, another run, or more than n images.
    """
    if not 1 <= n <= MOST or (batch != "auto" and batch < 1):
        raise UserError(f"samples need n from 1 to {MOST} and a batch of 1 or more; got n={n}, batch={batch}")
    everyone = here()
    size = everyone.told(lambda: _batch(sampler, out, batch, resume))
    pixels = math.prod(sampler.model.shape)
    made = replace(MADE, identity={**identity, "seed": seed, "batch": size}, size=n * (pixels + 200))
    with opened(out, made, resume=resume, overwrite=overwrite) as place:
        if not place.resumed:
            place.clear()
        whole = everyone.told(lambda: _drawn(out, n))
        first = n if whole == n else whole // size * size
        together, lost = size * everyone.size, 0
        try:
            with bar(f"{n} samples", n, done=first, show=progress) as tick:
                for start in range(first, n, together):
                    x = sampler.sample(min(together, n - start), seed=seed, batch=size, start=start, tick=tick)
                    lost += int((~x.flatten(1).isfinite().all(1)).sum())
                    save_samples(out, sampler.model.space.to_pixels(x.cpu()), start=start)
        except KeyboardInterrupt as stop:
            raise Interrupted.by(stop, f"interrupted; what was drawn is in {out}") from None
        if lost and everyone.first:
            note(f"{lost} of the {n} images hold no numbers (NaN or infinity): there the model has diverged")
        if everyone.first:
            write_bytes(out / "grid.png", png(grid(first_pictures(out, min(n, 100)))))


def _batch(sampler: Sampler, out: Path, batch: int | Literal["auto"], resume: bool) -> int:
    """Images that are drawn at a time."""
    if batch != "auto":
        return batch
    return (_begun(out) if resume else None) or fitting(sampler.model)


def _drawn(out: Path, n: int) -> int:
    """How many pictures are there and whole, from the first on; UserError for more than are asked for."""
    if (there := max((int(old.stem) + 1 for old in out.glob(PICTURES)), default=0)) > n:
        raise UserError(f"{out} already holds {there} images; ask for as many or more, or use a new folder")
    return next(k for k in count() if not _whole(picture(out, k)))


def _begun(out: Path) -> int | None:
    """The size of a batch of the run that is there, if one is."""
    there = read_json(out / IDENTITY).get("identity") if (out / IDENTITY).is_file() else None
    size = there.get("batch") if isinstance(there, dict) else None
    return size if type(size) is int and size > 0 else None


def _whole(path: Path) -> bool:
    """Whether a picture is there and complete, by its check sums."""
    from PIL import Image

    if not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError):
        return False
    return True


def picture(folder: Path, index: int) -> Path:
    """The file of one sample."""
    return folder / f"{index:05d}.png"


def first_pictures(folder: Path, n: int) -> Tensor:
    """The first n samples in a folder, uint8 (n, C, H, W)."""
    decode = Decoder()
    return torch.stack([torch.from_numpy(decode(picture(folder, k), picture(folder, k).name)) for k in range(n)])


def clear(folder: Path) -> None:
    """Remove the numbered samples of an earlier run, so that what is in the folder is one run's."""
    for old in folder.glob(PICTURES):
        old.unlink()
