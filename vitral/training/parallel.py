"""Distribute and compile an objective, and disable both temporarily."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vitral.models.model import Model
from vitral.runtime.distributed import Machine
from vitral.training.objectives.base import (
    Objective,
)


def parallelise(objective: Objective, machine: Machine) -> nn.Module:
    """Prepare an objective for its processes, and return the module to call for its loss.

    Call it before the optimizer is created, which must see the final parameters.
    """
    is_coupled = objective.coupling == "batch"
    if machine.ranks.world_size > 1 and machine.device.type == "cuda" and not is_coupled:
        nn.SyncBatchNorm.convert_sync_batchnorm(objective)  # not available for the CPU
    if machine.compile:
        for block in _compiled_blocks(objective.model):
            block.compile()
    if machine.ranks.world_size == 1:
        return objective
    if is_coupled:  # its gradients are summed by `backward_coupled`
        machine.ranks.broadcast(t.detach() for t in objective.state_dict().values())
        return objective
    # DDP warns in every step in which all parameters have a gradient.
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return DistributedDataParallel(objective, find_unused_parameters=not objective.uses_all)


def _compiled_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the modules to compile separately: the blocks, or another model as a whole."""
    return [*model.block_modules()] if isinstance(model, Model) else [model]


@contextmanager
def uncompiled(objective: nn.Module) -> Iterator[None]:
    """Run compiled modules eagerly, so that hooks see each module."""
    compiled = {m: m._compiled_call_impl for m in objective.modules() if m._compiled_call_impl}
    for module in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call


@contextmanager
def unsynchronised(objective: nn.Module) -> Iterator[None]:
    """Let SyncBatchNorm use the batch of this process only, without communication."""
    synchronised = [m for m in objective.modules() if isinstance(m, nn.SyncBatchNorm)]
    for module in synchronised:
        module.forward = functools.partial(_BatchNorm.forward, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in synchronised:
            del module.forward
