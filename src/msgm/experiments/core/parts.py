"""The sets of images that an experiment looks at: all of them, or those to retain and those to forget."""

from __future__ import annotations

from ...data import Images, Request
from ...errors import UserError


def parts(images: Images, request: Request | None) -> dict[str, Images]:
    """``retain`` and ``forget`` by the request, ``all`` without one. Raises UserError where a set is empty."""
    if request is None:
        return {"all": images}
    mask = request.mask(images)
    found = {"retain": images.select(~mask), "forget": images.select(mask)}
    for key, part in found.items():
        if not len(part):
            raise UserError(f"{request} leaves no {key} images of {images.name}")
    return found
