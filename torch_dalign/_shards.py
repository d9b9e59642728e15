"""A collection of series spread over processes: each rank holds a shard, and all ranks come to the same result.

Every rank takes the same decisions from the same sums and the same random numbers, so none is the master.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Shards:
    """The processes that hold a shard each; without `distributed` this one alone.

    Parameters
    ----------
    distributed : bool or ProcessGroup
        False: this process has everything. True: the default group of torch.distributed. Or a group.
    """

    def __init__(self, distributed: Any = False) -> None:
        self._group = _group(distributed)
        self.rank = dist.get_rank(self._group) if self._group is not None else 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, the same bits on each of them."""
        if self._group is not None:
            values = values.clone()
            dist.all_reduce(values, group=self._group)
        return values

    def gather(self, value: Any) -> list[Any]:
        """One value of each rank, in their order."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(values, value, group=self._group)
        return values

    def concatenate(self, values: Tensor) -> Tensor:
        """The vectors of all ranks, one after the other."""
        return torch.cat(self.gather(values))

    def first(self, size: int) -> int:
        """The number, in the whole collection, of the first of `size` items that this rank holds."""
        return int(sum(self.gather(size)[: self.rank]))

    def fetch(self, item: Callable[[int], Tensor], size: int, wanted: list[int]) -> list[Tensor]:
        """Items by their number in the whole collection, of which this rank holds `size` ones, item(0) and so on."""
        first = self.first(size)
        mine = {number: item(number - first) for number in wanted if first <= number < first + size}
        found: dict[int, Tensor] = {}
        for part in self.gather(mine):
            found.update(part)
        return [found[number] for number in wanted]


def _group(distributed: Any) -> Any:
    if distributed is False:
        return None
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("distributed needs torch.distributed.init_process_group(...) to have been called")
    if distributed is True:
        return dist.group.WORLD
    if not isinstance(distributed, dist.ProcessGroup):
        raise TypeError(f"distributed must be a bool or a ProcessGroup, got {type(distributed).__name__}")
    return distributed
