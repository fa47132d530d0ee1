import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitral.errors import RequestError
from vitral.models.build import create_model
from vitral.models.vit import ViT

Build = Callable[..., ViT]

# Counted from the official code: the trunk, with a head of 1000, the trunk with pre_logits.
COUNTS = {
    "ViT-Ti/16": (5_524_416, 5_717_416, 5_561_472),
    "ViT-S/16": (21_665_664, 22_050_664, 21_813_504),
    "ViT-S/32": (22_493_952, 22_878_952, 22_641_792),
    "ViT-B/8": (85_807_872, 86_576_872, None),
    "ViT-B/16": (85_798_656, 86_567_656, 86_389_248),
    "ViT-B/32": (87_455_232, 88_224_232, None),
    "ViT-L/16": (303_301_632, 304_326_632, 304_351_232),
    "ViT-L/32": (305_510_400, 306_535_400, 306_560_000),
    "ViT-H/14": (630_764_800, 632_045_800, 632_404_480),
    "ViT-g/14": (1_011_202_432, 1_012_611_432, None),
    "ViT-G/14": (1_842_775_680, 1_844_440_680, None),
}
WITH_PRE_LOGITS = {name: counts[2] for name, counts in COUNTS.items() if counts[2]}


def count_parameters(name: str, **fields: Any) -> int:
    with torch.device("meta"):
        model = create_model(name, **fields)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_without_and_with_a_head_are_as_many_as_in_the_official_models(
    name: str,
) -> None:
    counted = (count_parameters(name, num_classes=0), count_parameters(name))
    assert counted == COUNTS[name][:2]


@pytest.mark.parametrize(("name", "count"), WITH_PRE_LOGITS.items())
def test_parameters_with_pre_logits_are_as_many_as_in_the_paper(name: str, count: int) -> None:
    with torch.device("meta"):
        width = create_model(name, depth=1).config.embed_dim
    assert count_parameters(name, num_classes=0, representation_size=width) == count


@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    patch=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.integers(1, 5),
    width=st.integers(1, 6).map(lambda n: 4 * n),
    depth=st.integers(1, 3),
    mlp=st.integers(1, 40),
    classes=st.integers(0, 7),
    pool=st.sampled_from(["token", "gap"]),
    rep=st.sampled_from([0, 5]),
)
@settings(max_examples=40, deadline=None)
def test_parameters_follow_the_formula_for_any_shape(
    grid: tuple[int, int],
    patch: tuple[int, int],
    channels: int,
    width: int,
    depth: int,
    mlp: int,
    classes: int,
    pool: str,
    rep: int,
) -> None:
    prefix = 1 if pool == "token" else 0
    features = rep or width
    expected = (
        (patch[0] * patch[1] * channels + 1) * width
        + prefix * width
        + (grid[0] * grid[1] + prefix) * width
        + depth * (2 * 2 * width + 4 * (width + 1) * width + 2 * width * mlp + mlp + width)
        + 2 * width
        + (width + 1) * rep
        + ((features + 1) * classes)
    )
    counted = count_parameters(
        "ViT-Ti/16", patch_size=patch, image_size=(grid[0] * patch[0], grid[1] * patch[1]),
        in_channels=channels, embed_dim=width, depth=depth, num_heads=4, mlp_dim=mlp,
        num_classes=classes, pool=pool, representation_size=rep,
    )  # fmt: skip
    assert counted == expected


@pytest.mark.parametrize(
    ("name", "size", "length"),
    [
        ("ViT-B/32", 224, 50), ("ViT-B/16", 224, 197), ("ViT-H/14", 224, 257),
        ("ViT-B/16", 384, 577), ("ViT-L/16", 512, 1025), ("ViT-H/14", 518, 1370),
        ("ViT-H/14", 384, 730), ("ViT-B/16", (224, 320), 281),
    ],
)  # fmt: skip
def test_the_sequence_is_as_long_as_in_the_paper(
    name: str, size: int | tuple[int, int], length: int
) -> None:
    with torch.device("meta"):
        model = create_model(name, image_size=size, depth=1, num_classes=0)
        images = torch.empty(1, 3, *model.config.image_hw)
        assert model.tokens(images).shape == (1, length, model.config.embed_dim)


# A.1, "Init": measured on the official code for B/16.
LECUN = 768**-0.5
XAVIER = (6 / (768 + 768)) ** 0.5
MLP_XAVIER = (6 / (768 + 3072)) ** 0.5


@pytest.fixture(scope="module")
def fresh() -> dict[str, Tensor]:
    torch.manual_seed(5)
    model = create_model("ViT-B/16", depth=1, representation_size=768)
    state = model.state_dict()
    query, key, value = state.pop("blocks.0.attention.qkv.weight").chunk(3)
    return state | {"query": query, "key": key, "value": value}


@pytest.mark.parametrize("name", ["query", "key", "value", "blocks.0.attention.out.weight"])
def test_q_k_v_and_out_start_each_xavier_uniform(fresh: dict[str, Tensor], name: str) -> None:
    assert 0.999 * XAVIER < fresh[name].abs().max() <= XAVIER
    assert fresh[name].std().item() == pytest.approx(0.0361, rel=0.01)
    assert fresh[name].mean().abs() < 2e-4


@pytest.mark.parametrize("name", ["hidden", "out"])
def test_the_mlp_starts_xavier_uniform_with_tiny_biases(
    fresh: dict[str, Tensor], name: str
) -> None:
    weight, bias = fresh[f"blocks.0.mlp.{name}.weight"], fresh[f"blocks.0.mlp.{name}.bias"]
    assert 0.999 * MLP_XAVIER < weight.abs().max() <= MLP_XAVIER
    assert weight.std().item() == pytest.approx(MLP_XAVIER / 3**0.5, rel=0.01)
    assert bias.std().item() == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize("name", ["embedding.weight", "pre_logits.weight"])
def test_embedding_and_pre_logits_start_lecun_normal_cut_at_two_sigma(
    fresh: dict[str, Tensor], name: str
) -> None:
    cut = 2 * LECUN / 0.87962566103423978
    assert fresh[name].std().item() == pytest.approx(LECUN, rel=0.01)
    assert 0.99 * cut < fresh[name].abs().max() <= cut


def test_positions_start_normal_with_deviation_002(fresh: dict[str, Tensor]) -> None:
    assert fresh["position.table"].std().item() == pytest.approx(0.02, rel=0.01)
    assert fresh["position.table"].abs().max() > 3 * 0.02


@pytest.mark.parametrize(
    "name",
    [
        "cls_token", "head.weight", "head.bias", "pre_logits.bias", "embedding.bias", "norm.bias",
        "blocks.0.norm1.bias", "blocks.0.norm2.bias", "blocks.0.attention.qkv.bias",
        "blocks.0.attention.out.bias",
    ],
)  # fmt: skip
def test_class_token_head_and_biases_start_at_zero(fresh: dict[str, Tensor], name: str) -> None:
    assert not fresh[name].any()


@pytest.mark.parametrize("name", ["norm.weight", "blocks.0.norm1.weight", "blocks.0.norm2.weight"])
def test_norms_start_with_a_scale_of_one(fresh: dict[str, Tensor], name: str) -> None:
    assert (fresh[name] == 1).all()


def test_the_same_seed_draws_the_same_weights_and_another_seed_others() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(create_model("ViT-Mi/8", image_size=16).parameters())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    patch=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    rest=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    channels=st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_embedding_equals_a_convolution_with_the_patch_as_stride(
    grid: tuple[int, int], patch: tuple[int, int], rest: tuple[int, int], channels: int
) -> None:
    height = grid[0] * patch[0] + min(rest[0], patch[0] - 1)
    width = grid[1] * patch[1] + min(rest[1], patch[1] - 1)
    model = create_model(
        "ViT-Mi/4", patch_size=patch, image_size=(height, width), in_channels=channels, depth=1
    )
    images = torch.randn(2, channels, height, width)
    with torch.no_grad():
        model.embedding.bias.normal_()
        embedded = model.embed(images)
        expected = F.conv2d(
            images, model.embedding.weight, model.embedding.bias, stride=patch
        )  # N D h w
    assert model.config.grid == grid
    torch.testing.assert_close(embedded, expected.flatten(2).mT, atol=1e-5, rtol=1e-5)


def test_pixels_right_and_bottom_that_fill_no_patch_change_nothing(small_model: Build) -> None:
    model = small_model(image_size=(27, 35))
    images = torch.randn(2, 3, 27, 35)
    other = images.clone()
    other[:, :, 24:] += 1
    other[:, :, :, 32:] -= 1
    assert torch.equal(model(images), model(other))


@pytest.mark.parametrize("pool", ["token", "gap"])
@torch.no_grad()
def test_a_transposed_model_sees_transposed_images_alike(small_model: Build, pool: str) -> None:
    model = small_model(patch_size=(4, 8), pool=pool)
    turned = small_model(patch_size=(8, 4), image_size=(32, 24), pool=pool)
    state = model.state_dict()
    prefix = model.num_prefix_tokens
    places = state["position.table"][:, prefix:].unflatten(1, model.config.grid)
    turned.load_state_dict(
        state
        | {
            "embedding.weight": state["embedding.weight"].mT,
            "position.table": torch.cat(
                [state["position.table"][:, :prefix], places.transpose(1, 2).flatten(1, 2)], dim=1
            ),
        }
    )
    images = torch.randn(2, 3, 24, 32)
    torch.testing.assert_close(model(images), turned(images.mT), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pool", ["token", "gap"])
@pytest.mark.parametrize("representation_size", [0, 7])
@torch.no_grad()
def test_forward_is_the_chain_of_embed_encode_pool_and_head(
    small_model: Build, small_images: Tensor, pool: str, representation_size: int
) -> None:
    model = small_model(pool=pool, representation_size=representation_size)
    tokens = model.encode(model.embed(small_images))
    features = model.pool(tokens)
    assert tokens.shape == (2, model.num_prefix_tokens + 12, 16)
    assert features.shape == (2, representation_size or 16)
    assert torch.equal(model.tokens(small_images), tokens)
    torch.testing.assert_close(model.features(small_images), features, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model(small_images), model.head(features), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_head_reads_the_first_token_or_the_mean_of_the_patches(small_model: Build) -> None:
    tokens = torch.randn(2, 13, 16)
    assert torch.equal(small_model(pool="token").pool(tokens), tokens[:, 0])
    torch.testing.assert_close(small_model(pool="gap").pool(tokens), tokens.mean(1))


@torch.no_grad()
def test_a_model_without_a_head_returns_its_features(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(num_classes=0)
    assert torch.equal(model(small_images), model.features(small_images))
    traced = model.trace(small_images, ["logits"])["logits"]
    torch.testing.assert_close(traced, model.features(small_images), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 32, 24), (1, 1, 24, 32), (1, 3, 24, 40)])
def test_images_of_another_size_are_refused_with_both_sizes(
    small_model: Build, shape: tuple[int, ...]
) -> None:
    with pytest.raises(RequestError, match=r"do not fit a model for \(3, 24, 32\): resize them"):
        small_model()(torch.rand(shape))


TRACED_SHAPES = {
    "embedding": (2, 12, 16),
    "block00/attention": (2, 2, 13, 13),
    "block00": (2, 13, 16),
    "block01/attention": (2, 2, 13, 13),
    "block01": (2, 13, 16),
    "block02/attention": (2, 2, 13, 13),
    "block02": (2, 13, 16),
    "tokens": (2, 13, 16),
    "features": (2, 16),
    "logits": (2, 5),
}


@torch.no_grad()
def test_everything_that_can_be_traced_has_its_shape(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model()
    assert model.trace_names == tuple(TRACED_SHAPES)
    traced = model.trace(small_images, model.trace_names)
    assert {name: tuple(value.shape) for name, value in traced.items()} == TRACED_SHAPES


@pytest.mark.parametrize("name", TRACED_SHAPES)
@torch.no_grad()
def test_a_name_traced_alone_equals_the_one_traced_with_all(
    small_model: Build, small_images: Tensor, name: str
) -> None:
    model = small_model()
    alone = model.trace(small_images, [name])
    assert list(alone) == [name]
    assert torch.equal(alone[name], model.trace(small_images, model.trace_names)[name])


@torch.no_grad()
def test_the_trace_agrees_with_the_methods(small_model: Build, small_images: Tensor) -> None:
    model = small_model()
    traced = model.trace(small_images, ["logits", "features", "tokens", "embedding", "logits"])
    assert torch.equal(traced["embedding"], model.embed(small_images))
    assert torch.equal(traced["tokens"], model.tokens(small_images))
    features, logits = model.features(small_images), model(small_images)
    torch.testing.assert_close(traced["features"], features, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(traced["logits"], logits, atol=1e-6, rtol=1e-5)


def test_tracing_nothing_finds_nothing(small_model: Build, small_images: Tensor) -> None:
    assert small_model().trace(small_images, []) == {}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("block1/attention", "block01/attention"), ("block3", "block0"), ("logit", "logits")],
)
def test_an_unknown_trace_name_suggests_the_nearest(
    small_model: Build, small_images: Tensor, name: str, nearest: str
) -> None:
    with pytest.raises(RequestError, match=f"nothing called '{name}' to trace.*'{nearest}"):
        small_model().trace(small_images, [name])


BLOCKS_RUN = {
    "embedding": 0,
    "block00/attention": 0,
    "block00": 1,
    "block01/attention": 1,
    "block01": 2,
    "block02/attention": 2,
    "tokens": 3,
}


@pytest.mark.parametrize(("name", "blocks"), BLOCKS_RUN.items())
def test_a_trace_ends_at_the_last_name_that_is_asked_for(
    small_model: Build, small_images: Tensor, name: str, blocks: int
) -> None:
    model = small_model()
    calls: list[nn.Module] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, _: calls.append(module))
    model.trace(small_images, [name])
    assert calls == list(model.blocks)[:blocks]


@pytest.mark.parametrize(
    ("names", "norms"), [(["logits"], 3), (["block01/attention", "logits"], 4)]
)
def test_attention_is_computed_for_the_blocks_that_are_asked_about_only(
    small_model: Build, small_images: Tensor, names: list[str], norms: int
) -> None:
    model = small_model()
    calls: list[nn.Module] = []  # of the norm before attention: once to run it, once to show it
    for block in model.blocks:
        block.norm1.register_forward_pre_hook(lambda module, _: calls.append(module))
    model.trace(small_images, names)
    assert len(calls) == norms


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("index", [0, 1, 2])
@torch.no_grad()
def test_traced_attention_times_values_is_what_the_block_computes(
    small_model: Build, small_images: Tensor, index: int, kernel: SDPBackend
) -> None:
    model = small_model()
    block = model.blocks[index]
    seen: list[tuple[Tensor, Tensor]] = []
    block.attention.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    with sdpa_kernel(kernel):
        model.tokens(small_images)
        name = f"block{index:02}/attention"
        attention = model.trace(small_images, [name])[name]
    normed, computed = seen[0]
    values = F.linear(normed, block.attention.qkv.weight[32:], block.attention.qkv.bias[32:])
    values = values.unflatten(2, (2, 8)).transpose(1, 2)  # N heads L d
    mixed = (attention @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attention.out(mixed), computed, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 2, 13))


@torch.no_grad()
def test_traced_attention_is_exact_under_bfloat16(small_model: Build, small_images: Tensor) -> None:
    model = small_model()
    with torch.no_grad():
        model.blocks[0].attention.qkv.weight *= 8
    attention = model.blocks[0].attention
    tokens = torch.randn(2, 13, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention.weights(tokens)
        query, key, _ = attention.qkv(tokens).double().chunk(3, dim=-1)
        traced = model.trace(small_images, ["block00/attention"])["block00/attention"]
    query, key = (x.unflatten(2, (2, 8)).transpose(1, 2) for x in (query, key))
    expected = (query @ key.mT / math.sqrt(8)).softmax(-1)
    torch.testing.assert_close(weights.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(traced.sum(-1), torch.ones(2, 2, 13))


@torch.no_grad()
def test_bfloat16_autocast_gives_nearly_the_same_logits(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(representation_size=7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(small_images)
    torch.testing.assert_close(logits.float(), model(small_images), atol=0.1, rtol=0)


def test_every_parameter_gets_a_gradient(small_model: Build, small_images: Tensor) -> None:
    model = small_model(representation_size=7)
    model(small_images).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert [name for name, p in model.named_parameters() if not p.grad.any()] == []


def run_dropouts(model: ViT, images: Tensor) -> list[str]:
    """Return the names of the modules that dropped something, in order."""
    dropped: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda module, given, out, name=name: (
                dropped.append(name)
                if isinstance(module, nn.Dropout) and not torch.equal(given[0], out)
                else None
            )
        )
    model(images)
    return dropped


def test_dropout_is_after_positions_attention_and_both_layers_of_the_mlp(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(dropout=0.5, depth=2, representation_size=7).train()
    assert run_dropouts(model, small_images) == [
        "dropout",
        *["blocks.0.dropout", "blocks.0.mlp.dropout", "blocks.0.mlp.dropout"],
        *["blocks.1.dropout", "blocks.1.mlp.dropout", "blocks.1.mlp.dropout"],
    ]


def test_nothing_is_dropped_from_embedding_attention_weights_or_the_head(
    small_model: Build,
) -> None:
    model = small_model(dropout=0.5, representation_size=7).train()
    images, tokens = torch.randn(2, 3, 24, 32), torch.randn(2, 13, 16)
    attention = model.blocks[0].attention
    assert torch.equal(model.embed(images), model.embed(images))
    assert torch.equal(attention(tokens), attention(tokens))
    assert torch.equal(model.pool(tokens), model.pool(tokens))


def test_evaluation_drops_nothing_and_training_does(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(dropout=0.5)
    assert torch.equal(model(small_images), small_model(dropout=0.0)(small_images))
    assert torch.equal(model(small_images), model(small_images))
    model.train()
    assert not torch.equal(model(small_images), model(small_images))


@pytest.mark.usefixtures("without_shape_checks")
def test_a_compiled_model_is_one_graph(small_model: Build, small_images: Tensor) -> None:
    model = small_model()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(small_images), model(small_images))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.usefixtures("without_shape_checks")
def test_the_default_compiler_gives_the_same_logits(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(small_images), model(small_images), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("without_shape_checks")
def test_an_exported_model_takes_any_batch_and_runs_only_fused_attention(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (small_images,), dynamic_shapes=({0: batch},))
    calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert calls.count("aten.scaled_dot_product_attention.default") == 3
    assert [call for call in calls if "softmax" in call] == []
    images = torch.rand(3, 3, 24, 32)
    torch.testing.assert_close(exported.module()(images), model(images))
