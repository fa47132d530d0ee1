"""AdamW on matrices and the rest, clipping by the global norm, and the state as named tensors."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vitral.spec.run import OptimizerSettings

# Tables and tokens that are added or looked up, not multiplied: not decayed, as in the official
# code.
_TABLES = re.compile(r"(^|\.)(cls_token|registers|probe|positions|offsets)(\.|$)")


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, *, device: torch.device
) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only: no biases, norms, tokens or positions."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [(name, p) for name, p in named if is_decayed(name, p)]
    rest = [(name, p) for name, p in named if not is_decayed(name, p)]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=device.type in ("cpu", "cuda"),
    )


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Say whether weight decay applies: to kernels."""
    return parameter.ndim >= 2 and not _TABLES.search(name)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give all groups the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip_gradients(parameters: Iterable[nn.Parameter], *, max_norm: float) -> Tensor:
    """Scale gradients whose global norm is above `max_norm` down to it; 0: only measure.

    As optax does: no small number is added to the norm.

    Returns:
        The norm before scaling, on the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm:
        scale = torch.clamp(max_norm / norm, max=1.0)
        torch._foreach_mul_(gradients, scale)
    return norm


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as named tensors: `exp_avg/blocks.0...`."""
    return {
        f"{key}/{name}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a state that `optimizer_tensors` gave back in place."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            own = {
                k.partition("/")[0]: v for k, v in tensors.items() if k.partition("/")[2] == name
            }
            # A step counter is kept where the optimizer made it: on the parameter's device when
            # fused.
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in own.items()}
