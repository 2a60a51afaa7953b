"""What other packages bring: methods, samplers and measures that they name as entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from .errors import UserError

T = TypeVar("T")


class Known(Mapping[str, T]):
    """Things by name: ours, then those that other packages name in an entry-point group, in the order of their names.

    Metadata alone says what there is; another's code is imported when its thing is asked for. Raises UserError, naming
    the package, for one that cannot be imported, and for one that takes a name of ours.
    """

    def __init__(self, group: str, own: Mapping[str, T]) -> None:
        self.group, self.own = group, own

    @cached_property
    def others(self) -> dict[str, EntryPoint]:
        """The entry points, by name."""
        found = {point.name: point for point in sorted(entry_points(group=self.group), key=lambda each: each.name)}
        for name in found.keys() & self.own.keys():
            raise UserError(f"{_owner(found[name])} names {name!r} in {self.group}, which msgm has; remove one of them")
        return found

    def __getitem__(self, name: str) -> T:
        if name in self.own:
            return self.own[name]
        point = self.others[name]
        try:
            thing: T = point.load()
        except Exception as error:  # whatever another's code does when it is imported
            words = " ".join(str(error).split())[:100]
            raise UserError(
                f"{_owner(point)} names {point.value} as {name!r} in {self.group}, and it cannot be imported ({words})"
            ) from None
        return thing

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.others

    def __iter__(self) -> Iterator[str]:
        return iter([*self.own, *self.others])

    def __len__(self) -> int:
        return len(self.own) + len(self.others)


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
