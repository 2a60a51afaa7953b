"""One of several things, by its name: a sampler, a method, a filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """A name, and those of the thing's options that are not to be its defaults.

    >>> print(Choice.of("deflect", contrast=4.0))
    deflect contrast=4.0
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, **options: Any) -> Choice:
        """With options as keywords."""
        return cls(name, tuple(options.items()))

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options)])

    def maker(self, what: str, known: Mapping[str, Callable[..., T]]) -> Callable[..., T]:
        """The one of ``known`` that has the name, with the options. Raises UserError where none has."""
        if self.name not in known:
            raise UserError(f"no {what} {self.name!r}; known: {', '.join(known)}")
        return partial(known[self.name], **dict(self.options))
