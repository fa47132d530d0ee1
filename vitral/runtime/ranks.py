"""The processes that train together, as torchrun starts them; one process is a group of one."""

import contextlib
import datetime
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

# Others wait while the first process looks at the images or draws the report. A process that dies
# is noticed by torchrun, not by this.
_TIMEOUT = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class Ranks:
    """This process and how many there are."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks; sent with pickle among our own."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """Return the first process's value in all of them."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def on_first(self, function: Callable[[], object]) -> None:
        """Call a function on the first process; all wait for it, and all raise what it raises."""
        error: Exception | None = None
        if self.is_first:
            try:
                function()
            except Exception as raised:
                error = raised
        error = self.from_first(error)
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            dist.barrier()


def ranks_from_environment() -> Ranks:
    """Read the place of this process that torchrun put into the environment."""
    return Ranks(
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )


@contextlib.contextmanager
def process_group(ranks: Ranks, *, device: torch.device) -> Iterator[Ranks]:
    """Connect the processes for the time of a run."""
    if ranks.world_size == 1:
        yield ranks
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # torch imports this on the way of DistributedDataParallel; its functions take the group of that
    # moment as a default and would keep it, and gloo's threads, beyond the end of Python: an abort
    # when such a thread then lets go of a tensor. Before there is a group they take None.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
