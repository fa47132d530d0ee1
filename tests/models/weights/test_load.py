import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.official_arrays import official_arrays
from support.small_models import FAMILIES, build_small, small_batch

import vitral
from vitral.config.names import model_config
from vitral.errors import ModelFileError, RequestError
from vitral.models.build import build_model
from vitral.models.model import check_classifier
from vitral.models.vit import ViT
from vitral.models.weights.folder import find_model_folder
from vitral.models.weights.load import change_model, load_model
from vitral.models.weights.mapping import heads_of
from vitral.models.weights.save import save_model
from vitral.models.weights.source import WeightFile

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
    assert torch.equal(wide.positions[0].table[:, :1], model.positions[0].table[:, :1])
    theirs, ours = model.state_dict(), wide.state_dict()
    changed = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert changed == ["positions.0.table"]


@torch.no_grad()
def test_an_image_size_with_the_same_grid_leaves_the_positions(folder: Path, model: ViT) -> None:
    assert torch.equal(
        load_model(folder, image_size=(27, 39)).positions[0].table, model.positions[0].table
    )


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


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("depth", "it is what the weights are for; create_model builds another"),
        ("pool", "it is what the weights are for"), ("image_sise", "did you mean 'image_size'"),
        ("num_class", "did you mean 'num_classes'"),
    ],
)  # fmt: skip
def test_what_the_weights_mean_can_t_be_changed(folder: Path, name: str, hint: str) -> None:
    with pytest.raises(RequestError, match=f"{name} can't be changed on load: ({hint})"):
        load_model(folder, **{name: 2})


def test_the_number_of_heads_that_a_folder_states_can_t_be_changed(folder: Path) -> None:
    with pytest.raises(RequestError, match="num_heads=4 can't be changed: .* states its own"):
        load_model(folder, num_heads=4)
    assert load_model(folder, num_heads=2).config.num_heads == 2


@pytest.mark.parametrize(
    ("family", "field"),
    [("BiT", "dropout"), ("ViT", "pool_padding"), ("AxialResNet", "drop_path")],
)
def test_a_field_that_the_family_does_not_have_is_refused(
    tmp_path: Path, family: str, field: str
) -> None:
    save_model(build_small(family), tmp_path / "m")
    with pytest.raises(
        RequestError, match=f"{field} has no effect on small, which has no such field: leave it out"
    ):
        load_model(tmp_path / "m", **{field: 0.1})


@torch.no_grad()
def test_the_conventions_of_a_resnet_may_change(tmp_path: Path) -> None:
    model = build_small("BiT")
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m", pool_padding="infinite", norm_eps=1e-3)
    assert (loaded.config.pool_padding, loaded.config.norm_eps) == ("infinite", 1e-3)
    assert not torch.allclose(loaded(small_batch(model)), model(small_batch(model)))


def test_nothing_at_the_path_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is nothing at .*nowhere: give a run folder"):
        load_model(tmp_path / "nowhere")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"holds no model: it has no.* none of model\.saf"):
        load_model(tmp_path)


def test_a_folder_with_two_files_asks_for_one(tmp_path: Path) -> None:
    for name in ("a.npz", "b.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"a\.npz, b\.pth"):
        load_model(tmp_path)


@pytest.mark.parametrize("shards", [{}, {"a": "../elsewhere.safetensors"}])
def test_an_index_that_names_no_files_of_its_folder_is_refused(
    tmp_path: Path, shards: dict[str, str]
) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelFileError, match=r"index\.json names no files of its folder"):
        load_model(tmp_path)


def test_shards_are_read_together(tmp_path: Path) -> None:
    model = build_small("ViT", image_size=32)
    arrays = {name: torch.from_numpy(a) for name, a in official_arrays(model).items()}
    names = sorted(arrays)
    weight_map = {name: f"part{names.index(name) % 2}.safetensors" for name in names}
    for shard in set(weight_map.values()):
        save_file({n: arrays[n] for n in names if weight_map[n] == shard}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    loaded = load_model(tmp_path)
    assert torch.equal(loaded(small_batch(model)), model(small_batch(model)))


@pytest.mark.parametrize("wanted", ["offical", "onnx"])
def test_a_format_that_is_not_known_is_refused(tmp_path: Path, wanted: str) -> None:
    np.savez(tmp_path / "m.npz", **official_arrays(build_small("ViT", image_size=32)))
    with pytest.raises(
        RequestError, match=f"format='{wanted}' can't be read: (did you mean|use one of) .*offici"
    ):
        load_model(tmp_path / "m.npz", format=wanted)
    assert load_model(tmp_path / "m.npz", format="official").load_report.format == "official"


def test_tensors_of_no_format_are_refused_with_what_is_known(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3), "x": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(
        ModelFileError,
        match=r"m\.pth holds tensors of no format that is known, such as layer\.weight, x: known",
    ):
        load_model(tmp_path / "m.pth")


def test_a_grid_that_is_no_square_must_be_stated(tmp_path: Path) -> None:
    model = build_small("ViT")
    np.savez(tmp_path / "m.npz", **official_arrays(model))
    with pytest.raises(
        ModelFileError,
        match=r"positions for 12 patches, which is no square: state the stored_image_size=",
    ):
        load_model(tmp_path / "m.npz")
    for stated in ((24, 32), (27, 39)):
        assert load_model(tmp_path / "m.npz", image_size=stated).config.grid == (3, 4)
    resized = load_model(tmp_path / "m.npz", stored_image_size=(24, 32), image_size=(32, 24))
    assert resized.config.grid == (4, 3)
    assert resized.load_report.resized == ("positions.0.table",)
    with pytest.raises(ModelFileError, match=r"stored_image_size=\(24, 24\) does not give"):
        load_model(tmp_path / "m.npz", stored_image_size=24)


@pytest.mark.parametrize("format", ["official", "timm", "torchvision", "huggingface"])
def test_as_many_patches_in_another_shape_are_resized_too(tmp_path: Path, format: str) -> None:
    """The size that is wanted says nothing of the grid that a bare file was made for."""
    model = build_small("ViT", image_size=32, activation="gelu", position_resize="bilinear_corners")
    name = "m.npz" if format == "official" else "m.safetensors"
    save_model(model, tmp_path / name, format=format)
    if name.endswith("safetensors"):
        save_file(load_file(tmp_path / name), tmp_path / name)  # as from elsewhere: no description
    wide = load_model(tmp_path / name, image_size=(16, 64), num_heads=2)
    assert wide.config.grid == (2, 8)
    assert wide.load_report.resized == ("positions.0.table",)
    assert not torch.equal(wide.positions[0].table, model.positions[0].table)


@pytest.mark.parametrize(
    ("width", "stated", "heads"),
    [(192, {}, 3), (20, {"num_heads": 5}, 5), (192, {"num_heads": 6}, 6)],
)
def test_heads_are_stated_or_those_of_a_known_width(
    width: int, stated: dict[str, int], heads: int
) -> None:
    source = WeightFile("f", {}, stated=stated)
    assert heads_of(width, source) == heads
    assert bool(source.assumed) == (not stated)


def test_heads_of_an_unknown_width_must_be_stated() -> None:
    with pytest.raises(
        ModelFileError,
        match="f has tokens of width 20, and a bare file does not tell the number "
        "of attention heads: state num_heads=",
    ):
        heads_of(20, WeightFile("f", {}))


# What is missing or too much.
@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Path]:
    """Write an official file of a small model, with arrays added and others left out."""

    def write(*left_out: str, **added: np.ndarray) -> Path:
        arrays = official_arrays(build_small("ViT", image_size=32)) | added
        np.savez(tmp_path / "m.npz", **{n: a for n, a in arrays.items() if n not in left_out})
        return tmp_path / "m.npz"

    return write


Bare = Callable[..., Path]


@torch.no_grad()
def test_a_missing_tensor_of_the_trunk_is_fresh_where_that_is_allowed(bare: Bare) -> None:
    path = bare("Transformer/encoder_norm/scale", "Transformer/encoderblock_0/LayerNorm_0/bias")
    with pytest.raises(ModelFileError, match="lacks 2 tensors of the model, such as .* strict=Fal"):
        load_model(path)
    loaded = load_model(path, strict=False)
    assert set(loaded.load_report.new) == {"norm.weight", "blocks.0.norm1.bias"}
    assert (loaded.norm.weight == 1).all()
    assert not loaded.blocks[0].norm1.bias.any()
    assert loaded(small_batch(loaded)).isfinite().all()


@pytest.mark.parametrize("name", ["embedding/kernel", "embedding/bias"])
def test_a_stem_of_which_a_part_is_missing_is_fresh_for_other_channels(
    tmp_path: Path, name: str
) -> None:
    model = build_small("ViT")
    save_model(model, tmp_path / "m")
    tensors = model.state_dict()
    del tensors[name.replace("/", ".").replace("kernel", "weight")]
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    loaded = load_model(tmp_path / "m", strict=False, in_channels=1)
    assert set(loaded.load_report.new) == {"embedding.weight", "embedding.bias"}
    assert loaded(small_batch(loaded)).shape == (2, 5)


def test_a_tensor_too_many_is_left_over_where_that_is_allowed(bare: Bare) -> None:
    path = bare(decoder=np.ones(3, np.float32))
    with pytest.raises(ModelFileError, match="has too many: 1 tensors of the model, such as deco"):
        load_model(path)
    assert load_model(path, strict=False).load_report.left_over == ("decoder",)


@pytest.mark.parametrize("name", ["head/kernel", "head/bias"])
def test_half_a_head_is_damage(bare: Bare, name: str) -> None:
    with pytest.raises(ModelFileError, match="of the model, such as head"):
        load_model(bare(name))


# The report.
def test_the_report_says_what_became_of_every_tensor(tmp_path: Path) -> None:
    model = build_small("ViT", representation_size=7)
    save_model(model, tmp_path / "m")
    total = len(model.state_dict())
    plain = load_model(tmp_path / "m").load_report
    assert (len(plain.used), plain.resized, plain.new, plain.left_over) == (total, (), (), ())
    assert (plain.format, plain.notes) == ("vitral", ())
    assert str(plain) == (
        f"{tmp_path / 'm'} (vitral): {total} tensors used, 0 resized, 0 new, 0 left over"
    )
    changed = load_model(
        tmp_path / "m", image_size=64, num_classes=3, representation_size=0
    ).load_report
    heads = ("head.weight", "head.bias")
    assert changed.resized == ("positions.0.table",)
    assert changed.new == heads
    assert set(changed.left_over) == {*heads, "pre_logits.weight", "pre_logits.bias"}
    assert len(changed.used) == total - 5
    first, *notes = str(changed).splitlines()
    assert first.endswith(
        f"{total - 5} tensors used, 1 resized (positions.0.table), 2 new (head.weight, head.bias), "
        "4 left over (pre_logits.bias, pre_logits.weight, head.bias, ...)"
    )
    assert notes == [
        "no classifier: the head of 3 classes is all zeros, a place to begin fine-tuning from"
    ]


def test_a_head_of_zeros_is_noted_and_no_classifier(bare: Bare) -> None:
    zeros = {"head/kernel": np.zeros((16, 5), np.float32), "head/bias": np.zeros(5, np.float32)}
    model = load_model(bare(**zeros))
    assert not model.is_classifier
    assert model.load_report.notes[0].startswith("no classifier: the head of 5 classes is all zero")
    assert load_model(bare()).is_classifier


def test_a_file_is_no_folder_of_ours(bare: Bare) -> None:
    with pytest.raises(ModelFileError, match="is no model folder that Vitral wrote: leave format"):
        load_model(bare(), format="vitral")


# Verification against what was computed when the model was saved.
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_verifies_itself(tmp_path: Path, family: str) -> None:
    save_model(build_small(family), tmp_path / "m")
    model = load_model(tmp_path / "m").train()
    verification = model.verify()
    assert verification.agrees
    assert verification.max_difference == 0
    assert model.training
    assert str(verification).startswith("logits on the reference images agree with the stored ones")
    with torch.no_grad():
        model.head.bias += 0.5
    changed = model.verify()
    assert not changed.agrees
    assert changed.max_difference == pytest.approx(0.5, abs=1e-4)
    assert "do NOT agree with the stored ones: largest difference 0.5, tol" in str(changed)
    assert model.verify(tolerance=0.6).agrees


@pytest.mark.parametrize("fields", [{"num_classes": 3}, {"image_size": 32}, {"norm_eps": 1e-3}])
def test_a_model_changed_on_load_has_nothing_to_verify_against(
    folder: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match="this model has no reference images: load it, unchange"):
        load_model(folder, **fields).verify()


def test_content_and_not_the_name_tells_the_format(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "reference" / "vit_gap.weights.npz", tmp_path / "weights.safetensors")
    assert load_model(tmp_path / "weights.safetensors").config.pool == "gap"


POSITION_STAGES = ["model", "checkpoints/step-00000020/model", "checkpoints/step-00000010/model"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_run_s_model_is_its_result_or_its_newest_checkpoint(
    folder: Path, tmp_path: Path, count: int
) -> None:
    run = tmp_path / "run"
    for directory in POSITION_STAGES[-count:]:
        shutil.copytree(folder, run / directory)
    assert find_model_folder(run) == run / POSITION_STAGES[-count]
    assert load_model(str(run)).classes == CLASSES


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_a_model_says_what_its_logits_mean(model: ViT, tmp_path: Path, output: str) -> None:
    model.output = output
    save_model(model, tmp_path / "m")
    assert json.loads((tmp_path / "m/config.json").read_text())["output"] == output
    assert load_model(tmp_path / "m").output == output


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
def test_a_file_of_another_format_says_it_in_its_header(tmp_path: Path, output: str) -> None:
    model = build_small("ViT", image_size=32)
    model.output = output
    save_model(model, tmp_path / "m.safetensors", format="timm")
    assert load_model(tmp_path / "m.safetensors").output == output


def write_old_objective(folder: Path, objective: str | None) -> None:
    """Make a model folder as it was written when it stated what it was trained by."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["output"]
    path.write_text(json.dumps(config | {"objective": objective}))


@pytest.mark.parametrize("objective", ["sigmoid", "softmax", None])
def test_a_folder_written_before_states_it_as_its_objective(
    folder: Path, objective: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    write_old_objective(folder, objective)
    assert load_model(folder).output == (objective or "softmax")
    assert not caplog.records


def test_an_objective_of_the_caller_s_own_is_taken_for_softmax_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_old_objective(folder, "my_bce")
    assert load_model(folder).output == "softmax"
    (record,) = caplog.records
    assert "objective='my_bce', so it is not known how its logits become" in record.message
    assert 'load_model(..., output="sigmoid")' in record.message
    caplog.clear()
    assert load_model(folder, output="sigmoid").output == "sigmoid"
    assert load_model(folder, output="softmax").output == "softmax"
    assert not caplog.records


def test_what_logits_mean_can_be_stated_of_any_file(shared: Path, tmp_path: Path) -> None:
    path = shared / "reference" / "vit_gap.weights.npz"
    model = load_model(path, output="sigmoid")
    assert model.output == "sigmoid"
    assert change_model(model, num_classes=3).output == "sigmoid"
    with pytest.raises(RequestError, match="output='sigmoyd' is not known: did you mean 'sigmoid'"):
        load_model(path, output="sigmoyd")


def test_an_unknown_output_makes_no_model(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"output": "tanh"}))
    with pytest.raises(ModelFileError, match="describes no model: output='tanh' is not known"):
        load_model(folder)
    with pytest.raises(RequestError, match="output='tanh' is not known: use one of softmax"):
        build_model(model_config("ViT-Ti/16"), output="tanh")


def test_a_file_that_does_not_say_has_softmax(shared: Path) -> None:
    assert load_model(shared / "reference" / "vit_gap.weights.npz").output == "softmax"


# What is taken for granted, and what must not be.
def bare_file(tmp_path: Path, model: ViT, format: str) -> Path:
    """Write a file that says nothing of itself beside its tensors."""
    name = "m.npz" if format == "official" else "m.safetensors"
    save_model(model, tmp_path / name, format=format)
    if format != "official":
        save_file(load_file(tmp_path / name), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    ("format", "assumed"),
    [
        ("timm", ["3 attention heads, as ViT-Ti", "all 2 layers are there: ViT-Ti", "the preproc"]),
        ("torchvision", ["3 attention heads", "all 2 layers are there", "torchvision's weights"]),
        ("huggingface", ["3 attention heads", "all 2 layers", "the exact GELU", "no preprocessor"]),
        ("official", ["all 2 layers are there: ViT-Ti of these widths has 12"]),
    ],
)
def test_what_a_bare_file_does_not_tell_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, format: str, assumed: list[str]
) -> None:
    fields = {"embed_dim": 192, "num_heads": 3, "mlp_dim": 768, "image_size": 32}
    loaded = load_model(bare_file(tmp_path, build_small("ViT", **fields), format))
    assert len(loaded.load_report.assumed) == len(assumed)
    for part, assumption in zip(assumed, loaded.load_report.assumed, strict=True):
        assert part in assumption
        assert f"assumed: {assumption}" in str(loaded.load_report)
    check_classifier(loaded, "m")
    assert all(assumption in caplog.text for assumption in loaded.load_report.assumed)


def test_what_is_stated_beside_the_weights_is_not_assumed(tmp_path: Path) -> None:
    model = build_small("ViT", image_size=32)
    for format in ("timm", "huggingface", "vitral"):
        save_model(model, tmp_path / format, format=format)
        assert load_model(tmp_path / format).load_report.assumed == ()


def test_a_row_that_may_be_the_class_token_s_is_said(tmp_path: Path) -> None:
    """3 x 5 patches and a class token are as many rows as 4 x 4 patches without one."""
    path = bare_file(tmp_path, build_small("ViT", image_size=(24, 40)), "timm")
    square = load_model(path, num_heads=2)
    assert square.config.grid == (4, 4)
    assert any(
        "4 x 4 patches and none for the class token" in s for s in square.load_report.assumed
    )
    for stated in ({"stored_image_size": (24, 40)}, {"image_size": (24, 40)}):
        assert load_model(path, num_heads=2, **stated).config.grid == (3, 5)
    assert load_model(path, num_heads=2, image_size=(24, 40)).load_report.resized == ()


@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_layers_that_the_config_states_must_be_there(tmp_path: Path, format: str) -> None:
    save_model(build_small("ViT", depth=3, image_size=32), tmp_path / "m", format=format)
    path = tmp_path / "m" / "model.safetensors"
    tensors = {n: t for n, t in load_file(path).items() if ".2." not in n}
    save_file(tensors, path)
    if format == "timm":
        config = json.loads((tmp_path / "m" / "config.json").read_text())
        assert config["model_args"]["depth"] == 3
    with pytest.raises(ModelFileError, match=r"has 2 layers, its config\.json states 3"):
        load_model(tmp_path / "m")


def test_heads_in_another_place_are_no_heads(tmp_path: Path) -> None:
    """(D, heads, d) and (D, d, heads) have as many values."""
    arrays = official_arrays(build_small("ViT", image_size=32))
    name = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/{}/kernel"
    for part in ("key", "value"):
        arrays[name.format(part)] = arrays[name.format(part)].transpose(0, 2, 1)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ModelFileError, match="has a shape that can't be right, .* 2 heads"):
        load_model(tmp_path / "m.npz")


def test_a_classifier_of_several_labels_stays_one(tmp_path: Path) -> None:
    model = build_small("ViT", image_size=32)
    model.output = "sigmoid"
    save_model(model, tmp_path / "m", format="huggingface")
    path = tmp_path / "m" / "model.safetensors"
    save_file(load_file(path), path)
    assert load_model(tmp_path / "m").output == "sigmoid"


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_a_gated_mlp_can_not_be_exchanged(tmp_path: Path, activation: str) -> None:
    original = {"swiglu": "gelu", "gelu": "swiglu"}[activation]
    save_model(build_small("ViT", activation=original), tmp_path / "m")
    with pytest.raises(RequestError, match=f"activation='{activation}' has other tensors than"):
        load_model(tmp_path / "m", activation=activation)


@pytest.mark.parametrize("size", [0, -4, (8,), "x", True])
@pytest.mark.parametrize("name", ["image_size", "stored_image_size"])
def test_a_size_that_is_none_is_a_bad_request_whatever_the_file(
    tmp_path: Path, size: Any, name: str
) -> None:
    path = bare_file(tmp_path, build_small("ViT", image_size=32), "official")
    with pytest.raises(RequestError, match=f"{name}=.*: give a number of pixels"):
        load_model(path, **{name: size})


def test_the_licence_that_timm_states_is_kept(tmp_path: Path) -> None:
    save_model(build_small("ViT", image_size=32), tmp_path / "m", format="timm")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"]["license"] = "cc-by-nc-4.0"
    path.write_text(json.dumps(config))
    assert load_model(tmp_path / "m").provenance["licence"] == "cc-by-nc-4.0"


def test_a_loaded_model_changes_as_on_load(tmp_path: Path) -> None:
    """`change_model` gives what loading with these fields gives."""
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, depth=1, num_classes=5, representation_size=16
    )
    torch.nn.init.normal_(model.head.weight)
    vitral.save_model(model, tmp_path / "m")
    fields: dict[str, Any] = {"image_size": 12, "num_classes": 3, "representation_size": 0}
    expected = load_model(tmp_path / "m", **fields)
    changed = change_model(load_model(tmp_path / "m"), **fields)
    assert changed.config == expected.config
    assert changed.preprocessing == expected.preprocessing
    state = changed.state_dict()
    assert state.keys() == expected.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())


def test_what_weights_are_for_can_not_be_changed_later_either() -> None:
    model = vitral.create_model("ViT-Mi/4", image_size=8, depth=1, num_classes=5)
    with pytest.raises(
        RequestError, match="representation_size=8 needs weights that ViT-Mi/4 does"
    ):
        change_model(model, representation_size=8)
