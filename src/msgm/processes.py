"""Several processes that do one piece of work (``torchrun``): which this one is, and what they tell each other.

All of them do the same, each on its own rows or batches. So whatever they share must be asked for by all of them, in
the same order. The first one alone writes and speaks. Without a launcher there is one, and nothing happens here.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from .errors import Interrupted, UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(days=1)
"""How long one waits for the others. One that dies is noticed at once; one may just have more to do."""


class Lost(Interrupted):
    """Another process of this run has ended."""

    def __init__(self) -> None:
        super().__init__("another process of this run has ended", signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Rows ``first`` to ``end`` - 1 of ``of``: those of one process."""

    first: int
    end: int
    of: int

    @property
    def rows(self) -> slice:
        """Which they are."""
        return slice(self.first, self.end)

    @property
    def part(self) -> float:
        """Which part of all they are: what a mean over them counts in that over all."""
        return (self.end - self.first) / self.of


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Process ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, shows progress and prints."""
        return self.rank == 0

    def share(self, rows: int) -> Share:
        """Its rows of so many: as many as the others have, or one more or less."""
        first, end = (k * rows // self.size for k in (self.rank, self.rank + 1))
        return Share(first=first, end=end, of=rows)

    def batches(self, rows: range, batch: int) -> list[range]:
        """Its batches of some rows. One process has all; of several each has every ``size``-th.

        Where there would be fewer batches than processes, batches are smaller.
        """
        size = batch if self.size == 1 else min(batch, -(-len(rows) // self.size))
        return [rows[k : k + size] for k in range(0, len(rows), size)][self.rank :: self.size]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: the same bits in each of them."""
        if self.size > 1:
            import torch.distributed as dist

            with _together():
                dist.all_reduce(values)
        return values

    def mean(self, values: Tensor, share: Share) -> Tensor:
        """The mean over all rows, from that over the rows of each process."""
        return values if self.size == 1 else self.summed(values * share.part)

    def most(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        found = torch.tensor(number)
        with _together():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def copied(self, values: Tensor) -> Tensor:
        """The first one's values, in place."""
        if self.size > 1:
            import torch.distributed as dist

            with _together():
                dist.broadcast(values, 0)
        return values

    def told(self, tell: Callable[[], T]) -> T:
        """What the first one finds: it alone looks. What it refuses is refused by all."""
        if self.size == 1:
            return tell()
        import torch.distributed as dist

        said: list[object] = [None, None]
        if self.first:
            try:
                said[0] = tell()
            except (UserError, OSError) as error:
                said[1] = error
        with _together():
            dist.broadcast_object_list(said, 0)
        if isinstance(said[1], Exception):
            raise said[1]
        return said[0]  # type: ignore[return-value]

    def says(self, message: str) -> bool:
        """Whether this one is to say it: no other has. What is wrong for all is said once."""
        if self.size == 1:
            return True
        from torch.distributed.distributed_c10d import _get_default_store

        try:
            said: int = _get_default_store().add(hashlib.sha256(message.encode()).hexdigest(), 1)
        except RuntimeError:  # the process that kept count has ended
            return True
        return said == 1


@contextmanager
def _together() -> Iterator[None]:
    """What all processes do at once. Raises `Lost` where one of them is there no more."""
    try:
        yield
    except RuntimeError as error:
        raise Lost from error


def launched() -> int:
    """How many processes a launcher says that there are (WORLD_SIZE)."""
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or int(said) < 1:
        raise UserError(f"WORLD_SIZE is the number of processes, 1 or more; got {said}")
    return int(said)


def gpus_shared() -> bool:
    """Whether some processes of this machine have a GPU together."""
    import torch

    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > torch.cuda.device_count()


def here() -> Processes:
    """This process among those that have met (`joined`)."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return Processes()
    return Processes(rank=dist.get_rank(), size=dist.get_world_size())


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes of a launcher meet: by NCCL on GPUs, of which each takes its own, and by gloo.

    After an error they stay together: how it is said depends on it. Raises UserError where PyTorch cannot.
    """
    if launched() == 1 or here().size > 1:
        yield here()
        return
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise UserError("this build of PyTorch has no torch.distributed; start one process")
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % gpus)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the processes cannot meet ({str(error)[:100]}); start them by torchrun") from None
    yield here()
    dist.destroy_process_group()
