"""The moving average of the weights."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from vitral.runtime.sharding import sharded_like


def decay_of(half_life_share: float, *, total_steps: int) -> float:
    """Return the decay with which a step's weights count half after a share of the run."""
    decay: float = 0.5 ** (1 / max(half_life_share * total_steps, 1e-9))
    return decay


class WeightAverage:
    """An exponential moving average of what learns: weights, and the model's buffers."""

    def __init__(self, objective: nn.Module, *, decay: float) -> None:
        """Begin with the present weights, which no average after a step contains.

        Args:
            objective: whose weights are averaged: all tensors of its `model`, and of what lies
                beside it the parameters that are trained.
            decay: what the average keeps of itself in a step.
        """
        self.decay = decay
        trained = {name for name, p in objective.named_parameters() if p.requires_grad}
        self.tensors = {
            name: tensor.detach().clone()
            for name, tensor in objective.state_dict().items()
            if name.startswith("model.") or name in trained
        }

    @torch.no_grad()
    def update(self, objective: nn.Module, *, step: int, finite: Tensor | None = None) -> None:
        """Take in the weights after a step, counted from 0.

        After step s, those of step r count as decay^(s - r), scaled so that all sum to 1.

        Args:
            objective: with the weights.
            step: done, from 0.
            finite: a scalar on the device, 0 where the step did not move the weights: then the
                average does not move either; None: it did.
        """
        share = (1 - self.decay) / (1 - self.decay ** (step + 1))
        if finite is not None and finite.device.type == "cpu":
            if not finite:
                return
            finite = None
        current = objective.state_dict()
        floating = [name for name, t in self.tensors.items() if t.is_floating_point()]
        averages = [self.tensors[name] for name in floating]
        values = [current[name] for name in floating]
        if finite is None:
            torch._foreach_lerp_(averages, values, share)
        else:  # the device knows, and the host does not wait for it
            for average, value in zip(averages, values, strict=True):
                moved = torch.lerp(average, value, share)  # may be NaN: selected, not scaled
                average.copy_(torch.where(finite > 0, moved, average))
        for name in self.tensors.keys() - set(floating):
            value = current[name]
            if finite is not None:
                value = torch.where(finite > 0, value, self.tensors[name])
            self.tensors[name].copy_(value)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put an average that was saved back in place."""
        for name, tensor in self.tensors.items():
            tensor.copy_(sharded_like(tensors[name], tensor))


@contextlib.contextmanager
def using_average(objective: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Give an objective its averaged weights for a while, if there are any."""
    if average is None:
        yield
        return
    current = objective.state_dict()
    raw = {name: current[name].clone() for name in average.tensors}
    objective.load_state_dict(average.tensors, strict=False)
    try:
        yield
    finally:
        objective.load_state_dict(raw, strict=False)
