"""Decoded images on disk: whole or not there, and read again by memory mapping."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .decode import Pixels

FORMAT = 1
KEEP = 1000
"""Fewer images than this are decoded anew each time, in memory."""
PART = 1 << 24
"""Bytes of pixels that are held back before they are written."""
PIXELS, META = "pixels.bin", "meta.json"


def place() -> Path:
    """The folder of all caches: ``MSGM_CACHE``, or ``msgm`` in the user's cache folder. It may be deleted."""
    given = os.environ.get("MSGM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "msgm"


class Writer:
    """Takes images one by one; ``finish`` gives all of them, from memory or mapped from the cache's file."""

    def __init__(self, key: str) -> None:
        self.out, self.staging = place() / key, place() / f".{key}.{os.getpid()}"
        self.held: list[bytes] = []
        self.shape: tuple[int, ...] = ()
        self.count = self.waiting = 0

    def append(self, image: Pixels) -> None:
        """One more, of the same height and width; where grey and colour meet, grey becomes colour."""
        if self.shape and image.shape != self.shape:
            if self.shape[0] < image.shape[0]:
                self._widen(image.shape[0])
            image = np.broadcast_to(image, self.shape)
        self.shape = image.shape
        self.held.append(image.tobytes())
        self.count, self.waiting = self.count + 1, self.waiting + image.nbytes
        if self.waiting >= PART:
            self._flush()

    def finish(self) -> Pixels:
        """All images (N, C, H, W); `seal` makes those on disk a cache."""
        shape = (self.count, *self.shape)
        if self.count < KEEP and not self._path.exists():
            return np.frombuffer(b"".join(self.held), np.uint8).reshape(shape)
        self._flush()
        return np.memmap(self._path, np.uint8, "r", shape=shape)

    def seal(self, meta: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Keep what was written, with what stands beside it."""
        with _disk(self.staging):
            for name, values in arrays.items():
                np.save(self.staging / f"{name}.npy", values)
            (self.staging / META).write_text(json.dumps({**meta, "shape": [self.count, *self.shape]}))
            try:
                os.replace(self.staging, self.out)
            except OSError:
                if not self.out.is_dir():
                    raise
                # Another process has made the same, or what is there is damaged.
                shutil.rmtree(self.out, ignore_errors=True)
                os.replace(self.staging, self.out)

    def discard(self) -> None:
        """Remove what is not sealed."""
        shutil.rmtree(self.staging, ignore_errors=True)

    @property
    def _path(self) -> Path:
        return self.staging / PIXELS

    def _flush(self) -> None:
        with _disk(self.staging):
            self.staging.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.writelines(self.held)
        self.held, self.waiting = [], 0

    def _widen(self, channels: int) -> None:
        """Make all images so far ones of more channels, equal ones."""
        self._flush()
        grey = np.memmap(self._path, np.uint8, "r", shape=(self.count, *self.shape))
        self.shape = (channels, *self.shape[1:])
        wide = self._path.with_suffix(".wide")
        with _disk(self.staging), wide.open("wb") as file:
            for image in grey:
                file.write(np.broadcast_to(image, self.shape).tobytes())
        os.replace(wide, self._path)


def stored(key: str) -> tuple[Pixels, dict[str, Any], dict[str, np.ndarray[Any, Any]]] | None:
    """The pixels, memory-mapped, and what stands beside them; None where there is no whole cache of this key."""
    folder = place() / key
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=tuple(meta["shape"]))
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    except (OSError, ValueError, KeyError):
        return None
    return pixels, meta, arrays


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise UserError(
            f"{path.parent}: cannot keep the decoded images here ({problem.strerror or problem}); set MSGM_CACHE to a "
            "folder with room"
        ) from problem
