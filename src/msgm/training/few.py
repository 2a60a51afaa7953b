"""Few images: settings of their own, or a refusal that says what is needed.

An image that a run draws some thousand times is pushed or pulled far beyond what it is a part of. One to forget then
bends all that is like it; a few to retain are learnt by heart, and the model draws little else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..data import Split
from ..errors import UserError
from ..forgetting.methods import Method
from .settings import TrainSettings

FORGET, RETAIN = 1000, 200
"""How often a run may draw each image to forget, and each image to retain."""


def fitting(method: Method, settings: TrainSettings, split: Split) -> tuple[Method, dict[str, Any]]:
    """The method with a forget loss as seldom as so few images ask for, and the entry ``few`` of the record.

    With M images to forget, each drawn ``steps * batch / M`` times, the forget loss is due on every k-th step only, k
    the least number that keeps this below `FORGET`. Vectors are taken as they are.

    Raises UserError where each retained image would be drawn more than `RETAIN` times.
    """
    if len(split.whole.shape) != 3:
        return method, {}
    draws, retain, forget = settings.steps * settings.batch, len(split.retain), len(split.forget)
    if draws > RETAIN * retain and not method.sees_forget:
        most = RETAIN * retain // settings.batch
        shorter = f", or take at most {most} steps of {settings.batch}" if most else ""
        raise UserError(
            f"{retain} {'image' if retain == 1 else 'images'} to retain would be drawn {draws // retain} times each, "
            f"and learnt by heart: the model would draw little else. Give at least {-(-draws // RETAIN)}{shorter}",
            option="steps",
        )
    every = -(-draws // (FORGET * forget))
    if method.forget is None or every <= method.combine.every:
        return method, {}
    fitted = replace(method, combine=replace(method.combine, every=every))
    return fitted, {"few": {"forget": forget, "draws": draws, "every": every}}


def said(few: dict[str, Any]) -> str:
    """The entry in one line."""
    images = "1 image" if few["forget"] == 1 else f"{few['forget']} images"
    return f"{images} to forget: the forget loss is due on every {few['every']}th step only, so as not to bend the rest"
