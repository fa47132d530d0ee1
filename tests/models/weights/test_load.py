import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitral.errors import ModelFileError, RequestError
from vitral.models.vit import ViT
from vitral.models.weights.load import find_model_folder, load_model, save_model

Build = Callable[..., ViT]
CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture
def model(small_model: Build) -> ViT:
    model = small_model(representation_size=7)
    model.classes = CLASSES
    return model


@pytest.fixture
def folder(model: ViT, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def test_another_image_size_resizes_positions_and_preprocessing_only(
    folder: Path, model: ViT
) -> None:
    wide = load_model(folder, image_size=(40, 48))
    assert (wide.config.grid, wide.preprocessing.size) == ((5, 6), (40, 48))
    assert wide.classes == CLASSES
    assert wide(torch.randn(1, 3, 40, 48)).shape == (1, 5)
    assert torch.equal(wide.position.table[:, :1], model.position.table[:, :1])
    theirs, ours = model.state_dict(), wide.state_dict()
    changed = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert changed == ["position.table"]


@torch.no_grad()
def test_an_image_size_with_the_same_grid_leaves_the_positions(folder: Path, model: ViT) -> None:
    assert torch.equal(load_model(folder, image_size=(27, 39)).position.table, model.position.table)


@torch.no_grad()
def test_another_number_of_classes_gives_a_head_of_zeros_and_forgets_the_names(
    folder: Path, model: ViT
) -> None:
    loaded = load_model(folder, num_classes=8)
    assert loaded.head.weight.shape == (8, 7)
    assert not loaded.head.weight.any()
    assert not loaded.head.bias.any()
    assert loaded.classes is None
    assert torch.equal(loaded.pre_logits.weight, model.pre_logits.weight)


@torch.no_grad()
def test_the_same_number_of_classes_keeps_head_and_names(folder: Path, model: ViT) -> None:
    loaded = load_model(folder, num_classes=5)
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert loaded.classes == CLASSES


@torch.no_grad()
def test_no_classes_gives_the_features(folder: Path, model: ViT) -> None:
    images = torch.randn(2, 3, 24, 32)
    assert torch.equal(load_model(folder, num_classes=0)(images), model.features(images))


@torch.no_grad()
def test_representation_size_0_drops_pre_logits_and_what_was_read_from_it(
    folder: Path, model: ViT
) -> None:
    loaded = load_model(folder, representation_size=0)
    assert [name for name in loaded.state_dict() if name.startswith("pre_logits")] == []
    assert loaded.head.weight.shape == (5, 16)
    assert not loaded.head.weight.any()
    images = torch.randn(2, 3, 24, 32)
    first = model.tokens(images)[:, 0]
    torch.testing.assert_close(loaded.features(images), first, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [5, 16])
def test_pre_logits_can_t_be_made_up(folder: Path, size: int) -> None:
    with pytest.raises(
        RequestError, match=f"representation_size={size} needs weights that .*use 0"
    ):
        load_model(folder, representation_size=size)


@pytest.mark.parametrize(
    "fields", [{"activation": "gelu"}, {"norm_eps": 1e-2}, {"dropout": 0.3}], ids=str
)
@torch.no_grad()
def test_settings_without_weights_may_change(
    folder: Path, model: ViT, fields: dict[str, Any]
) -> None:
    loaded = load_model(folder, **fields)
    assert {name: getattr(loaded.config, name) for name in fields} == fields
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
    )
    images = torch.randn(2, 3, 24, 32)
    assert torch.equal(loaded(images), model(images)) == ("dropout" in fields)


@pytest.mark.parametrize("name", ["depth", "patch_size", "pool", "image_sise"])
def test_what_the_weights_mean_can_t_be_changed(folder: Path, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} can't be changed on load: change one of image"):
        load_model(folder, **{name: 2})


def test_nothing_at_the_path_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is nothing at .*nowhere: give a run folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04garbage", b"<!DOCTYPE html>", b"{}"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.npz").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.npz is no model file that is read here"):
        load_model(tmp_path / "model.npz")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"holds no model: it has no config\.json, here or in"):
        load_model(tmp_path)


def test_content_and_not_the_name_tells_the_format(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "reference" / "vit_gap.weights.npz", tmp_path / "weights.safetensors")
    assert load_model(tmp_path / "weights.safetensors").config.pool == "gap"


PLACES = ["model", "checkpoints/step-00000020/model", "checkpoints/step-00000010/model"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_run_s_model_is_its_result_or_its_newest_checkpoint(
    folder: Path, tmp_path: Path, count: int
) -> None:
    run = tmp_path / "run"
    for place in PLACES[-count:]:
        shutil.copytree(folder, run / place)
    assert find_model_folder(run) == run / PLACES[-count]
    assert load_model(str(run)).classes == CLASSES


@pytest.mark.parametrize("objective", ["sigmoid", "softmax"])
def test_a_model_says_what_its_logits_mean(model: ViT, tmp_path: Path, objective: str) -> None:
    model.objective = objective
    save_model(model, tmp_path / "m")
    assert load_model(tmp_path / "m").objective == objective


def test_a_file_that_does_not_say_has_softmax(shared: Path) -> None:
    assert load_model(shared / "reference" / "vit_gap.weights.npz").objective == "softmax"
