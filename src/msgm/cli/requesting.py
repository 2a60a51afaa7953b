"""The command that looks at a request before anything is trained: request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data import Images, Request, Source
from ..errors import UserError
from ..experiments.preview.main import MADE, counts
from ..experiments.preview.main import preview as look
from ..folders import ready
from ..formats import Reading
from ..metrics.alike import alike
from ..metrics.features import IMAGENET, features
from ..training.earlier import forgetting
from .asking import WAYS, Forget, pictures
from .options import Data, hardware, images_of, opened, say
from .reading import read_model


@dataclass(frozen=True, kw_only=True)
class Alike:
    """A search in place of a rule or a list.

    Args:
        like: folder of examples; what is like one of them is meant.
        text: words; what CLIP finds like them is meant.
        similarity: cosine similarity from which on an image is like another; without it the nearest are told.
        features: what it is measured in: imagenet, a judge's folder, or a CLIP model.
    """

    like: Path | None = None
    text: str | None = None
    similarity: float | None = None
    features: str = IMAGENET

    @property
    def wanted(self) -> bool:
        """Whether anything is searched for."""
        return self.like is not None or self.text is not None

    def of(self, images: Images, source: Source) -> Request:
        """The images that were found. UserError for both ways at once."""
        if self.like is not None and self.text is not None:
            raise UserError("search by --like or by --text, not by both")
        what = self.text if self.like is None else pictures(self.like, source, "like")
        assert what is not None
        return alike(images, what, features(self.features), self.similarity)


def request(
    *,
    command: str,
    asked: Forget = Forget(),
    search: Alike = Alike(),
    model: str | None = None,
    data: Data = Data(),
    reading: Reading = Reading(),
    preview: Path | None = None,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Which images a request means: how many, of which labels, and how many of them lie on both sides.

    With --preview a sheet of those to be forgotten (forget.png), one of the nearest that would be kept (nearest.png),
    and request.json, which --forget-list takes: what was looked at is what will be forgotten.

    Args:
        asked: What is to be forgotten
        search: What is to be found, and forgotten
        model: the model that is to forget, whose data and earlier requests count; by default none.
        data: the images; by default those of the model's record.
        preview: folder for the sheets and the numbers.
        threads: CPU threads.
        overwrite: replace what is in that folder.
    """
    hardware(threads)
    if search.wanted == (asked != Forget()):
        raise UserError(f"say in one way what is to be forgotten: {WAYS}, --like FOLDER or --text WORDS")
    asked.check()
    if preview is not None:
        ready(preview, MADE, overwrite=overwrite)
    if model is None and data.name is None:
        raise UserError("say which images: --data NAME, or --model MODEL for those of its record")
    read = read_model(model, reading) if model is not None else None
    source = data.of(read) if read is not None else data.source
    images = images_of(read, source, "train") if read is not None else opened(source)
    meant = search.of(images, source) if search.wanted else asked.needed(source)
    split = meant.split(images)
    if read is not None:
        split, _ = forgetting(split, read.record, "forget")
    say(split.notes)
    found = counts(split)
    print(f"forget {split.request.words}: {found['forget']} of {found['images']} images; {found['retain']} retained")
    for label, each in found["labels"].items():
        print(f"  {label:<20} {each['forget']:>7} forgotten {each['retain']:>7} retained")
    if preview is not None:
        look(split, meant, preview, command=command, overwrite=overwrite)
        print(f"look at {preview / 'forget.png'} and {preview / 'nearest.png'}")
