"""The processes of a run as started by torchrun, and collectives between them."""

import contextlib
import datetime
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vitral.config.run import TrainSettings
from vitral.runtime.watch import Watch

# Long, since others wait while the first process scans the images or draws the report. Dead or
# hanging processes are detected by `Watch`, not by this timeout.
_TIMEOUT = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Distributed:
    """This process and the number of processes."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    watch: Watch | None = field(default=None, compare=False, repr=False)
    """Watches the other processes; None: there are none."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world_size > 1:
            with self.waiting():
                dist.all_reduce(values)
        return values

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Return the elementwise maximum of a tensor over all processes."""
        if self.world_size > 1:
            with self.waiting():
                dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Set tensors to their values on the first process."""
        if self.world_size > 1:
            with self.waiting():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all processes by rank; their shapes must be equal."""
        if self.world_size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.world_size)]
        with self.waiting():
            dist.all_gather(found, tensor)
        return found

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the values of all processes by rank; they are pickled."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self.waiting():
            dist.all_gather_object(values, value)
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Return the value of the first process in all processes."""
        if self.world_size == 1:
            return value
        box = [value]
        with self.waiting():
            dist.broadcast_object_list(box)
        return box[0]

    def run_on_main(self, function: Callable[[], object]) -> None:
        """Call a function on the first process; all wait for it and raise its exception.

        Its duration is not limited: see `patient`.
        """
        error: Exception | None = None
        if self.is_main:
            try:
                with self.patient():
                    function()
            except Exception as raised:
                error = raised
        error = self.broadcast_object(error)
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            with self.waiting():
                dist.barrier()

    def mark_progress(self) -> None:
        """Tell the others that this process makes progress; every collective does so too."""
        if self.watch:
            self.watch.mark_progress()

    def patient(self) -> contextlib.AbstractContextManager[None]:
        """Do work of unknown duration while others wait: only dead or stopped processes count.

        Otherwise a process without progress for `timeout_seconds` ends the run.
        """
        return self.watch.patient() if self.watch else contextlib.nullcontext()

    def guard(
        self, *, timeout_seconds: float, on_loss: Callable[[str], str]
    ) -> contextlib.AbstractContextManager[None]:
        """Do work shared by all processes, and end all if one is lost: see `Watch.guard`."""
        if self.watch is None:
            return contextlib.nullcontext()
        return self.watch.guard(timeout_seconds=timeout_seconds, on_loss=on_loss)

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Wait for other processes: a waiting process is not at fault."""
        return self.watch.waiting() if self.watch else contextlib.nullcontext()


def ranks_from_environment() -> Distributed:
    """Read the ranks and world size that torchrun has set in the environment."""
    return Distributed(
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )


@contextlib.contextmanager
def process_group(
    ranks: Distributed,
    *,
    device: torch.device,
    timeout_seconds: float = TrainSettings.timeout_seconds,
) -> Iterator[Distributed]:
    """Connect the processes for the duration of a run, and watch them.

    Args:
        ranks: of this process.
        device: of the tensors that the processes exchange.
        timeout_seconds: how long a process may hang before all are ended, outside of `guard`.

    Raises:
        ProcessLostError: another process is gone, hangs or has failed.
    """
    if ranks.world_size == 1:
        yield ranks
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # NCCL's own watchdog aborts the process silently, where `Watch` reports the reason.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    # DistributedDataParallel imports this module, whose functions bind the current group as their
    # default. That would keep the group and gloo's threads alive beyond the end of Python, which
    # aborts when such a thread then frees a tensor. Imported before there is a group, it is None.
    importlib.import_module("torch.distributed.nn.functional")
    store = _shared_store(ranks, timeout_seconds=timeout_seconds)
    watch = Watch(
        store.clone(),
        rank=ranks.rank,
        world_size=ranks.world_size,
        local_rank=ranks.local_rank,
        timeout_seconds=timeout_seconds,
    )
    with watch.heed_launcher():
        try:
            with watch.guard():
                _connect(ranks, device, store=store, watch=watch)
                joined = replace(ranks, watch=watch)
                yield joined
                watch.part()
                joined.sum(torch.zeros(1, device=device)).item()  # all have arrived: each may leave
        except BaseException as error:
            watch.fail(error)
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            watch.close()


def _connect(ranks: Distributed, device: torch.device, *, store: Any, watch: Watch) -> None:
    with watch.waiting():
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=_TIMEOUT,
        )


def _shared_store(ranks: Distributed, *, timeout_seconds: float) -> Any:
    """Return a store shared by the processes, empty also for a second group."""
    timeout = datetime.timedelta(seconds=timeout_seconds)
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(_TIMEOUT)
    number = store.add(f"vitral/{ranks.rank}", 1)
    return PrefixStore(f"vitral/{number}", store)


@dataclass(frozen=True)
class Machine:
    """Device, precision, compilation and processes of a computation."""

    device: torch.device
    precision: torch.dtype
    compile: bool
    ranks: Distributed


def unsharded(tensor: Tensor) -> Tensor:
    """Return the unsharded version of a tensor that may be sharded; all processes must call it."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return an unsharded tensor sharded like another of the same shape, if that is sharded.

    Every process must have the same tensor; nothing is communicated.
    """
    placements = getattr(other, "placements", None)
    if placements is None or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(tensor, other.device_mesh, placements, src_data_rank=None)


def all_sharded_like(
    tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return tensors sharded like those of the same name; others unchanged."""
    return {n: sharded_like(t, others[n]) if n in others else t for n, t in tensors.items()}
