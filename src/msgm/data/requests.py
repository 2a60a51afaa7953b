"""What is asked to be forgotten: a rule over the columns of a data set; and the two sets that a request makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import Images
from .near import CLOSE, near
from .rules import known_values, parse


class Request(ABC):
    """Which images are to be forgotten: a rule, or a list. It is data, and one entry of a record."""

    @property
    def words(self) -> str:
        """What is meant, for people to read: titles, tables, a model's card."""
        return str(self)

    @property
    def lists(self) -> bool:
        """Whether it names images one by one, of the training images; a rule holds for any images of the kind."""
        return True

    @abstractmethod
    def mask(self, data: Images) -> Tensor:
        """Which rows are meant: bool (N,)."""

    def split(self, data: Images) -> Split:
        """The data in two, each part in its old order. UserError if none or all of them are meant."""
        mask = self.mask(data)
        if not mask.any():
            raise UserError(f"{self} selects none of the {len(data)} images of {data.name}{self.why_none(data)}")
        if mask.all():
            everything = f"{self} selects all {len(data)} images of {data.name}"
            raise UserError(
                f"{everything}: none would be left to retain; narrow it, or let the model's own samples stand in",
                option="retain_samples",
            )
        return Split(whole=data, retain=data.select(~mask), forget=data.select(mask), request=self)

    def why_none(self, data: Images) -> str:
        """What to add where nothing is selected."""
        return ""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Its entry in a record, which `request_of` reads."""


@dataclass(frozen=True)
class ForgetRequest(Request):
    """A rule that says which images are to be forgotten.

    A rule compares columns with whole numbers, or the label with class names if it has them, by ``==``,
    ``!=``, ``<``, ``<=``, ``>``, ``>=``, chained too (``2 < label <= 5``), by ``in`` and ``not in`` with a
    list; ``and``, ``or``, ``not`` and parentheses join comparisons. A column whose name is no identifier is
    put in quotes: ``"5_o_Clock_Shadow" == 1``.
    Raises UserError for anything else.

    >>> ForgetRequest("label in [3, 7]").to_dict()
    {'rule': 'label in [3, 7]'}
    """

    rule: str

    def __post_init__(self) -> None:
        parse(self.rule)

    @property
    def words(self) -> str:
        return self.rule

    @property
    def lists(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"rule {self.rule!r}"

    def mask(self, data: Images) -> Tensor:
        """Which rows the rule selects: bool (N,). UserError for a column or class name that the data lack."""
        predicate, _ = parse(self.rule)
        return predicate(data)

    def why_none(self, data: Images) -> str:
        """The comparisons that hold for no image."""
        never = [comparison for comparison in parse(self.rule)[1] if not comparison(data).any()]
        return "".join(f"; {item} holds for none: {known_values(item.column, data)}" for item in never)

    def to_dict(self) -> dict[str, Any]:
        return {"rule": self.rule}


@dataclass(frozen=True)
class AnyRequest(Request):
    """The images that one or more of several requests mean: as `together` makes it, of two or more."""

    requests: tuple[Request, ...]

    @property
    def words(self) -> str:
        return "; ".join(request.words for request in self.requests)

    @property
    def lists(self) -> bool:
        return any(request.lists for request in self.requests)

    def __str__(self) -> str:
        return " or ".join(map(str, self.requests))

    def mask(self, data: Images) -> Tensor:
        """UserError of any of them that cannot be answered."""
        return reduce(torch.logical_or, (request.mask(data) for request in self.requests))

    def to_dict(self) -> dict[str, Any]:
        return {"any": [request.to_dict() for request in self.requests]}


def together(*requests: Request) -> Request:
    """All of them as one, each once; one that is itself of several counts as those."""
    flat = [each for request in requests for each in parts(request)]
    once = [each for i, each in enumerate(flat) if each not in flat[:i]]
    return once[0] if len(once) == 1 else AnyRequest(tuple(once))


def parts(request: Request) -> tuple[Request, ...]:
    """The requests that it is of, or itself alone."""
    return request.requests if isinstance(request, AnyRequest) else (request,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images in two, ``retain`` and ``forget``, and why. Both are selections from ``whole``: no pixels are copied.

    ``samples`` says how the images to retain were drawn, where they are a model's own.
    """

    whole: Images
    retain: Images
    forget: Images
    request: Request
    samples: Mapping[str, Any] = field(default_factory=dict)

    def also(self, request: Request) -> Split:
        """The split with what another request means of the whole moved from ``retain`` to ``forget``; never samples.

        Raises UserError where that leaves nothing to retain.
        """
        moved = np.isin(self.retain.index.numpy(), self.whole.index[request.mask(self.whole)].numpy())
        if self.samples or not moved.any():  # no request means a sample, whatever its columns
            return replace(self, request=together(request, self.request))
        if moved.all():
            raise UserError(f"{self.request} and {request} leave no image of {self.whole.name} to retain; narrow them")
        where = torch.from_numpy(moved)
        return replace(
            self, retain=self.retain.select(~where), forget=self.forget.join(self.retain.select(where)),
            request=together(request, self.request),
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """That of the whole."""
        return self.whole.digest

    @cached_property
    def duplicates(self) -> int:
        """How many retained images are, pixel for pixel, also among those to forget."""
        return int(np.isin(self.retain.marks, self.forget.marks).sum())

    @cached_property
    def near_duplicates(self) -> int:
        """How many others look the same in a thumbnail as one of those to forget (`near.near`)."""
        return int((near(self.retain, self.forget).numpy() & ~np.isin(self.retain.marks, self.forget.marks)).sum())

    @property
    def notes(self) -> list[str]:
        """Lines that someone who is about to train on this should see."""
        found = [
            (self.duplicates, "are also, pixel for pixel, among those to forget"),
            (self.near_duplicates, f"look nearly like one to forget (thumbnails within {CLOSE:g} grey levels)"),
        ]
        return [f"{count} of the retained images {what}" for count, what in found if count]

    def hold_out(self, share: float, seed: int = 0) -> tuple[Split, Images]:
        """The split without a random share of both its parts, and that share as one set: retained, then forgotten.

        At least two images of each part are held out. Raises UserError where fewer than two of a part would be left.
        """
        if not 0 < share < 1:
            raise UserError(f"the share to hold out must lie between 0 and 1; got {share}")
        generator, kept, held = torch.Generator().manual_seed(seed), [], []
        for part in (self.retain, self.forget):
            order = torch.randperm(len(part), generator=generator)
            count = max(2, round(share * len(part)))
            if len(part) - count < 2:
                raise UserError(f"{len(part)} images of {part.name} are too few to hold out {share:.0%} of them")
            kept.append(part.select(order[count:].sort().values))
            held.append(part.select(order[:count].sort().values))
        return replace(self, retain=kept[0], forget=kept[1]), held[0].join(held[1])

    def to_dict(self) -> dict[str, Any]:
        """The record of the split: the request, how many images are on each side, and on both."""
        both = {"duplicates": self.duplicates, "near_duplicates": self.near_duplicates}
        sizes = {"retain": len(self.retain), "forget": len(self.forget)}
        drawn = {"samples": dict(self.samples)} if self.samples else {}
        return {**self.request.to_dict(), **sizes, **{key: count for key, count in both.items() if count}, **drawn}
