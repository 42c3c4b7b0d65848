"""Processes that share one job, as `torchrun` starts them; a process alone is a group of one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

# The first rank fits alone while the others wait: at d = 8192 one decomposition takes minutes, and
# there is one for every site. A rank that dies is noticed by torchrun, not by this.
PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Ranks:
    """This process's place among `size`. All methods are collective: every rank calls them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads and writes the store, and prints."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The first rank's plain value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def share_tensors(
        self, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """The first rank's named tensors, on every rank's own `device`."""
        layout = self.share({n: (t.shape, t.dtype) for n, t in tensors.items()})
        result = {}
        for name, (shape, dtype) in layout.items():
            if self.first:
                result[name] = tensors[name].to(device).contiguous()
            else:
                result[name] = torch.empty(shape, dtype=dtype, device=device)
            if self.size > 1:
                dist.broadcast(result[name], src=0)
        return result

    def add_to_first(self, tensors: Iterable[Tensor]) -> None:
        """In place: the first rank's become the sums over all ranks, the others' become 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.reduce(tensor, dst=0)
            if not self.first:
                tensor.zero_()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Every rank's tensor, of one shape, in their order; on the first rank only, else none."""
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.first else None
        dist.gather(tensor, parts, dst=0)
        return parts or []


def place() -> tuple[int, int]:
    """Rank of this process on its machine, and the number of all ranks, as torchrun says."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that `torchrun` started; a group of one outside of it.

    Tensors on the CPU travel by gloo, those on CUDA by NCCL (set the process's device before).
    """
    if place()[1] == 1:
        yield Ranks()
        return
    dist.init_process_group(timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # no rank leaves while another still needs it
    finally:
        dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """End this process with `status`.

    One of several ranks ends without tearing its interpreter down, what it printed being flushed.
    Twice a rank that had done its work was seen to abort at its end ("terminate called without an
    active exception"), for which torchrun ends the others; most likely a thread of gloo's asked for
    the interpreter's lock too late (https://github.com/pytorch/pytorch/pull/179291).
    """
    if place()[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


__all__ = ["Ranks", "joined", "leave", "place"]
