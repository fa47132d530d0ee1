import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitral.errors import ModelFileError
from vitral.models.build import create_model
from vitral.models.vit import ViT
from vitral.models.weights.load import load_model
from vitral.models.weights.official import convert_arrays, infer_config, read_official

Arrays = dict[str, np.ndarray]
Reference = Callable[[str], Arrays]
Convert = Callable[[np.ndarray], Tensor]

FILES = {
    "vit_token.weights": "vit_token",
    "vit_token.weights_linen_names": "vit_token",
    "vit_token_rep.weights": "vit_token_rep",
    "vit_token_rep.weights_opt_target": "vit_token_rep",
    "vit_nohead.weights": "vit_nohead",
    "vit_nohead_rep.weights": "vit_nohead_rep",
    "vit_gap.weights": "vit_gap",
    "attention.weights": "attention",
}
TOLERANCE = 1e-5


def assert_near(ours: Tensor, theirs: np.ndarray, *, tolerance: float = TOLERANCE) -> None:
    assert tuple(ours.shape) == theirs.shape
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("weights", "results"), FILES.items())
@torch.no_grad()
def test_outputs_agree_with_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, weights: str, results: str
) -> None:
    expected = reference(f"{results}.io")
    model = load_model(shared / "reference" / f"{weights}.npz")
    images = nchw(expected["image"])
    embedding = expected["embedding"]
    assert_near(model.embed(images), embedding.reshape(len(embedding), -1, embedding.shape[-1]))
    assert_near(model.tokens(images), expected["encoded"])
    assert_near(model.features(images), expected["pre_logits"])
    assert_near(model(images), expected.get("logits", expected["pre_logits"]))
    assert_near(
        model.pool(torch.from_numpy(expected["encoded"])),
        expected.get("features", expected["pre_logits"]),
    )


@pytest.mark.parametrize("name", ["vit_token", "vit_token_rep", "vit_gap", "vit_nohead"])
@torch.no_grad()
def test_every_block_agrees_with_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, name: str
) -> None:
    expected = reference(f"{name}.io")
    model = load_model(shared / "reference" / f"{name}.weights.npz")
    names = [f"block{index:02}" for index in range(3)]
    traced = model.trace(nchw(expected["image"]), names)
    for index, block in enumerate(names):
        assert_near(traced[block], expected[f"block_{index}"])


@torch.no_grad()
def test_traced_attention_agrees_with_the_original_code(
    shared: Path, reference: Reference, nchw: Convert
) -> None:
    expected = reference("attention.io")
    model = load_model(shared / "reference" / "attention.weights.npz")
    names = [f"block{index:02}/attention" for index in range(4)]
    traced = model.trace(nchw(expected["image"]), names)
    attention = torch.stack([traced[name] for name in names])
    assert_near(attention, expected["attention_weights"], tolerance=5e-6)
    assert_near(attention.sum(-1), np.ones(attention.shape[:-1], np.float32), tolerance=1e-6)


@pytest.mark.parametrize("weights", FILES)
def test_the_config_says_what_the_original_model_was(
    shared: Path, reference: Reference, weights: str
) -> None:
    theirs = json.loads(str(reference(f"{FILES[weights]}.io")["config"]))
    ours = read_official(shared / "reference" / f"{weights}.npz").config
    assert (ours.patch_size, ours.image_size) == (tuple(theirs["patch"]), tuple(theirs["image"]))
    assert (ours.embed_dim, ours.num_heads) == (theirs["hidden"], theirs["heads"])
    assert (ours.depth, ours.mlp_dim) == (theirs["layers"], theirs["mlp"])
    assert (ours.num_classes, ours.pool) == (theirs["classes"] or 0, theirs["classifier"])
    assert ours.representation_size == theirs.get("rep", 0)
    assert (ours.activation, ours.norm_eps) == ("gelu_tanh", 1e-6)


# No output depends on the bias of the keys, so it is compared by name.
@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_the_biases_of_queries_keys_and_values_are_in_their_places(
    shared: Path, reference: Reference, part: str
) -> None:
    arrays = reference("vit_token.weights")
    model = load_model(shared / "reference" / "vit_token.weights.npz")
    place = ("query", "key", "value").index(part)
    for index, block in enumerate(model.blocks):
        attention = f"Transformer/encoderblock_{index}/MultiHeadDotProductAttention_1"
        ours = block.attention.qkv.bias.chunk(3)[place]
        assert_near(ours, arrays[f"{attention}/{part}/bias"].reshape(-1), tolerance=0)


def test_official_preprocessing_is_a_squash_without_antialias_to_plus_minus_one(
    shared: Path,
) -> None:
    model = load_model(shared / "reference" / "vit_token.weights.npz")
    wanted = model.preprocessing
    assert (wanted.size, wanted.resize, wanted.antialias) == ((64, 64), "squash", False)
    assert (wanted.interpolation, wanted.mean, wanted.std) == ("bilinear", (0.5,) * 3, (0.5,) * 3)
    assert model.classes is None


RESOLUTIONS = ["resolution_4x4_to_6x6", "resolution_gap_4x4_to_6x6"]


@pytest.mark.parametrize("name", RESOLUTIONS)
@torch.no_grad()
def test_the_resolution_changes_as_in_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, name: str
) -> None:
    path, expected = shared / "reference" / f"{name}.weights.npz", reference(f"{name}.io")
    old = load_model(path)
    assert_near(old(nchw(expected["image_old"])), expected["logits_old"])
    assert_near(old.position.table, expected["posemb_old"], tolerance=0)
    new = load_model(path, image_size=96, num_classes=7, representation_size=0)
    assert new.preprocessing.size == (96, 96)
    assert_near(new.position.table, expected["posemb_new"], tolerance=1e-6)
    assert not new.head.weight.any()
    assert not new.head.bias.any()
    new.head.weight.copy_(torch.from_numpy(expected["new_head_kernel"]).T)
    new.head.bias.copy_(torch.from_numpy(expected["new_head_bias"]))
    assert_near(new(nchw(expected["image_new"])), expected["logits_new"])


def tensor_by_formula(key: str, shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """Return the weights of the full-size fixture; see "Full-size configurations" there."""
    generator = np.random.default_rng([seed, zlib.crc32(key.encode())])
    z = generator.standard_normal(shape).astype(np.float32)
    kind, inputs = key.rpartition("/")[2], shape[:-1]
    if key.split("/")[-2:-1] in (["query"], ["key"], ["value"]):
        inputs = shape[:1]
    scales = {"bias": 0.2, "cls": 0.4, "pos_embedding": 0.4}
    factor = scales.get(kind, 1 / np.sqrt(np.prod(inputs)))
    return 1 + np.float32(0.1) * z if kind == "scale" else z * np.float32(factor)


@pytest.mark.slow
@torch.no_grad()
def test_a_full_vit_b_16_agrees_with_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, tmp_path: Path
) -> None:
    expected = reference("full_ViT-B_16_224")
    keys = json.loads((shared / "reference" / "official_keys.json").read_text())["ViT-B_16"]
    arrays = {
        key: tensor_by_formula(key, tuple(shape), seed=int(expected["seed"]))
        for key, shape in keys["tensors"].items()
    }
    for key in expected.keys() & {f"check/{key}" for key in arrays}:
        made = arrays[key.removeprefix("check/")].reshape(-1)[:3]
        np.testing.assert_allclose(made, expected[key], rtol=1e-6)
    np.savez(tmp_path / "model.npz", **arrays)
    model = load_model(tmp_path / "model.npz")
    assert model.config == create_model("ViT-B/16").config
    traced = model.trace(nchw(expected["image"]), ["embedding", "tokens", "logits"])
    assert_near(traced["logits"], expected["logits"], tolerance=1e-4)
    assert_near(traced["tokens"][:, :4], expected["encoded_first_rows"], tolerance=1e-4)
    assert_near(traced["tokens"].mean(1), expected["encoded_mean"], tolerance=1e-4)
    assert_near(traced["embedding"].mean(1), expected["embedding_mean"], tolerance=1e-4)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["n_params"]


RELEASED = [
    "ViT-Ti_16", "ViT-S_16", "ViT-B_16", "ViT-L_16", "ViT-H_14", "ViT-S_16-gap-norep",
    "ViT-B_16-gap-norep", "ViT-B_8", "ViT-S_32", "ViT-B_32", "ViT-L_32", "ViT-S_32-gap-norep",
    "ViT-B_32-gap-norep",
]  # fmt: skip
LINEN = {
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
}


def linen(key: str) -> str:
    return "/".join(LINEN.get(part, part) for part in key.split("/"))


def empty_arrays(shapes: dict[str, list[int]]) -> Arrays:
    """Return arrays of these shapes that take no memory."""
    one = np.zeros(1, np.float32)
    return {
        linen(key): np.lib.stride_tricks.as_strided(one, s, [0] * len(s))
        for key, s in shapes.items()
    }


@pytest.mark.parametrize("name", RELEASED)
def test_the_shapes_of_a_released_model_are_those_of_ours(shared: Path, name: str) -> None:
    released = json.loads((shared / "reference" / "official_keys.json").read_text())[name]
    arrays = empty_arrays(released["tensors"])
    config = infer_config(arrays, path=Path(name))
    letter, patch, *_ = name.removeprefix("ViT-").replace("-", "_").split("_")
    assert config.name == f"ViT-{letter}/{patch}"
    assert config.image_size == (released["resolution"],) * 2
    assert config.num_classes == released["classes"]
    assert (config.pool == "gap") == ("gap" in name)
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in ViT(config).state_dict().items()}
    assert sum(int(np.prod(shape)) for shape in ours.values()) == released["n_params"]
    small = {k: v for k, v in released["tensors"].items() if "encoderblock" not in k}
    blocks = {k for k in released["tensors"] if k not in small}
    # Four arrays of queries, keys and values become two.
    assert len(ours) == len(small) + len(blocks) - 4 * config.depth


@pytest.mark.parametrize("name", ["ViT-Ti_16", "ViT-S_32-gap-norep"])
def test_arrays_of_a_released_model_become_tensors_of_our_shapes(shared: Path, name: str) -> None:
    released = json.loads((shared / "reference" / "official_keys.json").read_text())[name]
    arrays = empty_arrays(released["tensors"])
    config = infer_config(arrays, path=Path(name))
    tensors = convert_arrays(arrays, config=config, path=Path(name))
    with torch.device("meta"):
        ours = {key: value.shape for key, value in ViT(config).state_dict().items()}
    assert {key: value.shape for key, value in tensors.items()} == ours


# The exact GELU, against timm's numbers.
TIMM_NAMES = {
    "patch_embed.proj": "embedding",
    "pos_embed": "position.table",
    ".attn.proj": ".attention.out",
    ".attn.": ".attention.",
    ".mlp.fc1": ".mlp.hidden",
    ".mlp.fc2": ".mlp.out",
}


def ours_for_timm(name: str) -> str:
    for theirs, ours in TIMM_NAMES.items():
        name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize(
    ("activation", "least", "most"), [("gelu", 0, 1e-5), ("gelu_tanh", 1e-5, 1e-2)]
)
@torch.no_grad()
def test_exact_gelu_is_a_setting_with_timm_s_outputs(
    reference: Reference, nchw: Convert, activation: str, least: float, most: float
) -> None:
    arrays, expected = reference("timm_vit_small48.weights"), reference("timm_vit_small48.io")
    model = create_model(
        "ViT-Ti/16", image_size=64, embed_dim=48, depth=3, num_heads=3, mlp_dim=192,
        num_classes=10, activation=activation,
    ).eval()  # fmt: skip
    model.load_state_dict({ours_for_timm(k): torch.from_numpy(v) for k, v in arrays.items()})
    logits = model(nchw(expected["image_nhwc"])).numpy()
    assert least <= np.abs(logits - expected["logits"]).max() <= most


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Arrays], Path]:
    def write_arrays(arrays: Arrays) -> Path:
        np.savez(tmp_path / "model.npz", **arrays)
        return tmp_path / "model.npz"

    return write_arrays


@pytest.fixture
def arrays(reference: Reference) -> Arrays:
    return reference("vit_token_rep.weights")


Write = Callable[[Arrays], Path]
BLOCK = "Transformer/encoderblock_1"
PARTS = [
    "cls", "embedding/kernel", "embedding/bias", "Transformer/posembed_input/pos_embedding",
    f"{BLOCK}/LayerNorm_0/scale", f"{BLOCK}/LayerNorm_2/bias",
    f"{BLOCK}/MultiHeadDotProductAttention_1/query/kernel",
    f"{BLOCK}/MultiHeadDotProductAttention_1/key/bias",
    f"{BLOCK}/MultiHeadDotProductAttention_1/out/kernel", f"{BLOCK}/MlpBlock_3/Dense_0/kernel",
    f"{BLOCK}/MlpBlock_3/Dense_1/bias", "Transformer/encoder_norm/scale", "pre_logits/kernel",
    "head/kernel",
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PARTS if name != "cls"])
def test_a_missing_array_is_named(arrays: Arrays, write: Write, name: str) -> None:
    del arrays[name]
    with pytest.raises(ModelFileError, match=f"(lacks the tensor|it has no) {linen(name)}"):
        load_model(write(arrays))


def test_a_missing_class_token_does_not_fit_the_positions(arrays: Arrays, write: Write) -> None:
    del arrays["cls"]
    with pytest.raises(ModelFileError, match="positions for 17 patches, which is no square"):
        load_model(write(arrays))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("change", ["shorter", "flat", "deeper"])
def test_an_array_of_another_shape_is_refused(
    arrays: Arrays, write: Write, name: str, change: str
) -> None:
    array = arrays[name]
    changed = {
        "shorter": array[..., :-1],
        "flat": array.reshape(-1)[:-1],
        "deeper": np.stack([array, array]),
    }
    arrays[name] = changed[change]
    with pytest.raises(ModelFileError, match=r"model\.npz"):
        load_model(write(arrays))


def test_a_wrong_shape_is_told_with_the_wanted_one(arrays: Arrays, write: Write) -> None:
    arrays["Transformer/encoder_norm/scale"] = np.ones(47, np.float32)
    with pytest.raises(ModelFileError, match=r"norm.weight has shape \(47,\), the model needs"):
        load_model(write(arrays))


def test_heads_that_do_not_divide_the_width_are_refused(arrays: Arrays, write: Write) -> None:
    query = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
    arrays[query] = np.zeros((48, 5, 16), np.float32)
    with pytest.raises(ModelFileError, match="shapes of its tensors make no ViT: num_heads=5"):
        load_model(write(arrays))


def test_an_array_too_many_is_named(arrays: Arrays, write: Write) -> None:
    arrays["block1/unit1/conv1/kernel"] = np.zeros(3, np.float32)
    with pytest.raises(ModelFileError, match="no plain ViT has, such as block1/unit1/conv1"):
        load_model(write(arrays))


def test_an_array_of_whole_numbers_is_refused(arrays: Arrays, write: Write) -> None:
    arrays["cls"] = np.zeros((1, 1, 48), np.int64)
    with pytest.raises(ModelFileError, match="tensor cls is of type int64, not of float numbers"):
        load_model(write(arrays))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_are_read_as_float32(
    arrays: Arrays, write: Write, dtype: type[np.floating]
) -> None:
    model = load_model(write({key: array.astype(dtype) for key, array in arrays.items()}))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert_near(model.cls_token, arrays["cls"], tolerance=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(arrays: Arrays, write: Write, value: float) -> None:
    arrays["head/kernel"][3, 4] = value
    with pytest.raises(ModelFileError, match=r"head.weight holds values that are not finite"):
        load_model(write(arrays))


def test_an_array_of_objects_is_never_unpickled(
    arrays: Arrays, write: Write, tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    arrays["cls"] = np.array([Trap()], dtype=object)
    with pytest.raises(ModelFileError, match=r"can't be read as .npz: Object arrays"):
        load_model(write(arrays))
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_torch_is_no_official_file(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match=r"model.pth is no official .npz: it holds"):
        load_model(tmp_path / "model.pth")


def test_a_truncated_file_is_refused(arrays: Arrays, write: Write) -> None:
    path = write(arrays)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelFileError, match=r"can't be read as .npz"):
        load_model(path)


def load_or_refuse(path: Path) -> str:
    try:
        load_model(path)
    except ModelFileError:
        return "refused"
    return "loaded"


# Most of the file is numbers; its directory, where damage is of many kinds, is the last part.
@given(
    place=st.one_of(st.integers(-260_000, -1), st.integers(-9_000, -1)),
    bit=st.integers(0, 7),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_refused_or_loaded_but_never_breaks(
    shared: Path, tmp_path: Path, place: int, bit: int
) -> None:
    content = bytearray((shared / "reference" / "vit_token_rep.weights.npz").read_bytes())
    content[max(place, -len(content))] ^= 1 << bit
    (tmp_path / "model.npz").write_bytes(content)
    assert load_or_refuse(tmp_path / "model.npz") in ("refused", "loaded")
