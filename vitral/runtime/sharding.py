"""Tensors that several processes share, each with a part: made whole to save, cut up to go on."""

from collections.abc import Mapping

from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be sharded over processes as one that is not; all call it."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a whole tensor as this process's part of it, if another of its shape is sharded.

    Every process has the same whole tensor; nothing is sent.
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
    """Return whole tensors sharded as those of the same name are; those without one as they are."""
    return {n: sharded_like(t, others[n]) if n in others else t for n, t in tensors.items()}
