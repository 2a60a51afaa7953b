"""A folder of samples: pictures written as they are drawn, by a run that goes on exactly where it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.decode import Decoder
from ..errors import Interrupted, UserError
from ..progress import bar
from ..sampling import Sampler, fitting
from ..storage import claim, read_json, write_bytes, write_json
from .pictures import grid, png, save_samples

RECORD = "samples.json"


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

    ``samples.json`` keeps ``identity`` (JSON values that say which model and sampler), the seed and the size of a
    batch. With ``resume`` a run that was stopped goes on, and one that was finished goes on to more images: the
    batches are those of an undisturbed run, so that the pictures are the same bit for bit.

    Raises UserError, before any work, where the folder holds something else, another run, or more than n images.
    """
    if n < 1 or (batch != "auto" and batch < 1):
        raise UserError(f"samples need n and batch of 1 or more; got n={n}, batch={batch}")
    wanted, first = {**identity, "seed": seed}, 0
    if resume and (out / RECORD).is_file():
        begun = read_json(out / RECORD)
        size = int(begun.pop("batch", 0))
        other = [key for key in wanted if begun.get(key) != wanted[key]] + ["batch"] * (batch not in ("auto", size))
        if other:
            raise UserError(
                f"{out} was begun with another {', '.join(other)}; resume with the same or use a new folder"
            )
        there = next(k for k in count() if not picture(out, k).exists())
        if there > n:
            raise UserError(f"{out} already holds {there} images; ask for as many or more, or use a new folder")
        # The last picture may have been cut off in the middle: its batch is drawn again.
        first = max(0, there - 1) // size * size
    else:
        claim(out, overwrite=overwrite)
        size = fitting(sampler.model) if batch == "auto" else batch
        out.mkdir(parents=True, exist_ok=True)
        clear(out)
        write_json(out / RECORD, {**wanted, "batch": size})
    try:
        with bar(f"{n} samples", n, done=first, show=progress) as tick:
            for start in range(first, n, size):
                x = sampler.sample(min(size, n - start), seed=seed, batch=size, start=start, tick=tick)
                save_samples(out, sampler.model.space.to_pixels(x.cpu()), start=start)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; what was drawn is in {out}", resumable=True) from None
    write_bytes(out / "grid.png", png(grid(first_pictures(out, min(n, 100)))))


def picture(folder: Path, index: int) -> Path:
    """The file of one sample."""
    return folder / f"{index:05d}.png"


def first_pictures(folder: Path, n: int) -> Tensor:
    """The first n samples in a folder, uint8 (n, C, H, W)."""
    decode = Decoder()
    return torch.stack([torch.from_numpy(decode(picture(folder, k), picture(folder, k).name)) for k in range(n)])


def clear(folder: Path) -> None:
    """Remove the numbered samples of an earlier run, so that what is in the folder is one run's."""
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):
        old.unlink()
