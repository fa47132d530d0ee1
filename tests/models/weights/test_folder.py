import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.small_models import FAMILIES, build_small, small_batch
from torch import Tensor, nn

import vitral
from vitral.config.preprocessing import default_preprocessing
from vitral.errors import ModelFileError, RequestError
from vitral.models.vit import ViT
from vitral.models.weights.folder import read_model_folder, read_reference, write_model_files
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model

Build = Callable[..., ViT]
CLASSES = ("kingfisher", "käuzchen", "翠鳥", "owl", "wren")


@pytest.fixture
def model(small_model: Build) -> ViT:
    model = small_model(representation_size=7)
    model.classes = CLASSES
    return model


@pytest.fixture
def folder(model: ViT, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "birds")
    return tmp_path / "birds"


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def edit_tensors(folder: Path, **changes: Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | changes, path)


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"pool": "gap"}, {"num_classes": 0}, {"representation_size": 7},
        {"patch_size": (4, 8), "activation": "gelu", "norm_eps": 1e-5, "dropout": 0.25},
        {"image_size": (27, 35)}, {"in_channels": 1},
        {"position": "relative", "relative_per_head": True}, {"position": "2d", "qk_norm": True},
        {"position": "sincos2d", "num_registers": 2, "layer_scale": 0.1, "activation": "swiglu"},
        *({"family": family} for family in FAMILIES),
    ],
    ids=str,
)  # fmt: skip
@torch.no_grad()
def test_a_saved_model_comes_back_exactly(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = build_small(**fields)
    save_model(model, tmp_path / "new" / "model")
    loaded = load_model(tmp_path / "new" / "model")
    assert loaded.config == model.config
    assert loaded.preprocessing == model.preprocessing
    assert loaded.classes is None
    assert not loaded.training
    state = model.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    images = torch.randn(2, model.config.in_channels, *model.config.image_hw)
    assert torch.equal(loaded(images), model(images))


def test_a_loaded_model_can_be_trained(folder: Path) -> None:
    model = load_model(folder)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model(torch.randn(1, 3, 24, 32)).sum().backward()
    assert model.cls_token.grad is not None


def test_the_config_file_states_what_the_interface_promises(folder: Path, model: ViT) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config.keys() >= {
        "format_version", "model", "classes", "preprocessing", "data", "command",
        "vitral_version", "licence",
    }  # fmt: skip
    assert config["format_version"] == 1
    assert config["vitral_version"] == vitral.__version__
    assert tuple(config["classes"]) == CLASSES
    assert config["model"].keys() == {f.name for f in dataclasses.fields(model.config)}
    assert config["preprocessing"].keys() == {
        f.name for f in dataclasses.fields(model.preprocessing)
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors", "reference.safetensors",
    ]  # fmt: skip


def test_class_names_keep_their_order_and_letters(folder: Path) -> None:
    assert load_model(folder).classes == CLASSES


@torch.no_grad()
def test_reference_outputs_equal_what_the_loaded_model_computes(folder: Path) -> None:
    reference = read_reference(folder)
    logits = load_model(folder)(reference["images"])
    assert reference["images"].shape == (2, 3, 24, 32)
    assert reference["images"].min() >= -1
    assert torch.equal(logits, reference["logits"])
    assert not torch.equal(logits[0], logits[1])


def test_reference_outputs_are_of_a_model_that_drops_nothing(
    small_model: Build, tmp_path: Path
) -> None:
    model = small_model(dropout=0.5).train()
    save_model(model, tmp_path / "model")
    assert model.training
    reference = read_reference(tmp_path / "model")
    torch.testing.assert_close(model.eval()(reference["images"]), reference["logits"])


@pytest.mark.parametrize("name", ["vit_token_rep", "vit_gap", "vit_nohead"])
@torch.no_grad()
def test_an_official_model_saved_in_our_format_gives_equal_logits(
    shared: Path, tmp_path: Path, name: str
) -> None:
    official = load_model(shared / "reference" / f"{name}.weights.npz")
    save_model(official, tmp_path / "ours")
    ours = load_model(tmp_path / "ours")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(ours(images), official(images))
    assert (ours.config, ours.preprocessing) == (official.config, official.preprocessing)


def test_saving_again_replaces_a_model_folder(
    folder: Path, small_model: Build, tmp_path: Path
) -> None:
    save_model(small_model(depth=1), folder)
    assert load_model(folder).config.depth == 1
    assert [path.name for path in tmp_path.iterdir()] == ["birds"]


@pytest.mark.parametrize("name", ["a folder", "a file"])
def test_saving_over_something_else_is_refused(model: ViT, tmp_path: Path, name: str) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "thesis.txt").write_text("mine")
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(RequestError, match="exists and is no model folder: choose another path"):
        save_model(model, tmp_path / name)
    assert (tmp_path / "a folder" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "a file").read_text() == "mine"


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".pth"])
def test_a_folder_does_not_get_the_name_of_a_file(model: ViT, tmp_path: Path, ending: str) -> None:
    with pytest.raises(RequestError, match=f"m{ending} is the name of a file"):
        save_model(model, tmp_path / f"m{ending}")


def test_a_path_that_can_not_be_made_is_told(model: ViT, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match=r"file can't be made .*: choose another path"):
        save_model(model, tmp_path / "file" / "model")


def test_the_weights_of_a_model_folder_stand_for_it(folder: Path) -> None:
    assert load_model(folder / "model.safetensors").config == load_model(folder).config


def test_data_command_and_licence_go_from_copy_to_copy(
    folder: Path, model: ViT, tmp_path: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    origin = {"licence": "CC-BY-NC-4.0", "data": {"name": "birds"}, "command": "vitral train birds"}
    (folder / "config.json").write_text(json.dumps(config | origin))
    save_model(load_model(folder), tmp_path / "copy")
    copied = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert {name: copied[name] for name in origin} == origin


@pytest.mark.parametrize("kept", [["images"], ["logits"], []])
def test_reference_outputs_that_lack_a_part_are_told(folder: Path, kept: list[str]) -> None:
    path = folder / "reference.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if name in kept}, path)
    with pytest.raises(ModelFileError, match="reference.safetensors holds no .*: it is damaged"):
        load_model(folder)


@pytest.mark.parametrize("value", [3.0, "3", True])
def test_a_number_of_another_type_in_the_config_is_told(folder: Path, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["depth"] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=r"describes no model: depth=.*: give a whole number"):
        load_model(folder)


def test_a_save_that_fails_leaves_the_old_model_and_nothing_else(
    folder: Path, model: ViT, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model.classes = (b"not text",)  # type: ignore[assignment]
    with pytest.raises(TypeError):
        save_model(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["birds"]


# What is damaged, and what the reader says.
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_weights_are_refused(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match=r"model\.safetensors can't be read"):
        load_model(folder)


def test_absent_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model\.safetensors can't be read"):
        load_model(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["blocks.1.mlp.out.bias"]
    save_file(tensors, path)
    with pytest.raises(ModelFileError, match="lacks 1 tensors of the model, such as blocks.1.mlp"):
        load_model(folder)


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    edit_tensors(folder, register=torch.zeros(3))
    with pytest.raises(
        ModelFileError, match="has too many: 1 tensors of the model, such as register"
    ):
        load_model(folder)


@pytest.mark.parametrize("name", ["cls_token", "positions.0.table", "head.bias", "norm.weight"])
def test_a_tensor_of_another_shape_is_told_with_both_shapes(folder: Path, name: str) -> None:
    edit_tensors(folder, **{name: torch.zeros(2, 9)})
    with pytest.raises(ModelFileError, match=rf"{name} has shape \(2, 9\), the model needs \("):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    edit_tensors(folder, cls_token=torch.full((1, 1, 16), value))
    with pytest.raises(ModelFileError, match="cls_token holds values that are not finite"):
        load_model(folder)


def test_a_later_format_is_refused_with_what_to_do(folder: Path) -> None:
    edit_config(folder, format_version=2)
    with pytest.raises(ModelFileError, match=r"has format 2, this Vitral reads up to 1: update"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"config\.json can't be read"), ("{", r"config\.json can't be read"),
        ("[]", r"config\.json must hold a JSON object"), ("3", "must hold a JSON object"),
        ('{"format_version": "new"}', r"config\.json can't be read"),
        ("{}", "holds tensors of no format that is known, such as blocks.0"),
    ],
)  # fmt: skip
def test_a_config_that_is_none_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=message):
        load_model(folder)


@pytest.mark.parametrize("name", ["model", "preprocessing", "classes"])
def test_a_config_without_a_part_is_refused(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=rf"config\.json does not state '{name}'"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"embed_dim": 16}}, {"model": []}, {"model": {"layers": 3}},
        {"preprocessing": {"size": [24, 32], "sharpen": True}}, {"preprocessing": None},
        {"classes": 5},
    ],
)  # fmt: skip
def test_a_config_that_describes_no_model_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ModelFileError, match=r"config\.json describes no model"):
        load_model(folder)


def test_a_value_that_no_model_can_have_is_refused(folder: Path, model: ViT) -> None:
    edit_config(folder, model=dataclasses.asdict(model.config) | {"num_heads": 5})
    with pytest.raises(ModelFileError, match="describes no model: num_heads=5 does not divide"):
        load_model(folder)


def test_class_names_must_be_as_many_as_the_outputs(folder: Path) -> None:
    edit_config(folder, classes=["owl", "wren"])
    with pytest.raises(ModelFileError, match=r"config\.json names 2 classes, its model has 5"):
        load_model(folder)


def test_damaged_reference_outputs_are_refused(folder: Path) -> None:
    (folder / "reference.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelFileError, match=r"reference\.safetensors can't be read"):
        read_reference(folder)


def test_of_someone_s_own_module_only_the_weights_are_kept(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    write_model_files(
        module, tmp_path, preprocessing=default_preprocessing((8, 8), channels=3), classes=None
    )
    assert torch.equal(load_file(tmp_path / "model.safetensors")["weight"], module.weight)
    assert not (tmp_path / "reference.safetensors").exists()
    with pytest.raises(ModelFileError, match="weights of your own module 'Linear': build it and"):
        load_model(tmp_path)


@torch.no_grad()
def test_reference_images_may_be_left_out_and_then_nothing_is_verified(
    model: ViT, tmp_path: Path
) -> None:
    write_model_files(
        model, tmp_path, preprocessing=model.preprocessing, classes=CLASSES, with_reference=False
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_model(tmp_path)
    images = small_batch(model)
    assert torch.equal(loaded(images), model(images))
    with pytest.raises(RequestError, match="no reference images: .* a checkpoint's may have none"):
        loaded.verify()
    save_model(loaded, tmp_path / "again")
    assert load_model(tmp_path / "again").verify().agrees


@torch.no_grad()
def test_given_weights_and_provenance_are_written_instead_of_the_model_s(
    model: ViT, tmp_path: Path
) -> None:
    average = {name: value * 2 for name, value in model.state_dict().items()}
    write_model_files(
        model, tmp_path, preprocessing=model.preprocessing, classes=CLASSES, state=average,
        provenance={"data": "birds/", "command": "vitral train birds/", "licence": "CC0-1.0"},
    )  # fmt: skip
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.cls_token, 2 * model.cls_token)
    reference = read_reference(tmp_path)
    assert torch.equal(loaded(reference["images"]), reference["logits"])
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (config["data"], config["licence"]) == ("birds/", "CC0-1.0")


@given(
    place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), share=st.sampled_from([0, 1])
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_flipped_bit_in_the_header_or_config_is_refused_or_harmless(
    folder: Path, place: float, bit: int, share: int
) -> None:
    path = folder / ("model.safetensors", "config.json")[share]
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[int(place * min(len(content), 3000))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        read_model_folder(folder)
    except ModelFileError:
        pass
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("change", [0.5, -0.5, float("nan")])
def test_other_logits_in_either_direction_do_not_agree(folder: Path, change: float) -> None:
    model = load_model(folder)
    reference = read_reference(folder)
    assert model.verify().agrees
    assert not model.verify(against=reference | {"logits": reference["logits"] + change}).agrees


def test_reference_outputs_of_another_model_are_told(folder: Path) -> None:
    model = load_model(folder)
    reference = read_reference(folder)
    for cut in (
        {"logits": reference["logits"][:, 1:]},
        {name: tensor[:0] for name, tensor in reference.items()},
    ):
        with pytest.raises(RequestError, match="reference logits of shape .* are another model's"):
            model.verify(against=reference | cut)
