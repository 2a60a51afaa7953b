"""All attacks by name, in the order in which they are told."""

from . import (
    ask,
    compare,
    complete,
    doors,
    guide,
    invert,
    locate,
    member,
    reconstruct,
    relearn,
    renoise,
    revive,
)
from .target import Attack

ATTACKS: dict[str, Attack] = {
    module.ATTACK.name: module.ATTACK
    for module in (
        ask, doors, guide, renoise, complete, reconstruct, relearn, revive, member, compare, invert, locate,
    )
}  # fmt: skip
