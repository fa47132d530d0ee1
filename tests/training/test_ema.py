import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitral.training.state import WeightAverage, decay_of, using_average


def test_average_of_constant_weights_is_those_weights() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.9)
    for step in range(20):
        average.update(model, step=step)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(average.tensors[name], tensor)


def test_a_step_counts_half_after_the_half_life() -> None:
    assert decay_of(0.05, total_steps=1000) ** 50 == pytest.approx(0.5)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(0.0, 0.9999))
def test_steps_count_by_their_age_and_the_start_not_at_all(
    values: list[float], decay: float
) -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1e6)
    average = WeightAverage(model, decay=decay)
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        average.update(model, step=step)
    shares = decay ** np.arange(len(values))[::-1]
    expected = (shares * values).sum() / shares.sum()
    assert average.tensors["weight"].item() == pytest.approx(expected, abs=1e-6)


def test_every_weight_and_buffer_takes_part() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage(model, decay=0.97)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model(torch.randn(8, 3))
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    average.update(model, step=500)
    assert all(not torch.equal(before[name], average.tensors[name]) for name in before)


def test_using_the_average_gives_the_weights_back_bit_for_bit() -> None:
    model = nn.Linear(5, 5)
    average = WeightAverage(model, decay=0.5)
    nn.init.normal_(model.weight)
    before = model.weight.detach().clone()
    with using_average(model, average):
        assert torch.equal(model.weight, average.tensors["weight"])
    assert torch.equal(model.weight, before)
