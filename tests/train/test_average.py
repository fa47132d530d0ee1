import pytest
import torch
from torch import nn

from vitral.train.average import WeightAverage, using_average


def test_average_of_constant_weights_is_those_weights() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, half_life_share=0.1, total_steps=100)
    for step in range(20):
        average.update(model, step=step)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(average.tensors[name], tensor)


def test_a_step_counts_half_after_the_half_life() -> None:
    average = WeightAverage(nn.Linear(1, 1), half_life_share=0.05, total_steps=1000)
    assert average.decay**50 == pytest.approx(0.5)


def test_every_weight_and_buffer_takes_part() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage(model, half_life_share=0.02, total_steps=1000)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model(torch.randn(8, 3))
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    average.update(model, step=500)
    assert all(not torch.equal(before[name], average.tensors[name]) for name in before)


def test_the_start_is_forgotten_by_the_end_of_the_run() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = WeightAverage(model, half_life_share=0.02, total_steps=200)
    nn.init.constant_(model.weight, 1.0)
    for step in range(200):
        average.update(model, step=step)
    assert average.tensors["weight"].item() == pytest.approx(1.0, abs=1e-3)


def test_using_the_average_gives_the_weights_back_bit_for_bit() -> None:
    model = nn.Linear(5, 5)
    average = WeightAverage(model, half_life_share=0.1, total_steps=10)
    nn.init.normal_(model.weight)
    before = model.weight.detach().clone()
    with using_average(model, average):
        assert torch.equal(model.weight, average.tensors["weight"])
    assert torch.equal(model.weight, before)
