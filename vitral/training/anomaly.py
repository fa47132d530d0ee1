"""Locate where a loss or gradient stopped being finite, by repeating the pass with hooks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def find_first_nonfinite(module: nn.Module, compute_loss: Callable[[], Tensor]) -> str | None:
    """Name the first module whose output, or the first parameter whose gradient, is not finite.

    Args:
        module: to examine; its gradients are empty before and hold those of the pass after.
        compute_loss: runs its forward pass.

    Returns:
        Such as "the weight model.head.weight", "the output of model.blocks.3.mlp", "the loss" or
        "the gradient of model.head.weight"; None when all is finite.
    """
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weight {name}"
    first: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not first and isinstance(output, Tensor) and not torch.isfinite(output).all():
                first.append(f"the output of {name}")

        return hook

    handles = [
        inner.register_forward_hook(watch(name)) for name, inner in module.named_modules() if name
    ]
    try:
        loss = compute_loss()
    except Exception:
        if not first:  # else the error follows from the non-finite value
            raise
    finally:
        for handle in handles:
            handle.remove()
    if first:
        return first[0]
    if not torch.isfinite(loss):
        return "the loss"
    loss.backward()
    # Backpropagation reaches the last parameter first.
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name}"
    return None
