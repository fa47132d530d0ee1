"""AdamW or SGD with parameter groups; clipping; the state as named tensors; the schedule."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vitral.config.run import OptimizerSettings, ScheduleSettings
from vitral.models.layout import tables_of
from vitral.models.model import Model
from vitral.runtime.distributed import sharded_like, unsharded


def build_optimizer(
    objective: nn.Module, settings: OptimizerSettings, *, device: torch.device
) -> torch.optim.Optimizer:
    """Return an optimizer that applies no weight decay to biases, norms, tokens or positions.

    Each group has a `share` of the learning rate, below 1 for lower layers with `layer_decay`.
    """
    groups = _groups(objective, settings)
    fused = device.type in ("cpu", "cuda")
    if settings.name == "sgd":
        sgd = torch.optim.SGD(
            groups, lr=settings.learning_rate, momentum=settings.momentum, fused=fused
        )
        # As after the first step; the fused kernel can't start some buffers and continue others.
        for group in sgd.param_groups:
            for parameter in group["params"] if settings.momentum else ():
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=fused,
    )


def _groups(objective: nn.Module, settings: OptimizerSettings) -> list[dict[str, object]]:
    """Return one parameter group for each combination of rate share and decay."""
    shares, decayed = _rate_shares(objective, settings.layer_decay), decayed_names(objective)
    members: dict[tuple[float, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            decays = settings.decayed == "all" or name in decayed
            key = (shares.get(name, 1.0), decays)
            members.setdefault(key, []).append((name, parameter))
    # From the head downwards; in each layer decayed parameters come first.
    ordered = sorted(members.items(), key=lambda item: (-item[0][0], not item[0][1]))
    return [
        {
            "params": named,
            "share": share,
            "decays": decays,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (share, decays), named in ordered
    ]


def _rate_shares(objective: nn.Module, layer_decay: float) -> Mapping[str, float]:
    """Return the share of the learning rate of each parameter of a `Model`.

    Parameters that are not in the table have the full rate, like the head.
    """
    prefix, model = owned_model(objective)
    if layer_decay == 1 or model is None:
        return {}
    depths = {name: model.layer_depth(name) for name, _ in model.named_parameters()}
    top = max(depths.values())
    return {f"{prefix}{name}": layer_decay ** (top - depth) for name, depth in depths.items()}


def owned_model(objective: nn.Module) -> tuple[str, Model | None]:
    """Return the prefix of parameter names, and the model that an objective owns or is."""
    model = objective if isinstance(objective, Model) else getattr(objective, "model", None)
    if not isinstance(model, Model):
        return "", None
    return "" if model is objective else "model.", model


def decayed_names(module: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay applies to: kernels.

    Kernels have two or more axes and one of torch's names for multiplicative weights, and are not
    listed as a table or token, added or looked up, by the `no_weight_decay()` of any submodule.
    """
    tables = tables_of(module)
    return {
        name
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2 and name not in tables and _multiplies(name)
    }


def _multiplies(name: str) -> bool:
    """Return whether a name is one of torch's for weights: weight, in_proj_weight, weight_ih_l0.

    For `linear.parametrizations.weight.original1` the name of the parametrized tensor counts.
    """
    *path, last = name.split(".")
    parametrized = path[-1] if path[-2:-1] == ["parametrizations"] else ""
    return "weight" in last or "weight" in parametrized


def describe_decay(objective: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Describe what decays and which matrices do not; empty if there is no weight decay."""
    if not any(group["weight_decay"] for group in optimizer.param_groups):
        return []
    names = {parameter: name for name, parameter in objective.named_parameters()}
    groups = optimizer.param_groups
    decayed, others = (
        [p for group in groups for p in group["params"] if group["decays"] == decays]
        for decays in (True, False)
    )
    tables = [names[parameter] for parameter in others if parameter.ndim >= 2]
    counts = (sum(p.numel() for p in parameters) for parameters in (decayed, others))
    text = "weight decay: {:,} parameters in {} tensors decay, {:,} in {} do not".format(
        *(
            number
            for pair in zip(counts, (len(decayed), len(others)), strict=True)
            for number in pair
        )
    )
    return [text + (f", {', '.join(tables)} among them" if tables else "")]


def set_weight_decay(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the weight decay of the groups that decay, for objectives that schedule it."""
    for group in optimizer.param_groups:
        if group["decays"]:
            group["weight_decay"] = weight_decay


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each group to its share of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]


def clip_gradients(parameters: Iterable[nn.Parameter], *, max_norm: float) -> Tensor:
    """Scale gradients whose global norm is above `max_norm` down to it; 0: only measure.

    Like optax, no epsilon is added to the norm.

    Returns:
        The norm before scaling, on the device.
    """
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device if parameters else None)
    norm = unsharded(torch.nn.utils.get_total_norm(gradients))
    if max_norm:
        scale = torch.clamp(max_norm / norm, max=1.0)
        torch._foreach_mul_(gradients, scale)
    return norm


def clip_each(parameters: Iterable[nn.Parameter], *, max_norm: float) -> None:
    """Clip the norm of each parameter's gradient separately to `max_norm`.

    As in DINO (`utils.clip_gradients`); the update differs from clipping the global norm.
    """
    for parameter in parameters:
        clip_gradients([parameter], max_norm=max_norm)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as named tensors: `exp_avg/blocks.0...`."""
    return {
        f"{key}/{name}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore a state that was returned by `optimizer_tensors`."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            values = {
                k.partition("/")[0]: v for k, v in tensors.items() if k.partition("/")[2] == name
            }
            # Step counters stay where the optimizer creates them: if fused, on the parameter's
            # device.
            optimizer.state[parameter] = {
                key: sharded_like(value.to(parameter.device), parameter)
                for key, value in values.items()
            }


def learning_rate_share(step: int, *, total_steps: int, settings: ScheduleSettings) -> float:
    """Return the learning rate of a step, counted from 0, as a share of the peak.

    As in the official code (vision_transformer `utils.create_learning_rate_schedule`): the decay
    runs from the end of the warm-up to `total_steps`, and step 0 of a warm-up has rate 0. A
    milestone's own step still has the rate before it (big_transfer `bit_hyperrule.get_lr`).
    """
    warmup = settings.warmup_steps
    progress = min(max((step - warmup) / max(total_steps - warmup, 1), 0.0), 1.0)
    if settings.decay == "cosine":
        share = settings.end + (1 - settings.end) * 0.5 * (1 + math.cos(math.pi * progress))
    elif settings.decay == "linear":
        share = settings.end + (1 - settings.end) * (1 - progress)
    else:
        share = 0.1 ** sum(
            step > round(milestone * total_steps) for milestone in settings.milestones
        )
    return share * min(1.0, step / warmup) if warmup else share
