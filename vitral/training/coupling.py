"""Gradients of losses that couple all examples of a step, over micro-batches and processes.

`encode` runs on each micro-batch. Its outputs are gathered from all micro-batches and processes,
and `couple` runs once on the whole batch in every process. The gradient is then backpropagated
through each micro-batch, which is encoded again for this. It costs one more forward pass and needs
the memory of one micro-batch (gradient caching, arXiv 2101.06983, section 3). The result equals
that of one large batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitral.data.workers import Batch
from vitral.errors import RequestError
from vitral.models.model import drop_path_from
from vitral.runtime.device import autocast
from vitral.runtime.distributed import Distributed
from vitral.training.objectives.base import Objective, checked_loss

if TYPE_CHECKING:
    from vitral.runtime.distributed import Machine

Piece = tuple[Callable[[], Batch], int]
"""(function that prepares a micro-batch for the model, seed of the micro-batch)."""


def backward_coupled(
    objective: Objective,
    pieces: Sequence[Piece],
    *,
    rows_of_ranks: Sequence[int],
    order: Sequence[int] | None = None,
    num_valid: int,
    seed: int,
    machine: "Machine",
) -> dict[str, Tensor]:
    """Accumulate the gradient of the mean coupled loss over the whole step.

    Args:
        objective: with coupling "batch".
        pieces: the micro-batches of this process.
        rows_of_ranks: number of rows in each process.
        order: permutation of the concatenated rows of all processes before coupling; None: keep
            their order.
        num_valid: number of valid rows of this process.
        seed: of random numbers in `couple`, the same in all processes.
        machine: device, precision and processes.

    Returns:
        The sums of loss and metrics over all examples in the first process, zeros in the others.

    Raises:
        RequestError: `encode` uses BatchNorm, and no micro-batch or process sees the whole batch.
    """
    in_parts = len(pieces) > 1 or machine.ranks.world_size > 1
    encoded, valid = list[dict[str, Tensor]](), list[Tensor]()
    with torch.set_grad_enabled(len(pieces) == 1), _refuse_batch_norm(objective, when=in_parts):
        for make, piece_seed in pieces:
            batch = make()
            encoded.append(_encode(objective, batch, seed=piece_seed, machine=machine))
            valid.append(batch["valid"])
    local = {name: torch.cat([part[name].detach() for part in encoded]) for name in encoded[0]}
    rows, start, counts = _gather(local, torch.cat(valid), rows_of_ranks, num_valid, machine)
    leaves = {
        name: tensor.requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in rows.items()
    }
    torch.manual_seed(seed)
    with autocast(machine.device, machine.precision):
        counted_rows = {n: _valid_rows(leaf, counts, order) for n, leaf in leaves.items()}
        num_rows = len(next(iter(counted_rows.values())))
        values, metrics = checked_loss(objective, objective.couple(counted_rows), rows=num_rows)
    values = values.float()
    # Every process computes the same coupled loss: the sum over processes counts it once.
    (values.sum() / max(len(values), 1) / machine.ranks.world_size).backward()
    _backward_pieces(objective, pieces, encoded, leaves, start=start, machine=machine)
    if machine.ranks.world_size > 1:
        _sum_gradients(objective, machine)
    counted = 1.0 if machine.ranks.is_main else 0.0
    sums = {"loss": values.detach().sum()} | {
        name: value.detach().float().sum() for name, value in metrics.items()
    }
    return {name: value * counted for name, value in sums.items()}


def _encode(
    objective: Objective, batch: Batch, *, seed: int, machine: "Machine"
) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    with drawing_from(objective, batch), autocast(machine.device, machine.precision):
        encoded = objective.encode(batch)
    rows, kind = len(batch["valid"]), type(objective).__name__
    if not isinstance(encoded, dict) or not encoded:
        raise RequestError(f"{kind}.encode gives {type(encoded).__name__}: give tensors by name")
    for name, tensor in encoded.items():
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        if not isinstance(shape, tuple) or shape[:1] != (rows,):
            raise RequestError(
                f"{kind}.encode gives {name!r} of {shape} for {rows} rows: give ({rows}, ...)"
            )
    return encoded


def drawing_from(objective: nn.Module, batch: Batch) -> AbstractContextManager[None]:
    """Draw stochastic depth from the uniform numbers in a batch, if it has some."""
    return drop_path_from(objective, batch.get("uniforms/drop_path"))


def _backward_pieces(
    objective: Objective,
    pieces: Sequence[Piece],
    encoded: Sequence[Mapping[str, Tensor]],
    leaves: Mapping[str, Tensor],
    *,
    start: int,
    machine: "Machine",
) -> None:
    """Backpropagate the gradient of the gathered rows through their micro-batches."""
    for number, (make, piece_seed) in enumerate(pieces):
        tensors: Mapping[str, Tensor] = encoded[number]
        count = len(next(iter(tensors.values())))
        if len(pieces) > 1:
            tensors = _encode(objective, make(), seed=piece_seed, machine=machine)
        outputs, gradients = [], []
        for name, tensor in tensors.items():
            leaf_gradient = leaves[name].grad
            if tensor.requires_grad and leaf_gradient is not None:
                outputs.append(tensor)
                gradients.append(leaf_gradient[start : start + count] * machine.ranks.world_size)
        start += count
        if outputs:
            torch.autograd.backward(outputs, gradients)


def _gather(
    local: Mapping[str, Tensor],
    valid: Tensor,
    sizes: Sequence[int],
    num_valid: int,
    machine: "Machine",
) -> tuple[dict[str, Tensor], int, Tensor | None]:
    """Return the rows of all processes in order, the offset of this process, and a validity mask.

    The mask is None for a single process whose rows are all valid: the host knows this.
    """
    ranks = machine.ranks
    if ranks.world_size == 1:
        return dict(local), 0, None if num_valid == len(valid) else valid
    longest, start = max(sizes), sum(sizes[: ranks.rank])
    rows = {name: _gather_rows(tensor, sizes, longest, ranks) for name, tensor in local.items()}
    return rows, start, _gather_rows(valid.to(torch.uint8), sizes, longest, ranks).bool()


def _valid_rows(rows: Tensor, counts: Tensor | None, order: Sequence[int] | None) -> Tensor:
    """Return the valid rows, in an order if one is given: (N, ...)."""
    if order is not None:
        rows = rows[list(order)]
        counts = None if counts is None else counts[list(order)]
    return rows if counts is None else rows[counts]


def _gather_rows(tensor: Tensor, sizes: Sequence[int], longest: int, ranks: Distributed) -> Tensor:
    """Return the rows (N, ...) of all processes, concatenated by rank."""
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    found = ranks.all_gather(padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])


def _sum_gradients(objective: nn.Module, machine: "Machine") -> None:
    """Sum the gradients over all processes, with one all-reduce per dtype."""
    by_type: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.grad is not None:  # in one process exactly if in all
            by_type.setdefault(parameter.dtype, []).append(parameter)
    for parameters in by_type.values():
        gradients = [p.grad for p in parameters if p.grad is not None]
        summed = machine.ranks.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        pieces = summed.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


@contextmanager
def _refuse_batch_norm(objective: nn.Module, *, when: bool) -> Iterator[None]:
    """Refuse BatchNorm in training mode, which would use the statistics of a partial batch."""

    def refuse(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, _inputs: Any) -> None:
            if module.training:
                raise RequestError(
                    f"{name} is BatchNorm in what is encoded by micro-batches or processes, of "
                    "which none sees the whole batch that the loss couples: use one process and "
                    "train.micro_batch_size=0, or move it into couple"
                )

        return hook

    handles = []
    if when:
        handles = [
            module.register_forward_pre_hook(refuse(name))
            for name, module in objective.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
