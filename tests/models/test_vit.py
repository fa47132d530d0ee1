import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import build_small, small_batch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitral.models.build import create_model
from vitral.models.layers import Attention, EncoderBlock
from vitral.models.vit import ViT

Build = Callable[..., ViT]


def count_parameters(name: str, **fields: Any) -> int:
    with torch.device("meta"):
        model = create_model(name, **fields)
    return sum(parameter.numel() for parameter in model.parameters())


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
    assert fresh["positions.0.table"].std().item() == pytest.approx(0.02, rel=0.01)
    assert fresh["positions.0.table"].abs().max() > 3 * 0.02


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
    transposed = small_model(patch_size=(8, 4), image_size=(32, 24), pool=pool)
    state = model.state_dict()
    prefix = model.num_prefix_tokens
    patches = state["positions.0.table"][:, prefix:].unflatten(1, model.config.grid)
    transposed.load_state_dict(
        state
        | {
            "embedding.weight": state["embedding.weight"].mT,
            "positions.0.table": torch.cat(
                [state["positions.0.table"][:, :prefix], patches.transpose(1, 2).flatten(1, 2)],
                dim=1,
            ),
        }
    )
    images = torch.randn(2, 3, 24, 32)
    torch.testing.assert_close(model(images), transposed(images.mT), atol=1e-5, rtol=1e-5)
    tokens, other = (
        outputs[:, prefix:] for outputs in (model.tokens(images), transposed.tokens(images.mT))
    )
    torch.testing.assert_close(
        tokens.unflatten(1, model.config.grid),
        other.unflatten(1, transposed.config.grid).transpose(1, 2),
        atol=1e-5,
        rtol=1e-5,
    )


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


@pytest.mark.parametrize(
    ("fields", "patches_from", "what"),
    [
        ({"pool": "token"}, 1, lambda first, register, mean: first),
        ({"pool": "token", "num_registers": 2}, 3, lambda first, register, mean: first),
        ({"pool": "gap"}, 0, lambda first, register, mean: mean),
        ({"pool": "gap", "class_token": True}, 1, lambda first, register, mean: mean),
        ({"pool": "gap", "num_registers": 2}, 2, lambda first, register, mean: mean),
        (
            {"pool": "token+gap", "num_registers": 2}, 3,
            lambda first, register, mean: torch.cat([first, mean], dim=1),
        ),
        (
            {"pool": "token+register", "num_registers": 2}, 3,
            lambda first, register, mean: torch.cat([first, register], dim=1),
        ),
    ],
    ids=[
        "token", "token-registers", "gap", "gap-class-token", "gap-registers", "token+gap",
        "token+register",
    ],
)  # fmt: skip
@torch.no_grad()
def test_the_head_reads_class_token_register_or_the_mean_of_the_patches(
    small_model: Build, fields: dict[str, Any], patches_from: int, what: Callable[..., Tensor]
) -> None:
    tokens = torch.randn(2, patches_from + 12, 16)
    expected = what(tokens[:, 0], tokens[:, 1], tokens[:, patches_from:].mean(1))
    torch.testing.assert_close(small_model(**fields).pool(tokens), expected)


@pytest.mark.parametrize(
    ("pool", "read"),
    [
        ("gap", lambda model, tokens: tokens.mean(1)),
        ("token", lambda model, tokens: tokens[:, 0]),
        ("map", lambda model, tokens: model.attention_pool(tokens)),
    ],
)
@torch.no_grad()
def test_the_last_norm_may_follow_the_pooling(
    small_model: Build, small_images: Tensor, pool: str, read: Callable[..., Tensor]
) -> None:
    model = small_model(pool=pool, norm_pooled=True, representation_size=7)
    tokens = model.tokens(small_images)
    assert torch.equal(tokens, model.trace(small_images, ["block02"])["block02"])
    expected = torch.tanh(model.pre_logits(model.norm(read(model, tokens))))
    torch.testing.assert_close(model.features(small_images), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_registers_stand_between_class_token_and_patches_without_positions(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(num_registers=2)
    plain = small_model()
    given: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    plain.load_state_dict(model.state_dict(), strict=False)
    plain.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model.tokens(small_images)
    plain.tokens(small_images)
    with_registers, without = given
    assert with_registers.shape == (2, 15, 16)
    assert torch.equal(with_registers[:, 1:3], model.registers.expand(2, -1, -1))
    assert torch.equal(with_registers[:, [0, *range(3, 15)]], without)


def test_registers_start_small_but_not_equal(small_model: Build) -> None:
    registers = create_model("ViT-Mi/8", image_size=16, depth=1, num_registers=2).registers
    assert 0 < registers.abs().max() < 1e-5
    assert not torch.equal(registers[:, 0], registers[:, 1])


@torch.no_grad()
def test_positions_before_every_block_are_added_each_by_itself(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(position_at="every")
    assert len(model.positions) == 3
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), model.embed(small_images)], dim=1)
    for block, position in zip(model.blocks, model.positions, strict=True):
        tokens = block(tokens + position.table)
    torch.testing.assert_close(model.tokens(small_images), model.norm(tokens))


@pytest.mark.parametrize("position", ["1d", "2d", "relative", "sincos2d"])
@torch.no_grad()
def test_a_shared_table_is_every_block_s_own_where_those_are_equal(
    small_model: Build, small_images: Tensor, position: str
) -> None:
    shared = small_model(position=position, position_at="shared")
    every = small_model(position=position, position_at="every")
    assert len(shared.positions) == 1
    state = shared.state_dict()
    first = {name: value for name, value in state.items() if name.startswith("positions.0.")}
    every.load_state_dict(
        state
        | {
            name.replace("positions.0", f"positions.{index}"): value
            for name, value in first.items()
            for index in range(3)
        }
    )
    assert torch.equal(shared(small_images), every(small_images))


@pytest.mark.parametrize(
    ("position", "place"), [("2d", "stem"), ("sincos2d", "stem"), ("1d", "shared")]
)
@torch.no_grad()
def test_positions_enter_at_the_stem_once_or_before_each_block(
    small_model: Build, small_images: Tensor, position: str, place: str
) -> None:
    model = small_model(position=position, position_at=place)
    calls: list[nn.Module] = []
    model.positions[0].register_forward_pre_hook(lambda module, _: calls.append(module))
    model.tokens(small_images)
    assert len(calls) == {"stem": 1, "shared": 3}[place]


@torch.no_grad()
def test_without_positions_shuffled_patches_give_the_same_class_token(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(position="none")
    patches = model.embed(small_images)
    shuffled = patches[:, torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(
        model.encode(patches)[:, 0], model.encode(shuffled)[:, 0], atol=1e-5, rtol=1e-5
    )
    assert list(model.positions) == []


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


# Each with what it needs; the class token is read alone where nothing else is said.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"position": "2d"},
    {"position": "2d", "position_at": "every", "num_registers": 2},
    {"position": "relative"},
    {"position": "relative", "relative_per_head": True, "num_registers": 1},
    {"position": "relative", "position_at": "shared"},
    {"position": "sincos2d"},
    {"position": "sincos2d", "position_at": "every"},
    {"position": "none"},
    {"position_at": "every"},
    {"position_at": "shared", "num_registers": 2},
    {"num_registers": 3},
    {"qk_norm": True},
    {"layer_scale": 0.1},
    {"norm_pooled": True},
    {"activation": "swiglu"},
    {"representation_size": 7},
    {"norm_pooled": True, "qk_norm": True, "layer_scale": 0.3, "position_at": "every"},
    {"depth": 1},
]


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
@torch.no_grad()
def test_reading_the_class_token_alone_gives_what_all_tokens_give(
    small_model: Build, small_images: Tensor, fields: dict[str, Any]
) -> None:
    model = small_model(**fields)
    plain = model.pool(model.tokens(small_images))
    torch.testing.assert_close(model.features(small_images), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
@torch.no_grad()
def test_the_trace_agrees_with_every_option(
    small_model: Build, small_images: Tensor, fields: dict[str, Any]
) -> None:
    model = small_model(**fields)
    names = ["tokens", "features", "logits", "block00/attention"]
    traced = model.trace(small_images, names)
    assert torch.equal(traced["tokens"], model.tokens(small_images))
    torch.testing.assert_close(traced["logits"], model(small_images), atol=1e-5, rtol=1e-5)
    attention = traced["block00/attention"]
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


@torch.no_grad()
def test_the_class_token_alone_is_followed_through_the_last_block(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model()
    lengths: list[int] = []
    for block in model.blocks:
        block.mlp.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    model(small_images)
    assert lengths == [13, 13, 1]


POOLS: dict[str, dict[str, Any]] = {
    "token": {}, "gap": {}, "map": {}, "token+gap": {}, "token+register": {"num_registers": 1},
}  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("pool", POOLS)
def test_every_block_is_called_as_a_module_so_that_its_hooks_run(
    small_model: Build, small_images: Tensor, pool: str, checkpointing: bool
) -> None:
    model = small_model(pool=pool, **POOLS[pool]).train()
    model.gradient_checkpointing = checkpointing
    begun: list[int] = []
    done: list[int] = []
    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: begun.append(index))
        block.register_forward_hook(lambda *_, index=index: done.append(index))
    logits = model(small_images)
    assert begun == done == [0, 1, 2]
    logits.sum().backward()
    assert begun == [0, 1, 2] + [2, 1, 0] * checkpointing


@pytest.mark.parametrize("fields", [*OPTIONS, {"pool": "map"}, {"pool": "token+gap"}], ids=str)
def test_every_parameter_gets_a_gradient(
    small_model: Build, small_images: Tensor, fields: dict[str, Any]
) -> None:
    model = small_model(**fields)
    model(small_images).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    dead = [name for name, p in model.named_parameters() if not p.grad.any()]
    # The class token, all that is read of the last block, has no offset.
    own_offsets = (model.config.position, model.config.position_at) == ("relative", "every")
    assert dead == [f"positions.{model.config.depth - 1}.offsets"] * own_offsets


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
def test_an_exported_model_runs_only_fused_attention(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model()
    exported = torch.export.export(model, (small_images,))
    calls = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert calls.count("aten.scaled_dot_product_attention.default") == 3
    assert [call for call in calls if "softmax" in call] == []


# What is traced is what was computed.
def mixed_by(attention: Tensor, module: Attention, tokens: Tensor) -> Tensor:
    """Return what attention (N, heads, M, L) makes of tokens (N, L, D), value by value."""
    width = tokens.shape[-1]
    value = tokens @ module.qkv.weight[2 * width :].T + module.qkv.bias[2 * width :]
    heads = value.unflatten(2, (module.num_heads, -1))
    mixed = torch.einsum("nhml,nlhd->nmhd", attention, heads).flatten(2)
    return mixed @ module.out.weight.T + module.out.bias


@pytest.mark.parametrize("position_at", ["stem", "every", "shared"])
@pytest.mark.parametrize("position", ["1d", "2d", "sincos2d", "relative"])
@torch.no_grad()
def test_the_traced_attention_of_each_block_gives_its_output(
    position: str, position_at: str
) -> None:
    fields = {"depth": 3, "position": position, "position_at": position_at, "num_registers": 1}
    model = build_small("ViT", **fields)
    assert isinstance(model, ViT)
    traced = model.trace(small_batch(model), model.trace_names)
    before = model._assemble(traced["embedding"])
    for index, block in enumerate(model.blocks):
        assert isinstance(block, EncoderBlock)
        tokens = before
        if position_at != "stem" and position != "relative":
            tokens = model.positions[index if position_at == "every" else 0](before)
        attention = traced[f"block{index:02}/attention"]
        after = tokens + mixed_by(attention, block.attention, block.norm1(tokens))
        expected = after + block.mlp(block.norm2(after))
        before = traced[f"block{index:02}"]
        torch.testing.assert_close(before, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "swiglu"])
@torch.no_grad()
def test_the_traced_attention_of_the_probe_gives_the_features(activation: str) -> None:
    model = build_small("ViT map", num_registers=1, class_token=True, activation=activation)
    assert isinstance(model, ViT)
    traced = model.trace(small_batch(model), ["tokens", "pool/attention", "features"])
    pool = model.attention_pool
    pooled = mixed_by(traced["pool/attention"], pool.attention, traced["tokens"])
    hidden = pool.norm(pooled) @ pool.mlp.hidden.weight.T + pool.mlp.hidden.bias
    if activation == "swiglu":
        gate, value = hidden.chunk(2, dim=-1)
        active = gate * torch.sigmoid(gate) * value
    elif activation == "gelu":
        active = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    else:
        inner = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
        active = hidden * 0.5 * (1 + torch.tanh(inner))
    expected = (pooled + active @ pool.mlp.out.weight.T + pool.mlp.out.bias)[:, 0]
    torch.testing.assert_close(traced["features"], expected, atol=2e-5, rtol=1e-4)
