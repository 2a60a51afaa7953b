"""Images as the rest of the house sees them: rows by number, integer columns beside them, one digest."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

Rows = Tensor | slice | Sequence[int]
"""Which rows: a bool mask, row numbers, or a slice."""

CHUNK = 1 << 24
"""Bytes that are held at a time where all rows are gone through."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """N images, in memory or in a memory-mapped file, and integer columns that say something about each of them.

    ``store`` is uint8 (M, C, H, W), or float (M, d): vectors, which are taken as they are, in model space. The rows
    of this set are ``store[index]``, ``index`` int64 (N,): a selection copies no pixels. Each column is int64 (N,),
    ``"label"`` among them if the class is known; ``label_names[i]``, where given, is the name of label i.
    ``about`` says whose data these are, ``source`` is the `Source.to_dict` that they were opened from, ``files`` has
    the name of each row of the store, where it has one, ``root`` the folder or file that they were looked for in.
    ``notes`` says what was skipped or left out, ``dropped`` why a column was. ``known`` has what need not be worked out
    again: the digest, and the `marks` of the store.
    """

    store: np.ndarray[Any, Any]
    index: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    name: str
    about: str = ""
    label_names: Mapping[int, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] | np.ndarray[Any, Any] = ()
    root: str = ""
    notes: Sequence[str] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for column, values in self.columns.items():
            if values.dtype != torch.int64 or values.shape != (len(self),):
                raise UserError(
                    f"{self.name}: column {column!r} must be int64 ({len(self)},), "
                    f"not {values.dtype} {tuple(values.shape)}"
                )

    @classmethod
    def of(
        cls,
        pixels: Tensor | np.ndarray[Any, Any],
        *,
        columns: Mapping[str, Tensor] | None = None,
        name: str,
        about: str = "",
        label_names: Mapping[int, str] | Sequence[str] = (),
        **more: Any,
    ) -> Images:
        """All rows of uint8 (N, C, H, W), or of finite float vectors (N, d), which are not copied.

        A sequence of ``label_names`` names the labels 0, 1, ...
        """
        store = pixels.detach().cpu().numpy() if isinstance(pixels, Tensor) else pixels
        names = label_names if isinstance(label_names, Mapping) else dict(enumerate(label_names))
        vectors = store.dtype.kind == "f" and store.ndim == 2
        if not vectors and (store.dtype != np.uint8 or store.ndim != 4):
            found = f"{store.dtype} {store.shape}"
            raise UserError(f"{name}: images must be uint8 (N, C, H, W), not {found}; vectors float (N, d)")
        if vectors and not np.isfinite(store).all():
            raise UserError(f"{name}: vectors must be finite numbers; remove those that are not")
        return cls(
            store=store, index=torch.arange(len(store)), columns=columns or {}, name=name, about=about,
            label_names=names, **more,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of each image, (d,) of vectors."""
        return tuple(self.store.shape[1:])

    @property
    def labels(self) -> Tensor:
        """The column ``"label"``; a UserError where there is none."""
        if "label" not in self.columns:
            known = f"columns: {', '.join(sorted(self.columns))}" if self.columns else "it has no columns"
            raise UserError(f"{self.name}: no labels ({known}); name a column as labels, or use one folder per class")
        return self.columns["label"]

    def rows(self, which: Rows = slice(None)) -> Tensor:
        """These rows, by default all, as a tensor of its own: uint8 (n, C, H, W), or float (n, d)."""
        return torch.from_numpy(self.store[_numbers(self.index, which).numpy()])

    def chunks(self) -> Iterator[Tensor]:
        """All rows in order, some MiB at a time."""
        count = max(1, CHUNK // max(1, self.store[:1].nbytes))
        for start in range(0, len(self), count):
            yield self.rows(slice(start, start + count))
            if isinstance(self.store, np.memmap):  # or all of the file would be in memory in the end
                self.store._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def select(self, which: Rows) -> Images:
        """The set of these rows, with their columns. It shares the pixels."""
        columns = {column: _numbers(values, which) for column, values in self.columns.items()}
        return self._part(_numbers(self.index, which), columns)

    def join(self, other: Images) -> Images:
        """The rows of this selection, then those of another from the same images. It shares the pixels."""
        if other.store is not self.store:
            raise ValueError(f"{self.name} and {other.name} are not selections from the same images")
        columns = {column: torch.cat([values, other.columns[column]]) for column, values in self.columns.items()}
        return self._part(torch.cat([self.index, other.index]), columns)

    def _part(self, index: Tensor, columns: Mapping[str, Tensor]) -> Images:
        known = {key: value for key, value in self.known.items() if key != "digest"}
        return replace(self, index=index, columns=columns, known=known)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of shape, pixels and columns, in the order of the rows.

        It does not depend on how or where the images were stored, nor on the order of the columns. Another
        order of rows is another digest: a run's draws address rows by number.
        """
        if "digest" in self.known:
            return str(self.known["digest"])
        shapes = {"images": [len(self), *self.shape], "columns": sorted(self.columns)}
        digest = hashlib.sha256(json.dumps(shapes).encode())
        for part in self.chunks():
            digest.update(part.numpy().data)
        for column in sorted(self.columns):
            digest.update(self.columns[column].cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def marks(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """64 bits of a hash of each row's pixels, (N,): equal for equal images."""
        if "marks" in self.known:
            return np.asarray(self.known["marks"][self.index.numpy()])
        hashed = [blake2b(row.data, digest_size=8).digest() for part in self.chunks() for row in part.numpy()]
        return np.frombuffer(b"".join(hashed), np.uint64)

    @cached_property
    def std(self) -> float:
        """Standard deviation of all values of all rows."""
        sums = torch.zeros(2, dtype=torch.float64)
        for part in self.chunks():
            values = part.double()
            sums += torch.stack([values.sum(), values.square().sum()])
        n = len(self) * math.prod(self.shape)
        return float((sums[1] - sums[0] ** 2 / n).div(n - 1).clamp(min=0).sqrt())

    def to_dict(self) -> dict[str, Any]:
        """The entry ``data`` of records and results: the source, the digest, how many images, the classes' names."""
        names = {str(label): name for label, name in self.label_names.items()}
        told = {"sha256": self.digest, "images": len(self), **({"classes": names} if names else {})}
        return {**(self.source or {"name": self.name}), **told}

    def check_shape(self, wanted: Sequence[int], by: str = "the model") -> None:
        """Raise UserError, saying what would help, unless each image has this shape."""
        if self.shape == tuple(wanted):
            return
        what = "vectors" if len(wanted) == 1 else "images"
        axes = " (channels, height, width)" if len(wanted) == 3 else ""
        mends = []
        if len(wanted) == len(self.shape) == 3 and self.shape[0] != wanted[0]:
            mends.append(f"read them as {'grey' if wanted[0] == 1 else 'rgb'} (mode)")
        if len(wanted) == len(self.shape) == 3 and self.shape[1:] != tuple(wanted[1:]):
            mends.append(f"resize them (size {wanted[1]})")
        mends.append("or use other data" if mends else "use other data")
        raise UserError(
            f"{by} makes {what} of shape {tuple(wanted)}{axes}, {self.name} has {self.shape}; {', '.join(mends)}",
            option="data.size" if len(mends) > 1 else "data",
        )


def _numbers(values: Tensor, which: Rows) -> Tensor:
    """The entries of a vector that ``which`` says."""
    return values[which if isinstance(which, slice) else torch.as_tensor(which)]
