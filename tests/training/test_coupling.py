"""A loss over all examples of a step has the gradient of one large batch, also in parts."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitral.errors import RequestError
from vitral.runtime.distributed import Distributed, Machine
from vitral.training.coupling import backward_coupled
from vitral.training.objectives.base import Loss, Objective

MACHINE = Machine(torch.device("cpu"), torch.float32, compile=False, ranks=Distributed())


class Contrast(Objective):
    """Every example against the mean of all, with dropout on the way and BatchNorm in the head."""

    coupling = "batch"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.head = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def encode(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"features": self.model(batch["image"]), "label": batch["label"]}

    def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
        rows = self.head(tensors["features"])
        values = (rows - rows.mean(dim=0)).pow(4).sum(dim=1) * (1 + tensors["label"])
        return Loss(values, {"size": rows.norm(dim=1)})


def build(*layers: nn.Module) -> Contrast:
    torch.manual_seed(0)
    return Contrast(nn.Sequential(nn.Linear(4, 3), *layers)).train()


def batch_of(start: int, stop: int, *, unread: tuple[int, ...] = ()) -> dict[str, Tensor]:
    images = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    valid = torch.tensor([index not in unread for index in range(12)])
    whole = {"image": images, "label": torch.arange(12) % 3, "valid": valid}
    return {name: tensor[start:stop] for name, tensor in whole.items()}


def run(objective: Contrast, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    pieces = [((lambda batch=batch: batch), 7) for batch in batches]
    valid = torch.cat([batch["valid"] for batch in batches])
    return backward_coupled(
        objective, pieces, rows_of_ranks=[len(valid)], num_valid=int(valid.sum()), seed=3,
        machine=MACHINE,
    )  # fmt: skip


def gradients(objective: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("cuts", [[0, 12], [0, 5, 12], [0, 4, 8, 12], [0, 1, 2, 12]])
def test_parts_have_the_gradient_of_the_whole(cuts: list[int]) -> None:
    plain = build()
    unread = (2, 9)
    valid = [index for index in range(12) if index not in unread]
    whole = {name: tensor[valid] for name, tensor in batch_of(0, 12).items()}
    loss = plain.couple(plain.encode(whole))
    loss.values.mean().backward()

    objective = build()
    spans = itertools.pairwise(cuts)
    sums = run(objective, [batch_of(*span, unread=unread) for span in spans])
    assert sums["loss"].item() == pytest.approx(loss.values.sum().item(), rel=1e-6)
    assert sums["size"].item() == pytest.approx(loss.metrics["size"].sum().item(), rel=1e-6)
    wanted, found = gradients(plain), gradients(objective)
    assert wanted.keys() == found.keys()
    norm = torch.stack([tensor.norm() for tensor in wanted.values()]).norm()
    for name, tensor in wanted.items():
        assert (found[name] - tensor).norm() < 1e-6 * norm, name
    for name, buffer in plain.named_buffers():  # BatchNorm of the head saw the step once
        torch.testing.assert_close(dict(objective.named_buffers())[name], buffer)


def test_what_is_drawn_is_drawn_alike_in_both_passes() -> None:
    """With one seed for all micro-batches, dropout of two equal halves is that of each half."""
    halves = [batch_of(0, 6), batch_of(0, 6)]
    one, two = build(nn.Dropout(0.5)), build(nn.Dropout(0.5))
    run(one, halves)
    run(two, halves)
    assert all(torch.equal(one_g, two_g) for one_g, two_g in zip(
        gradients(one).values(), gradients(two).values(), strict=True
    ))  # fmt: skip
    encoded = []
    for _ in halves:
        torch.manual_seed(7)
        encoded.append(two.encode(halves[0])["features"])
    assert torch.equal(*encoded)


def test_the_first_of_two_passes_keeps_no_activations() -> None:
    """Memory holds activations of one micro-batch; a single one is encoded only once."""
    objective, graphs = build(), list[bool]()
    objective.model.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    run(objective, [batch_of(0, 12)])
    assert graphs == [True]
    graphs.clear()
    run(objective, [batch_of(0, 6), batch_of(6, 12)])
    assert graphs == [False, False, True, True]


def test_batch_norm_in_what_is_encoded_is_refused_in_parts_only() -> None:
    objective = build(nn.BatchNorm1d(3))
    run(objective, [batch_of(0, 12)])
    with pytest.raises(RequestError, match=r"model\.1 is BatchNorm in what is encoded by micro-ba"):
        run(objective, [batch_of(0, 6), batch_of(6, 12)])
    assert not any(module._forward_pre_hooks for module in objective.modules())
    objective.model.eval()  # with fixed statistics every example is by itself
    run(objective, [batch_of(0, 6), batch_of(6, 12)])


def test_a_step_without_a_readable_image_has_no_gradient_but_zeros() -> None:
    objective = build()
    objective.head = nn.Sequential(nn.Linear(3, 3))
    sums = run(objective, [batch_of(0, 3, unread=(0, 1, 2))])
    assert sums["loss"].item() == 0
    assert all(not tensor.any() for tensor in gradients(objective).values())


class Odd(Contrast):
    """Encodes to a given value."""

    gives: Any = None

    def encode(self, batch: dict[str, Tensor]) -> Any:
        return type(self).gives(super().encode(batch)["features"])


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda rows: rows, "Odd.encode gives Tensor: give tensors by name"),
        (lambda rows: {}, "Odd.encode gives dict: give tensors by name"),
        (lambda rows: {"mean": rows.mean(dim=0)}, r"gives 'mean' of \(3,\) for 12 rows: give \(12"),
        (lambda rows: {"count": 12}, "gives 'count' of int for 12 rows"),
    ],
)
def test_what_is_encoded_has_a_row_for_each_example(
    gives: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "gives", staticmethod(gives))
    with pytest.raises(RequestError, match=said):
        run(Odd(nn.Linear(4, 3)), [batch_of(0, 12)])


def test_what_is_coupled_has_a_loss_for_each_row() -> None:
    class Mean(Contrast):
        def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
            return Loss(super().couple(tensors).values.mean(), {})

    with pytest.raises(RequestError, match=r"Mean: the loss of 12 rows is \(\): give \(12,\)"):
        run(Mean(nn.Linear(4, 3)), [batch_of(0, 12)])
