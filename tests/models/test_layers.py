import pytest
import torch
import torch.nn.functional as F
from scipy.special import erf

from vitral.models.layers import MLP, Attention, EncoderBlock
from vitral.models.vit import ViT
from vitral.spec.names import model_config


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
        place = slice(4 * head, 4 * head + 4)
        scores = query[..., place] @ key[..., place].mT / 4**0.5
        heads.append(scores.softmax(-1) @ value[..., place])
    expected = dense(attention.out, torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(tokens).double(), expected, atol=1e-6, rtol=1e-5)


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
def test_a_block_for_the_first_token_alone_gives_that_of_all() -> None:
    torch.manual_seed(0)
    block = EncoderBlock(12, 3, mlp_dim=10, activation="gelu", dropout=0.0, norm_eps=1e-6)
    block.attention.qkv.bias.normal_()
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(
        block.first_token(tokens), block(tokens)[:, :1], atol=1e-6, rtol=1e-5
    )


def test_the_defaults_are_those_of_the_official_code() -> None:
    config = model_config("ViT-B/16")
    assert (config.activation, config.norm_eps, config.dropout) == ("gelu_tanh", 1e-6, 0.0)


def test_every_norm_has_the_epsilon_of_the_config() -> None:
    with torch.device("meta"):
        model = ViT(model_config("ViT-Mi/4", image_size=16, norm_eps=1e-5))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * 9
