from pathlib import Path
from typing import Any

import pytest
import torch

from vitral.errors import ModelFileError
from vitral.models.weights.source import PREFIXES, WRAPPERS, unwrap

PATH = Path("m.pth")
STATE = {
    "patch_embed.weight": torch.zeros(2), "blocks.0.weight": torch.ones(2),
    "blocks.1.weight": torch.full((2,), 2.0), "head.weight": torch.full((2,), 3.0),
}  # fmt: skip


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[n], STATE[n]) for n in STATE)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_is_found_inside_its_wrapper(wrapper: str) -> None:
    others = {"epoch": 3, "optimizer": {"state": {}, "param_groups": []}, "args": None}
    assert same(unwrap({wrapper: STATE} | others, path=PATH))


def test_wrappers_may_lie_within_each_other() -> None:
    assert same(unwrap({"state": 1, "model": {"state_dict": STATE}}, path=PATH))


def test_a_teacher_comes_before_its_student() -> None:
    student = {name: tensor + 9 for name, tensor in STATE.items()}
    assert same(unwrap({"student": student, "teacher": STATE}, path=PATH))


@pytest.mark.parametrize("prefix", [*PREFIXES, "module.backbone.", "teacher.module.", "img/"])
def test_a_prefix_of_every_name_is_taken_off(prefix: str) -> None:
    assert same(unwrap({prefix + name: tensor for name, tensor in STATE.items()}, path=PATH))


def test_what_has_no_prefix_is_kept_beside_what_has() -> None:
    tensors = {"backbone." + name: tensor for name, tensor in STATE.items()}
    found = unwrap(tensors | {"dino_head.weight": torch.zeros(1)}, path=PATH)
    assert set(found) == {*STATE, "dino_head.weight"}


def test_a_list_of_layers_is_no_prefix() -> None:
    tensors = {f"model.{index}.weight": torch.zeros(1) for index in range(3)}
    assert set(unwrap(tensors, path=PATH)) == set(tensors)


def test_floats_become_float32_and_other_values_are_left_out() -> None:
    tensors: dict[str, Any] = {
        "half": torch.ones(2, dtype=torch.float16), "double": torch.ones(2, dtype=torch.float64),
        "brain": torch.ones(2, dtype=torch.bfloat16), "count": torch.tensor(3), "epoch": 4,
    }  # fmt: skip
    found = unwrap(tensors, path=PATH)
    kinds = {name: tensor.dtype for name, tensor in found.items()}
    assert kinds == {
        "half": torch.float32, "double": torch.float32, "brain": torch.float32,
        "count": torch.int64,
    }  # fmt: skip


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"epoch": 3}, {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        {"state": {0: {"step": torch.zeros(1)}}, "param_groups": [{"lr": 0.1}]},
        {"optimizer_state_dict": {"state": {}}, "epoch": 3},
        {"model": {}},
    ],
)  # fmt: skip
def test_a_file_without_a_model_is_refused_with_what_it_has(tree: dict[str, Any]) -> None:
    keys = ", ".join(sorted(tree)) or "nothing"
    with pytest.raises(
        ModelFileError, match=f"m.pth holds no model: it has {keys}. Give the file that holds"
    ):
        unwrap(tree, path=PATH)


def test_parameters_lose_their_gradients() -> None:
    found = unwrap({"w": torch.nn.Parameter(torch.ones(1))}, path=PATH)
    assert not found["w"].requires_grad


def test_two_tensors_that_would_get_one_name_are_told() -> None:
    tensors = {"module." + name: tensor for name, tensor in STATE.items()}
    with pytest.raises(ModelFileError, match=r"holds both module\.head\.weight and head\.weight"):
        unwrap(tensors | {"head.weight": torch.zeros(2)}, path=PATH)


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("params/", ["opt/0/mu/", "opt/0/nu/", "opt/1/count/"]),
        ("opt/target/", ["opt/state/param_states/", "opt/state/step/", "opt/state/more/"]),
        ("", ["opt_state/0/", "optimizer/a/", "optimizer/b/"]),
    ],
)
def test_an_optimizer_s_state_beside_the_weights_is_left_out(
    prefix: str, beside: list[str]
) -> None:
    tensors = {prefix + name: tensor for name, tensor in STATE.items()}
    others = {other + name: tensor + 9 for other in beside for name, tensor in STATE.items()}
    assert same(unwrap(others | tensors, path=PATH))
    assert same(unwrap(tensors | others, path=PATH))


def test_the_usual_wrapper_of_a_state_goes_before_a_teacher() -> None:
    """`state_dict` and `model` hold what a script says is the model; a teacher is its average."""
    other = {name: tensor + 9 for name, tensor in STATE.items()}
    for wrapper in ("state_dict", "model"):
        assert same(unwrap({"teacher": other, wrapper: STATE}, path=PATH))
