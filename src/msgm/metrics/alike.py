"""Images that are like some, or like some words: a request by similarity."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ..data import ImageRequest, Images
from ..errors import UserError
from .features import ClipFeatures, Features, features_of

SHOWN = (1, 10, 100, 1000)
"""Ranks whose similarity is named where none was asked for."""


def similarity(images: Images, like: Images | str, network: Features, *, show: bool = True) -> Tensor:
    """Of each image the cosine similarity to the nearest of some images, or to words, (N,), in features of a network.

    Raises UserError for words and a network that reads none.
    """
    if isinstance(like, Images):
        wanted = features_of(like, network, show=False)
    elif isinstance(network, ClipFeatures):
        wanted = network.text(like)[None]
    else:
        raise UserError(f"words are understood by CLIP alone, and these are {network.about}; name a CLIP model")
    mine = functional.normalize(features_of(images, network, show=show).float(), dim=1)
    return (mine @ functional.normalize(wanted.float(), dim=1).T).amax(1)


def alike(
    images: Images, like: Images | str, network: Features, least: float | None, *, show: bool = True
) -> ImageRequest:
    """The request for the images whose `similarity` is at least ``least``; it names them one by one.

    Raises UserError without a ``least``, which says what the nearest have, and where no image is as similar.
    """
    if least is not None and not -1 <= least <= 1:
        raise UserError(f"a similarity lies between -1 and 1; got {least}")
    found = similarity(images, like, network, show=show)
    ranked = found.sort(descending=True).values
    nearest = ", ".join(f"{ranked[n - 1]:.3f} (no. {n:,})" for n in SHOWN if n <= len(ranked))
    if least is None:
        raise UserError(f"say how similar an image must be; the nearest have {nearest}", option="similarity")
    mask = found >= least
    if not mask.any():
        raise UserError(f"no image of {images.name} has a similarity of {least:g}; the nearest have {nearest}")
    to = f"{like!r}" if isinstance(like, str) else f"one of {len(like)} images"
    how = f"cosine similarity of at least {least:g} to {to}, {network.about}"
    return ImageRequest.of(images.select(mask), how=how)
