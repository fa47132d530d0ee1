import pytest
import torch
import torch.nn.functional as F
from scipy.special import erf

from vitral.config.names import model_config
from vitral.models.layers import (
    MLP,
    Attention,
    AttentionPool,
    EncoderBlock,
    scale_branch,
)
from vitral.models.vit import ViT


def dense(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    return inputs @ layer.weight.double().T + layer.bias.double()


@torch.no_grad()
def test_attention_is_the_paper_s_formula_head_by_head() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3)
    attention.qkv.bias.normal_()
    attention.out.bias.normal_()
    tokens = torch.randn(2, 5, 12)
    parts = attention.qkv.weight.double().chunk(3), attention.qkv.bias.double().chunk(3)
    query, key, value = (tokens.double() @ w.T + b for w, b in zip(*parts, strict=True))
    heads = []
    for head in range(3):
        channels = slice(4 * head, 4 * head + 4)
        scores = query[..., channels] @ key[..., channels].mT / 4**0.5
        heads.append(scores.softmax(-1) @ value[..., channels])
    expected = dense(attention.out, torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens).double(), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_qk_norm_is_a_layer_norm_of_each_head_s_queries_and_keys() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 3, norm_heads=True, norm_eps=1e-2)  # an eps that is felt
    for parameter in attention.parameters():
        parameter.normal_()
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    projected = tokens @ attention.qkv.weight.double().T + attention.qkv.bias.double()
    heads = []
    for head in range(3):
        query, key, value = (
            part[..., 4 * head : 4 * head + 4] for part in projected.chunk(3, dim=-1)
        )
        normed = []
        for part, norm in ((query, attention.query_norm), (key, attention.key_norm)):
            centred = part - part.mean(-1, keepdim=True)
            scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-2).sqrt()
            normed.append(scaled * norm.weight.double() + norm.bias.double())
        heads.append((normed[0] @ normed[1].mT / 4**0.5).softmax(-1) @ value)
    expected = dense(attention.out, torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens.float()).double(), expected, atol=1e-4, rtol=1e-4)
    few = attention.attend(tokens[:, 1:3].float(), tokens.float())
    torch.testing.assert_close(few.double(), expected[:, 1:3], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_pooling_is_a_probe_s_attention_and_an_mlp_beside_it() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(12, 3, mlp_dim=10, activation="gelu_tanh", norm_eps=1e-3)
    for parameter in pool.parameters():
        parameter.normal_(std=0.5)
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    weight, bias = pool.attention.qkv.weight.double(), pool.attention.qkv.bias.double()
    query = pool.probe[0].double() @ weight[:12].T + bias[:12]
    key, value = (tokens @ weight[12:].T + bias[12:]).chunk(2, dim=-1)
    scores = [
        (query[:, part] @ key[..., part].mT / 4**0.5).softmax(-1)
        for part in (slice(0, 4), slice(4, 8), slice(8, 12))
    ]
    mixed = torch.cat([s @ value[..., 4 * i : 4 * i + 4] for i, s in enumerate(scores)], dim=-1)
    pooled = dense(pool.attention.out, mixed)[:, 0]
    centred = pooled - pooled.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    normed = normed * pool.norm.weight.double() + pool.norm.bias.double()
    hidden = dense(pool.mlp.hidden, normed)
    cubic = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
    expected = pooled + dense(pool.mlp.out, hidden / 2 * (1 + torch.tanh(cubic)))
    torch.testing.assert_close(pool(tokens.float()).double(), expected, atol=1e-5, rtol=1e-5)
    weights = pool.attention_weights(tokens.float())
    torch.testing.assert_close(weights.double(), torch.stack(scores, 1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_gated_mlp_multiplies_its_second_half_by_silu_of_its_first() -> None:
    torch.manual_seed(0)
    mlp = MLP(6, 10, activation="swiglu", dropout=0.0)
    assert mlp.hidden.weight.shape == (20, 6)
    tokens = 3 * torch.randn(2, 5, 6)
    gate, value = dense(mlp.hidden, tokens.double()).chunk(2, dim=-1)
    expected = dense(mlp.out, gate / (1 + torch.exp(-gate)) * value)
    torch.testing.assert_close(mlp(tokens).double(), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_layer_scale_multiplies_each_channel_of_each_branch() -> None:
    torch.manual_seed(0)
    block = EncoderBlock(
        6, 2, mlp_dim=10, activation="gelu", dropout=0.0, norm_eps=1e-6, layer_scale=0.3
    )
    block.init_weights()
    assert (block.scale1.scale == 0.3).all()
    block.scale1.scale.normal_()
    block.scale2.scale.normal_()
    tokens = torch.randn(2, 5, 6)
    between = tokens + block.scale1.scale * block.attention(F.layer_norm(tokens, (6,), eps=1e-6))
    expected = between + block.scale2.scale * block.mlp(F.layer_norm(between, (6,), eps=1e-6))
    torch.testing.assert_close(block(tokens), expected)


# Stochastic depth.
def test_each_example_and_branch_has_its_own_factor() -> None:
    scales = torch.tensor([[0.0, 2.0], [1.5, 1.0]])
    branch = torch.ones(2, 3, 4, dtype=torch.bfloat16)
    assert scale_branch(branch, scales, branch=0)[:, 0, 0].tolist() == [0.0, 1.5]
    assert scale_branch(branch, scales, branch=1)[:, 2, 3].tolist() == [2.0, 1.0]
    assert scale_branch(branch, scales, branch=0).dtype == torch.bfloat16
    assert scale_branch(branch, None, branch=0) is branch


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@torch.no_grad()
def test_the_mlp_is_dense_gelu_dense(activation: str) -> None:
    torch.manual_seed(0)
    mlp = MLP(6, 10, activation=activation, dropout=0.0)
    tokens = 3 * torch.randn(2, 5, 6)
    hidden = dense(mlp.hidden, tokens.double())
    cubic = (2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)
    curves = {
        "gelu": hidden / 2 * (1 + torch.from_numpy(erf((hidden / 2**0.5).numpy()))),
        "gelu_tanh": hidden / 2 * (1 + torch.tanh(cubic)),
    }
    expected = dense(mlp.out, curves[activation])
    torch.testing.assert_close(mlp(tokens).double(), expected, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_a_block_adds_attention_and_mlp_of_normed_tokens() -> None:
    torch.manual_seed(0)
    block = EncoderBlock(
        6, 2, mlp_dim=10, activation="gelu_tanh", dropout=0.0, norm_eps=1e-3
    )  # an eps that is felt
    tokens = 0.05 * torch.randn(2, 5, 6)
    between = tokens + block.attention(F.layer_norm(tokens, (6,), eps=1e-3))
    expected = between + block.mlp(F.layer_norm(between, (6,), eps=1e-3))
    torch.testing.assert_close(block(tokens), expected)
    weights = block.attention.weights(F.layer_norm(tokens, (6,), eps=1e-3))
    torch.testing.assert_close(block.attention_weights(tokens), weights)


@torch.no_grad()
def test_a_block_for_the_class_token_alone_gives_that_of_all() -> None:
    torch.manual_seed(0)
    block = EncoderBlock(12, 3, mlp_dim=10, activation="gelu", dropout=0.0, norm_eps=1e-6)
    block.attention.qkv.bias.normal_()
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(
        block(tokens, cls_only=True), block(tokens)[:, :1], atol=1e-6, rtol=1e-5
    )


def test_the_defaults_are_those_of_the_official_code() -> None:
    config = model_config("ViT-B/16")
    assert (config.activation, config.norm_eps, config.dropout) == ("gelu_tanh", 1e-6, 0.0)


def test_every_norm_has_the_epsilon_of_the_config() -> None:
    with torch.device("meta"):
        model = ViT(model_config("ViT-Mi/4", image_size=16, norm_eps=1e-5))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * 9
    with torch.device("meta"):
        more = ViT(model_config("ViT-Mi/4", image_size=16, norm_eps=1e-5, qk_norm=True, pool="map"))
    norms = [module for module in more.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * (9 + 2 * 4 + 1)
