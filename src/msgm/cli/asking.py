"""What is to be forgotten, as a command is told: by a rule, or image by image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import FileRequest, ForgetRequest, ImageRequest, Images, IndexRequest, Request, Source, request_of
from ..errors import UserError
from ..experiments.preview.main import request_in
from ..formats.native import EMBEDDED
from ..metrics.judge import Judge
from ..metrics.shares import rules_of
from ..model.score import ScoreModel
from ..storage import read_text
from .options import images_of, meant, say

WAYS = "--forget RULE, --forget-list FILE, --forget-dir FOLDER or --forget-index ROWS"


@dataclass(frozen=True, kw_only=True)
class Forget:
    """One way of saying it.

    Args:
        forget: rule, as "label in [3, 7]".
        forget_list: file that names images, one a line, or request.json.
        forget_dir: folder with copies of the images.
        forget_index: row numbers, from 0, as 3,17.
    """

    forget: str | None = None
    forget_list: Path | None = None
    forget_dir: Path | None = None
    forget_index: str | None = None

    def check(self, *, needed: bool = False) -> None:
        """UserError for two ways at once, and where it is ``needed`` for none."""
        said = [value for value in vars(self).values() if value is not None]
        if len(said) > 1 or (needed and not said):
            raise UserError(f"say in one way what is to be forgotten: {WAYS}")

    @property
    def compares(self) -> bool:
        """Whether the images must be there to say what is meant."""
        return self.forget_dir is not None or self._looked_at

    @property
    def _looked_at(self) -> bool:
        return self.forget_list is not None and self.forget_list.suffix == ".json"

    def given(self, source: Source | None) -> Request | None:
        """The request that was said of these images; without them where it does not `compares`."""
        self.check()
        if self.forget_list is not None and self._looked_at:
            return request_in(self.forget_list, source.open() if source is not None else None)
        if self.forget_list is not None:
            return FileRequest(_lines(self.forget_list))
        if self.forget_index is not None:
            return IndexRequest(_numbers(self.forget_index))
        if self.forget_dir is not None:
            assert source is not None
            return ImageRequest.of(pictures(self.forget_dir, source, "forget-dir"))
        return ForgetRequest(self.forget) if self.forget is not None else None

    def needed(self, source: Source) -> Request:
        """`given`; UserError where nothing was said."""
        self.check(needed=True)
        request = self.given(source)
        assert request is not None
        return request

    def of(self, model: ScoreModel, source: Source | None) -> Request | None:
        """`given`, else the model's own request, if its record has one."""
        own: dict[str, Any] = model.record.get("request") or {}
        return self.given(source) or (request_of(own) if own else None)


def looked_at(model: ScoreModel, source: Source, request: Request | None) -> Images:
    """The images that a request parts: test images, or training images where it names some of these."""
    return meant(model, images_of(model, source, "train" if request is not None and request.lists else "test"), request)


def judge_of(request: Request, judge: str | None, device: str = "cpu") -> Judge | None:
    """The judge that is named, else that of the package; none for a request without a rule."""
    if rules_of(request) is not None:
        return Judge.load(judge or EMBEDDED).to(device)
    if judge is not None:
        raise UserError(f"{request} names single images, and a judge tells classes; leave out --judge")
    return None


def _lines(file: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in read_text(file).splitlines()]
    if not any(lines):
        raise UserError(f"{file} names no image; write an image's name a line")
    return tuple(dict.fromkeys(line for line in lines if line))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise UserError(f"--forget-index wants row numbers with commas between, as 3,17; got {text!r}") from None


def pictures(folder: Path, source: Source, option: str) -> Images:
    """The images below a folder, read as those of ``source``; what is left out is said. UserError with the option."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one with images for --{option}, or use --forget-list")
    channels = source.open().shape[0]
    try:
        found = source.copies(folder, channels)
    except UserError as error:
        raise UserError(f"the images of --{option}: {error}") from None
    say(found.notes)
    return found
