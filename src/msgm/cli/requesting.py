"""The command that looks at a request before anything is trained: request."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..experiments.preview.main import MADE, counts
from ..experiments.preview.main import preview as look
from ..folders import ready
from ..formats import Reading
from ..training.earlier import forgetting
from .asking import Forget
from .options import Data, images_of, opened, say
from .reading import read_model


def request(
    *,
    command: str,
    asked: Forget = Forget(),
    model: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    preview: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Which images a request means: how many, of which labels, and how many of them lie on both sides.

    With --preview a sheet of those to be forgotten (forget.png) and of the nearest that would be kept (nearest.png).

    Args:
        asked: What is to be forgotten
        model: the model that is to forget, whose data and earlier requests count; by default none.
        data: the images; by default those of the model's record.
        preview: folder for the sheets and the numbers.
        overwrite: replace what is in that folder.
    """
    asked.check(needed=True)
    if preview is not None:
        ready(preview, MADE, overwrite=overwrite)
    if model is None and data.name is None:
        raise UserError("say which images: --data NAME, or --model MODEL for those of its record")
    if model is None:
        split = asked.needed(data.source).split(opened(data.source))
    else:
        read = read_model(model, reading)
        source = data.of(read)
        split = asked.needed(source).split(images_of(read, source, "train"))
        split, _ = forgetting(split, read.record, "forget")
    say(split.notes)
    found = counts(split)
    print(f"forget {split.request.words}: {found['forget']} of {found['images']} images; {found['retain']} retained")
    for label, each in found["labels"].items():
        print(f"  {label:<20} {each['forget']:>7} forgotten {each['retain']:>7} retained")
    if preview is not None:
        look(split, preview, command=command, overwrite=overwrite)
        print(f"look at {preview / 'forget.png'} and {preview / 'nearest.png'}")
