import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.official_arrays import LINEN, RELEASED, official_arrays, stacked
from support.small_models import build_small, small_batch
from torch import Tensor

from vitral.config.names import model_config
from vitral.config.resnet import V1_FIELDS
from vitral.errors import ModelFileError
from vitral.models.build import build_model, create_model
from vitral.models.model import Model
from vitral.models.weights.formats import official, official_bit
from vitral.models.weights.load import load_model
from vitral.models.weights.mapping import read_entries, write_entries
from vitral.models.weights.save import save_model
from vitral.models.weights.source import WeightFile

Arrays = dict[str, np.ndarray]
Reference = Callable[[str], Arrays]
Convert = Callable[[np.ndarray], Tensor]
Write = Callable[[Arrays], Path]
# Of a file: the results, what to state, and for what we trace their name and the tolerance.
Case = tuple[str, dict[str, Any], dict[str, tuple[str, float]]]


def assert_near(ours: Tensor, theirs: np.ndarray, *, tolerance: float = 1e-5) -> None:
    assert tuple(ours.shape) == theirs.shape
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=tolerance, rtol=0)


def vit_results(*, blocks: int = 0, tokens: float = 1e-5, logits: float = 1e-5) -> Any:
    return {
        "embedding": ("embedding", tokens),
        **{f"block{index:02}": (f"block_{index}", tokens) for index in range(blocks)},
        "tokens": ("encoded", tokens),
        "features": ("pre_logits", tokens),
        "logits": ("logits", logits),
    }


def without(names: dict[str, Any], *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in left_out}


PLAIN = vit_results(blocks=3)
HEADLESS = without(PLAIN, "logits") | {"logits": ("features", 1e-5)}
HYBRID = vit_results(tokens=1e-4, logits=2e-5)
# Of maps with values up to 62, from which float64 too is 2e-4 away.
BIT_MAPS = {f"stage{stage}/unit01": (f"stage{stage}", 5e-4) for stage in (2, 3, 4)}
CASES: dict[str, Case] = {
    "vit_token.weights": ("vit_token", {}, PLAIN),
    "vit_token.weights_linen_names": ("vit_token", {}, PLAIN),
    "vit_token_rep.weights": ("vit_token_rep", {}, PLAIN),
    "vit_token_rep.weights_opt_target": ("vit_token_rep", {}, PLAIN),
    "vit_nohead.weights": ("vit_nohead", {}, HEADLESS),
    "vit_nohead_rep.weights": ("vit_nohead_rep", {}, HEADLESS),
    "vit_gap.weights": ("vit_gap", {}, PLAIN),
    "attention.weights": (
        "attention", {},
        vit_results() | {f"block{i:02}/attention": (f"attention_weights/{i}", 5e-6)
                         for i in range(4)},
    ),
    "hybrid_r_root_only.weights": ("hybrid_r_root_only", {}, HYBRID),
    "hybrid_r_stages.weights": (
        "hybrid_r_stages", {},
        HYBRID | {"stage1/unit02": ("resnet_block1", 1e-4),
                  "stage2/unit01": ("resnet_block2", 1e-4),
                  "stage3/unit01": ("resnet_block3", 1e-4)},
    ),
    "bit_r_1111.weights": (
        "bit_r_1111", {"image_size": 64},
        BIT_MAPS | {"features": ("pre_logits", 3e-5), "logits": ("logits", 3e-5)},
    ),
    "bit_r_1111.weights infinite": (
        "bit_r_1111", {"image_size": 64, "pool_padding": "infinite"},
        {"features": ("pre_logits_big_vision_bit_paper", 3e-5),
         "logits": ("logits_big_vision_bit_paper", 3e-5)},
    ),
    "bv_resnetv1_gn.weights": (
        "bv_resnetv1_gn", {"image_size": 64},
        {"root": ("stem", 1e-4), "stage2/unit01": ("pre_logits_2d", 1e-4),
         "features": ("pre_logits", 3e-5), "logits": ("logits", 3e-5)},
    ),
}  # fmt: skip


def as_ours(name: str, theirs: np.ndarray) -> np.ndarray:
    """Turn their layout (places last but one, channels last) into that of the name we trace."""
    if name.startswith(("root", "stage")):
        return theirs.transpose(0, 3, 1, 2)
    return theirs.reshape(len(theirs), -1, theirs.shape[-1]) if name == "embedding" else theirs


@pytest.mark.parametrize("weights", CASES)
@torch.no_grad()
def test_everything_that_can_be_traced_agrees_with_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, weights: str
) -> None:
    results, stated, names = CASES[weights]
    expected = reference(f"{results}.io")
    for index, layer in enumerate(expected.get("attention_weights", ())):
        expected[f"attention_weights/{index}"] = layer
    model = load_model(shared / "reference" / f"{weights.split(maxsplit=1)[0]}.npz", **stated)
    images = nchw(expected["image"])
    traced = model.trace(images, names)
    for name, (theirs, tolerance) in names.items():
        assert_near(traced[name], as_ours(name, expected[theirs]), tolerance=tolerance)
    assert_near(model(images), expected[names["logits"][0]], tolerance=names["logits"][1])


@pytest.mark.parametrize("weights", [name for name in CASES if name.startswith(("vit", "att"))])
def test_the_config_says_what_the_original_model_was(
    shared: Path, reference: Reference, weights: str
) -> None:
    theirs = json.loads(str(reference(f"{CASES[weights][0]}.io")["config"]))
    ours = load_model(shared / "reference" / f"{weights}.npz").config
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
    part_index = ("query", "key", "value").index(part)
    for index, block in enumerate(model.blocks):
        attention = f"Transformer/encoderblock_{index}/MultiHeadDotProductAttention_1"
        ours = block.attention.qkv.bias.chunk(3)[part_index]
        assert_near(ours, arrays[f"{attention}/{part}/bias"].reshape(-1), tolerance=0)


@pytest.mark.parametrize("weights", ["vit_token.weights", "bit_r_1111.weights"])
def test_official_preprocessing_is_a_squash_without_antialias_to_plus_minus_one(
    shared: Path, weights: str
) -> None:
    model = load_model(shared / "reference" / f"{weights}.npz", image_size=64)
    wanted = model.preprocessing
    assert (wanted.size, wanted.resize, wanted.antialias) == ((64, 64), "squash", False)
    assert (wanted.interpolation, wanted.mean, wanted.std) == ("bilinear", (0.5,) * 3, (0.5,) * 3)
    assert wanted.rounding == "none"
    assert model.classes is None
    assert model.output == "softmax"


@pytest.mark.parametrize("name", ["resolution_4x4_to_6x6", "resolution_gap_4x4_to_6x6"])
@torch.no_grad()
def test_the_resolution_changes_as_in_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, name: str
) -> None:
    path, expected = shared / "reference" / f"{name}.weights.npz", reference(f"{name}.io")
    old = load_model(path)
    assert_near(old(nchw(expected["image_old"])), expected["logits_old"])
    assert_near(old.positions[0].table, expected["posemb_old"], tolerance=0)
    new = load_model(path, image_size=96, num_classes=7, representation_size=0)
    assert new.preprocessing.size == (96, 96)
    assert_near(new.positions[0].table, expected["posemb_new"], tolerance=1e-6)
    assert not new.head.weight.any()
    assert not new.head.bias.any()
    new.head.weight.copy_(torch.from_numpy(expected["new_head_kernel"]).T)
    new.head.bias.copy_(torch.from_numpy(expected["new_head_bias"]))
    assert_near(new(nchw(expected["image_new"])), expected["logits_new"])


# Full size, with weights by a formula.
def tensor_by_formula(key: str, shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """Return the weights of the full-size fixture; see "Full-size configurations" there."""
    generator = np.random.default_rng([seed, zlib.crc32(key.encode())])
    z = generator.standard_normal(shape).astype(np.float32)
    kind, inputs = key.rpartition("/")[2], shape[:-1]
    if key.split("/")[-2:-1] in (["query"], ["key"], ["value"]):
        inputs = shape[:1]
    scales = {"bias": 0.2, "beta": 0.2, "cls": 0.4, "pos_embedding": 0.4}
    factor = scales.get(kind, 1 / np.sqrt(np.prod(inputs)))
    return 1 + np.float32(0.1) * z if kind in ("scale", "gamma") else z * np.float32(factor)


FULL: dict[str, tuple[str, str, dict[str, Callable[..., Any]]]] = {
    "full_ViT-B_16_224": (
        "ViT-B_16", "ViT-B/16",
        {
            "logits": lambda traced: traced["logits"],
            "encoded_first_rows": lambda traced: traced["tokens"][:, :4],
            "encoded_mean": lambda traced: traced["tokens"].mean(1),
            "embedding_mean": lambda traced: traced["embedding"].mean(1),
        },
    ),
    "full_BiT-R50x1_160": (
        "BiT-R50x1", "R50x1",
        {
            "logits": lambda traced: traced["logits"],
            "pre_logits": lambda traced: traced["features"],
        },
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
@torch.no_grad()
def test_a_full_size_model_agrees_with_the_original_code(
    shared: Path, reference: Reference, nchw: Convert, tmp_path: Path, name: str
) -> None:
    released, ours, results = FULL[name]
    expected = reference(name)
    keys = json.loads((shared / "reference" / "official_keys.json").read_text())[released]
    arrays = {
        key: tensor_by_formula(key, tuple(shape), seed=int(expected["seed"]))
        for key, shape in keys["tensors"].items()
    }
    for key in expected.keys() & {f"check/{key}" for key in arrays}:
        made = arrays[key.removeprefix("check/")].reshape(-1)[:3]
        np.testing.assert_allclose(made, expected[key], rtol=1e-6)
    np.savez(tmp_path / "model.npz", **arrays)
    size = expected["image"].shape[1]
    model = load_model(tmp_path / "model.npz", image_size=size)
    assert model.config == create_model(ours, image_size=size).config
    names = [name for name in ("embedding", "tokens", "features", "logits")
             if name in model.trace_names]  # fmt: skip
    traced = model.trace(nchw(expected["image"]), names)
    for theirs, read in results.items():
        assert_near(read(traced), expected[theirs], tolerance=1e-4)
    assert sum(parameter.numel() for parameter in model.parameters()) == keys["n_params"]


# Names and shapes of what was released.
RELEASED_NAMES = {
    "ViT-Ti_16": "ViT-Ti/16", "ViT-S_16": "ViT-S/16", "ViT-B_16": "ViT-B/16",
    "ViT-L_16": "ViT-L/16", "ViT-H_14": "ViT-H/14", "ViT-S_16-gap-norep": "ViT-S/16",
    "ViT-B_16-gap-norep": "ViT-B/16", "ViT-B_8": "ViT-B/8", "ViT-S_32": "ViT-S/32",
    "ViT-B_32": "ViT-B/32", "ViT-L_32": "ViT-L/32", "ViT-S_32-gap-norep": "ViT-S/32",
    "ViT-B_32-gap-norep": "ViT-B/32", "R+ViT-Ti_16": "R+Ti/16", "R50+ViT-B_16": "R50x1+ViT-B/16",
    "R26+ViT-B_32": "R26+B/32", "R26+ViT-S_32": "R26+S/32", "R50+ViT-L_32": "R50x1+ViT-L/32",
    "BiT-R50x1": "R50x1", "BiT-R101x1": "R101x1", "BiT-R152x2": "R152x2", "BiT-R50x3": "R50x3",
    "BiT-R101x3": "R101x3", "BiT-R152x4": "R152x4",
}  # fmt: skip


@pytest.fixture
def released(shared: Path) -> Callable[[str], dict[str, Any]]:
    keys = json.loads((shared / "reference" / "official_keys.json").read_text())
    assert set(keys) == set(RELEASED_NAMES)
    return keys.__getitem__


def format_of(name: str) -> Any:
    return official_bit if name.startswith("BiT") else official


@pytest.mark.parametrize("name", RELEASED_NAMES)
def test_a_released_model_has_the_names_and_shapes_of_ours_in_both_directions(
    released: Callable[[str], dict[str, Any]], name: str
) -> None:
    kind, wanted = format_of(name), released(name)
    config = model_config(RELEASED_NAMES[name], **({"pool": "gap"} if "gap" in name else {}))
    with torch.device("meta"):
        state = build_model(config).state_dict()
    written = write_entries(state, kind.entries(config))
    assert {key: list(value.shape) for key, value in written.items()} == wanted["tensors"]
    assert sum(value.numel() for value in written.values()) == wanted["n_params"]
    source = WeightFile(path=name, tensors=written)
    assert kind.recognises(source)
    source = WeightFile(path=name, tensors=kind.canonical(source))
    assert kind.infer(source) == config
    found, left = read_entries(source.tensors, kind.entries(config), path=name)
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in state.items()
    }
    assert left == []


@pytest.mark.parametrize("name", ["ViT-B_16", "R50+ViT-B_16"])
def test_the_files_of_2020_have_pre_logits_too(
    released: Callable[[str], dict[str, Any]], name: str
) -> None:
    more = released(name)["imagenet21k_2020_file_also_has"]
    width = model_config(RELEASED_NAMES[name]).embed_dim
    with torch.device("meta"):
        model = create_model(RELEASED_NAMES[name], representation_size=width, num_classes=21_843)
    written = write_entries(model.state_dict(), official.entries(model.config))
    shapes = {key: list(value.shape) for key, value in written.items()}
    assert shapes.items() >= {k: v for k, v in more.items() if k != "note"}.items()
    assert shapes["head/kernel"] == [width, 21_843]


# Written and read again.
def read_arrays(path: Path) -> Arrays:
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def renamed(names: Iterable[str], *, later: bool) -> dict[str, str]:
    """Return the released spelling of names: later ones are numbered otherwise inside a block."""
    table = dict(zip(LINEN, RELEASED, strict=True)) if later else {}
    plain = {name: name.removeprefix("opt/target/").split("/") for name in names}
    return {name: "/".join(table.get(p, p) for p in parts) for name, parts in plain.items()}


@pytest.mark.parametrize("weights", [name for name in CASES if " " not in name])
def test_what_was_read_is_written_as_it_was(
    shared: Path, reference: Reference, tmp_path: Path, weights: str
) -> None:
    arrays = reference(weights)
    model = load_model(shared / "reference" / f"{weights}.npz", **CASES[weights][1])
    assert model.load_report.left_over == model.load_report.new == model.load_report.resized == ()
    save_model(model, tmp_path / "m.npz", format="official")
    written = read_arrays(tmp_path / "m.npz")
    names = renamed(arrays, later="linen" in weights)
    assert set(written) == set(names.values())
    for theirs, ours in names.items():
        # Only norms of groups have two layouts, of which the released one is written.
        assert written[ours].reshape(arrays[theirs].shape).tobytes() == arrays[theirs].tobytes()
        assert written[ours].shape == arrays[theirs].shape or ours.startswith("gn_root")


ROUND_TRIPS: dict[str, tuple[str, dict[str, Any]]] = {
    "token": ("ViT", {}),
    "gap": ("ViT", {"pool": "gap"}),
    "map": ("ViT map", {}),
    "pre_logits": ("ViT", {"representation_size": 7}),
    "no head": ("ViT", {"num_classes": 0}),
    "five channels": ("ViT", {"in_channels": 5, "patch_size": (8, 4)}),
    "hybrid": ("hybrid", {}),
    "hybrid of a root": (
        "hybrid",
        {"resnet": {"name": "x", "stages": (), "width_factor": 0.5, **V1_FIELDS}},
    ),
    "BiT": ("BiT", {}),
    "BiT without a head": ("BiT", {"num_classes": 0}),
    "ResNet v1": ("ResNet v1", {}),
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
@torch.no_grad()
def test_a_model_written_as_official_comes_back_exactly(tmp_path: Path, case: str) -> None:
    family, fields = ROUND_TRIPS[case]
    model = build_small(family, **fields)
    save_model(model, tmp_path / "new" / "m.npz", format="official")
    # A table of 3 x 4 places does not tell its shape.
    loaded = load_model(tmp_path / "new" / "m.npz", image_size=model.config.image_hw)
    state, expected = loaded.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    images = small_batch(model)
    assert torch.equal(loaded(images), model(images))
    assert loaded.load_report.new == loaded.load_report.left_over == ()


# Spellings, each by an independent table of names.
def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def big_vision(arrays: Arrays) -> Arrays:
    """Move the table to the top level, its first row into the class token."""
    arrays = dict(arrays)
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    if "cls" not in arrays:
        return arrays | {"pos_embedding": table}
    return arrays | {"cls": arrays["cls"] + table[:, :1], "pos_embedding": table[:, 1:]}


def with_texts(arrays: Arrays) -> Arrays:
    """Return a model of images and texts with as many arrays for either, as big_vision's."""
    texts = {f"params/txt/{name}": np.ones(3, np.float32) for name in arrays}
    scalars = {f"params/{name}": np.ones(1, np.float32) for name in ("t", "b")}
    return prefixed(arrays, "params/img/") | texts | scalars


SPELLINGS: dict[str, Callable[[Model], Arrays]] = {
    "released": official_arrays,
    "linen": lambda model: official_arrays(model, names=LINEN),
    "params": lambda model: prefixed(official_arrays(model, names=LINEN), "params/"),
    "opt/target": lambda model: prefixed(official_arrays(model), "opt/target/"),
    "img": lambda model: prefixed(official_arrays(model, names=LINEN), "params/img/"),
    "img and txt": lambda model: with_texts(official_arrays(model, names=LINEN)),
    "big_vision": lambda model: big_vision(official_arrays(model, names=LINEN)),
    "scan": lambda model: stacked(official_arrays(model, names=LINEN)),
    "scan of big_vision": lambda model: prefixed(
        stacked(big_vision(official_arrays(model, names=LINEN))), "params/"
    ),
}
SQUARE = {"image_size": 32}


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
@pytest.mark.parametrize("spelling", SPELLINGS)
@torch.no_grad()
def test_every_spelling_is_read_alike(write: Write, spelling: str, pool: str) -> None:
    model = build_small("ViT", pool=pool, **SQUARE)
    loaded = load_model(write(SPELLINGS[spelling](model)))
    assert (loaded.config.pool, loaded.config.image_hw) == (pool, (32, 32))
    images = small_batch(model)
    torch.testing.assert_close(loaded(images), model(images), atol=1e-6, rtol=1e-6)
    left = {"txt/" in name or name in ("t", "b") for name in loaded.load_report.left_over}
    assert left == ({True} if "txt" in spelling else set())


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_the_arrays_written_are_those_of_the_independent_table(tmp_path: Path, pool: str) -> None:
    model = build_small("ViT", pool=pool, representation_size=7)
    save_model(model, tmp_path / "m.npz", format="official")
    written, expected = read_arrays(tmp_path / "m.npz"), official_arrays(model)
    assert written.keys() == expected.keys()
    assert all(np.array_equal(written[name], expected[name]) for name in written)


def test_bfloat16_that_numpy_does_not_know_is_read_right(write: Write) -> None:
    model = build_small("ViT", **SQUARE)
    arrays = official_arrays(model)
    rounded = {name: torch.from_numpy(a).bfloat16() for name, a in arrays.items()}
    voids = {name: t.view(torch.int16).numpy().view("V2") for name, t in rounded.items()}
    loaded = load_model(write(voids))
    assert loaded.cls_token.dtype == torch.float32
    for name, array in official_arrays(loaded).items():
        assert np.array_equal(array, rounded[name].float().numpy())


BIG_VISION_BIT = [
    ("resnet/root_block/standardized_conv2d/kernel", "root_block/conv_root/kernel"),
    ("resnet/group_norm/", "norm-pre-head/"),
    ("resnet/head/conv2d/", "head/"),
    ("/a/proj/standardized_conv2d/", "/conv_proj/"),
    *((f"/{part}/standardized_conv2d/", f"/conv{i}/") for i, part in enumerate("abc", start=1)),
    *((f"/{part}/group_norm/", f"/gn{i}/") for i, part in enumerate("abc", start=1)),
    ("/gamma", "/scale"), ("/beta", "/bias"), ("resnet/", ""),
]  # fmt: skip


def in_big_vision(name: str) -> str:
    for theirs, later in BIG_VISION_BIT:
        name = name.replace(theirs, later)
    return name


def numbered(name: str) -> str:
    """Return a name with the numbers that TensorFlow puts behind a layer."""
    return name.replace("standardized_conv2d/", "standardized_conv2d_17/").replace(
        "group_norm/", "group_norm_3/"
    )


@pytest.mark.parametrize("rename", [in_big_vision, numbered])
@torch.no_grad()
def test_a_bit_resnet_is_read_by_other_names_too(
    reference: Reference, write: Write, rename: Callable[[str], str]
) -> None:
    arrays = reference("bit_r_1111.weights")
    changed = {rename(name): array for name, array in arrays.items()}
    assert len(changed) == len(arrays)
    assert not changed.keys() & arrays.keys() - {"resnet/head/conv2d/bias",
                                                 "resnet/head/conv2d/kernel"}  # fmt: skip
    first, second = (load_model(write(given), image_size=64) for given in (arrays, changed))
    assert second.load_report.left_over == ()
    images = small_batch(first)
    assert torch.equal(first(images), second(images))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Arrays], Path]:
    def write_arrays(arrays: Arrays) -> Path:
        np.savez(tmp_path / "model.npz", **arrays)
        return tmp_path / "model.npz"

    return write_arrays


@pytest.fixture
def arrays(reference: Reference) -> Arrays:
    return reference("vit_token_rep.weights")


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
MISSING = {
    "embedding/kernel": "holds tensors of no format that is known, such as ",
    "embedding/bias": "lacks 1 tensors of the model, such as embedding.bias: it is damaged or",
    "Transformer/posembed_input/pos_embedding": "no official ViT: it has no Transformer/posembed",
    f"{BLOCK}/LayerNorm_0/scale": "lacks 1 tensors of the model, such as blocks.1.norm1.weight",
    f"{BLOCK}/LayerNorm_2/bias": "lacks 1 tensors of the model, such as blocks.1.norm2.bias",
    f"{BLOCK}/MultiHeadDotProductAttention_1/query/kernel": "such as blocks.1.attention.qkv.weig",
    f"{BLOCK}/MultiHeadDotProductAttention_1/key/bias": "such as blocks.1.attention.qkv.bias",
    f"{BLOCK}/MultiHeadDotProductAttention_1/out/kernel": "such as blocks.1.attention.out.weight",
    f"{BLOCK}/MlpBlock_3/Dense_0/kernel": "lacks 1 tensors .* such as blocks.1.mlp.hidden.weight",
    f"{BLOCK}/MlpBlock_3/Dense_1/bias": "lacks 1 tensors of the model, such as blocks.1.mlp.out.bi",
    "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel": "no official ViT: it has no Transform",
    "Transformer/encoder_norm/scale": "lacks 1 tensors of the model, such as norm.weight",
    "pre_logits/kernel": "lacks 1 tensors of the model, such as pre_logits.weight",
    "pre_logits/bias": "has too many: 1 tensors of the model, such as pre_logits/kernel",
    "head/kernel": "lacks 1 tensors of the model, such as head.weight",
    "head/bias": "has too many: 1 tensors of the model, such as head/kernel",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_array_is_named(arrays: Arrays, write: Write, name: str) -> None:
    del arrays[name]
    message = MISSING[name].replace("no official", "not an official")
    with pytest.raises(ModelFileError, match=message):
        load_model(write(arrays))


def test_a_bit_root_that_is_no_kernel_is_refused(reference: Reference, write: Write) -> None:
    arrays = reference("bit_r_1111.weights")
    root = "resnet/root_block/standardized_conv2d/kernel"
    arrays[root] = arrays[root].reshape(-1)
    with pytest.raises(ModelFileError, match=rf"{root} has shape \(4704,\), not \(7, 7, C, K\)"):
        load_model(write(arrays))


def test_a_missing_class_token_does_not_fit_the_positions(arrays: Arrays, write: Write) -> None:
    del arrays["cls"]
    with pytest.raises(ModelFileError, match="positions for 17 patches, which is no square"):
        load_model(write(arrays))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("change", ["flat", "deeper"])
def test_an_array_of_another_shape_is_refused(
    arrays: Arrays, write: Write, name: str, change: str
) -> None:
    array = arrays[name]
    changed = {
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
    with pytest.raises(ModelFileError, match="its tensors make no model: num_heads=5 does not"):
        load_model(write(arrays))


def test_an_array_too_many_is_named(arrays: Arrays, write: Write) -> None:
    arrays["block1/unit1/conv1/kernel"] = np.zeros(3, np.float32)
    with pytest.raises(
        ModelFileError, match="has too many: 1 tensors of the model, such as block1/unit1/conv1"
    ):
        load_model(write(arrays))
    loaded = load_model(write(arrays), strict=False)
    assert loaded.load_report.left_over == ("block1/unit1/conv1/kernel",)


def test_an_array_of_whole_numbers_is_refused(arrays: Arrays, write: Write) -> None:
    arrays["cls"] = np.zeros((1, 1, 48), np.int64)
    with pytest.raises(ModelFileError, match="cls_token is of type torch.int64, the model needs"):
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
    with pytest.raises(ModelFileError, match=r"model.pth holds tensors of no format that is known"):
        load_model(tmp_path / "model.pth")


def test_a_truncated_file_is_refused(arrays: Arrays, write: Write) -> None:
    path = write(arrays)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelFileError, match=r"model\.npz is damaged or not whole: "):
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
