"""The moving average of the weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def decay_of(half_life_share: float, *, total_steps: int) -> float:
    """Return the decay with which a step's weights count half after a share of the run."""
    decay: float = 0.5 ** (1 / max(half_life_share * total_steps, 1e-9))
    return decay


class WeightAverage:
    """An exponential moving average of a model's weights and buffers."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """Begin with the model's weights, which no average after a step contains.

        Args:
            model: whose weights are averaged.
            decay: what the average keeps of itself in a step.
        """
        self.decay = decay
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Take in the weights after a step, counted from 0.

        After step s, those of step r count as decay^(s - r), scaled so that all sum to 1.
        """
        own_share = (1 - self.decay) / (1 - self.decay ** (step + 1))
        current = model.state_dict()
        floating = [name for name, t in self.tensors.items() if t.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in floating],
            [current[name] for name in floating],
            own_share,
        )
        for name in self.tensors.keys() - set(floating):
            self.tensors[name].copy_(current[name])

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put an average that was saved back in place."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


@contextlib.contextmanager
def using_average(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Give a model its averaged weights for a while, if there are any."""
    if average is None:
        yield
        return
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(average.tensors)
    try:
        yield
    finally:
        model.load_state_dict(own)
