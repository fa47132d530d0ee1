import pytest
import torch
from torch import Tensor, nn

from vitral.training.anomaly import find_first_nonfinite


class Root(nn.Module):
    """Finite forward, infinite gradient at 0."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.abs().sqrt()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))


def test_nothing_is_found_where_all_is_finite() -> None:
    module = network()
    assert find_first_nonfinite(module, lambda: module(torch.ones(1, 2)).sum()) is None


def test_a_weight_is_named() -> None:
    module = network()
    nn.init.constant_(module[2].weight, float("nan"))
    found = find_first_nonfinite(module, lambda: module(torch.ones(1, 2)).sum())
    assert found == "the weight 2.weight"


def test_the_first_module_whose_output_overflows_is_named() -> None:
    module = network()
    nn.init.ones_(module[0].weight)
    found = find_first_nonfinite(module, lambda: module(torch.full((1, 2), 3e38)).sum())
    assert found == "the output of 0"


def test_the_loss_is_named() -> None:
    module = network()
    found = find_first_nonfinite(module, lambda: module(torch.ones(1, 2)).sum() / 0)
    assert found == "the loss"


def test_the_gradient_nearest_to_the_loss_is_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), Root())
    nn.init.zeros_(module[1].weight)
    nn.init.zeros_(module[1].bias)
    found = find_first_nonfinite(module, lambda: module(torch.ones(1, 2)).sum())
    assert found == "the gradient of 1.bias"


def test_hooks_are_gone_afterwards() -> None:
    module = network()
    with pytest.raises(RuntimeError, match="own"):
        find_first_nonfinite(module, lambda: (_ for _ in ()).throw(RuntimeError("own")))
    assert not any(inner._forward_hooks for inner in module.modules())
