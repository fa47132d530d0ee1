from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.small_models import build_small, small_batch
from torch import Tensor

from vitral.models.axial import AxialBlock
from vitral.models.layers import EncoderBlock

Reference = Callable[[str], dict[str, np.ndarray]]


def axial_block(
    grid: tuple[int, int], *, prefix: int = 0, activation: str = "gelu", **widths: int
) -> AxialBlock:
    width = {"embed_dim": 12, "num_heads": 2, "mlp_dim": 10} | widths

    def build() -> EncoderBlock:
        return EncoderBlock(
            width["embed_dim"], width["num_heads"], mlp_dim=width["mlp_dim"],
            activation=activation, dropout=0.0, norm_eps=1e-6,
        )  # fmt: skip

    torch.manual_seed(0)
    block = AxialBlock(build(), build(), grid=grid, num_prefix_tokens=prefix)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
    return block


def dense(kernel: np.ndarray) -> Tensor:
    return torch.from_numpy(kernel).T


def official_block(arrays: dict[str, np.ndarray], axis: str) -> dict[str, Tensor]:
    """Return the tensors of an encoder block under our names."""
    weights = {key.removeprefix(f"{axis}/"): value for key, value in arrays.items() if axis in key}
    attention = "MultiHeadDotProductAttention_1"
    parts = [weights[f"{attention}/{part}/kernel"] for part in ("query", "key", "value")]
    biases = [weights[f"{attention}/{part}/bias"] for part in ("query", "key", "value")]
    out = weights[f"{attention}/out/kernel"]
    return {
        "attention.qkv.weight": torch.cat([dense(p.reshape(len(p), -1)) for p in parts]),
        "attention.qkv.bias": torch.cat([torch.from_numpy(bias.reshape(-1)) for bias in biases]),
        "attention.out.weight": dense(out.reshape(-1, out.shape[-1])),
        "attention.out.bias": torch.from_numpy(weights[f"{attention}/out/bias"]),
        "norm1.weight": torch.from_numpy(weights["LayerNorm_0/scale"]),
        "norm1.bias": torch.from_numpy(weights["LayerNorm_0/bias"]),
        "norm2.weight": torch.from_numpy(weights["LayerNorm_2/scale"]),
        "norm2.bias": torch.from_numpy(weights["LayerNorm_2/bias"]),
        "mlp.hidden.weight": dense(weights["MlpBlock_3/Dense_0/kernel"]),
        "mlp.hidden.bias": torch.from_numpy(weights["MlpBlock_3/Dense_0/bias"]),
        "mlp.out.weight": dense(weights["MlpBlock_3/Dense_1/kernel"]),
        "mlp.out.bias": torch.from_numpy(weights["MlpBlock_3/Dense_1/bias"]),
    }


@pytest.mark.parametrize(
    ("activation", "output"), [("gelu_tanh", "output"), ("gelu", "output_erf_gelu")]
)
@torch.no_grad()
def test_a_block_of_official_weights_gives_the_reference_s_tokens_and_attention(
    reference: Reference, activation: str, output: str
) -> None:
    arrays, expected = reference("axial_block.weights"), reference("axial_block.io")
    block = axial_block((5, 7), activation=activation, embed_dim=32, num_heads=4, mlp_dim=64)
    block.row.load_state_dict(official_block(arrays, "row"))
    block.column.load_state_dict(official_block(arrays, "column"))
    tokens = torch.from_numpy(expected["tokens"]).flatten(1, 2)
    found = block(tokens).view(2, 5, 7, 32)
    np.testing.assert_allclose(found.numpy(), expected[output], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_are_attended_to_before_columns_as_in_the_reference(reference: Reference) -> None:
    arrays, expected = reference("axial_block.weights"), reference("axial_block.io")
    block = axial_block((5, 7), activation="gelu_tanh", embed_dim=32, num_heads=4, mlp_dim=64)
    block.row.load_state_dict(official_block(arrays, "row"))
    block.column.load_state_dict(official_block(arrays, "column"))
    tokens = torch.from_numpy(expected["tokens"]).flatten(1, 2)
    _, rows, columns = block.with_attention(tokens)
    after_row = block._along(block.row, tokens, None, axis=2).view(2, 5, 7, 32)
    for ours, theirs in (
        (rows, "row_attention"), (columns, "column_attention"), (after_row, "after_row"),
    ):  # fmt: skip
        assert ours.shape == expected[theirs].shape
        np.testing.assert_allclose(ours.numpy(), expected[theirs], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("part", "axis"), [("row", 2), ("column", 1)])
@torch.no_grad()
def test_what_a_line_gives_depends_on_that_line_only(part: str, axis: int) -> None:
    block = axial_block((4, 5))
    tokens = torch.randn(2, 20, 12)
    changed = tokens.view(2, 4, 5, 12).clone()
    changed.select(3 - axis, 2).add_(1.0)
    before, after = (
        block._along(getattr(block, part), given, None, axis=axis).view(2, 4, 5, 12)
        for given in (tokens, changed.flatten(1, 2))
    )
    moved = (before != after).any(-1)
    expected = torch.zeros(2, 4, 5, dtype=torch.bool)
    expected.select(3 - axis, 2).fill_(True)
    assert torch.equal(moved, expected)


@torch.no_grad()
def test_a_block_of_both_lets_every_token_see_every_other() -> None:
    block = axial_block((4, 5))
    tokens = torch.randn(1, 20, 12)
    changed = tokens.clone()
    changed[:, 7] += torch.randn(12)
    assert (block(tokens) != block(changed)).any(-1).all()


@torch.no_grad()
def test_a_block_with_row_and_column_exchanged_turns_with_the_grid() -> None:
    block, transposed = axial_block((4, 5)), axial_block((5, 4))
    tokens = torch.randn(2, 20, 12)
    other = tokens.view(2, 4, 5, 12).transpose(1, 2).flatten(1, 2)
    _, rows, _ = block.with_attention(tokens)
    transposed.column.load_state_dict(block.row.state_dict())
    after = block._along(block.row, tokens, None, axis=2)
    after_transposed = transposed._along(transposed.column, other, None, axis=1)
    torch.testing.assert_close(
        after.view(2, 4, 5, 12), after_transposed.view(2, 5, 4, 12).transpose(1, 2)
    )
    assert rows.shape == (2, 4, 2, 5, 5)


@torch.no_grad()
def test_a_class_token_stands_first_in_each_line_and_goes_on_as_their_mean() -> None:
    block = axial_block((2, 3), prefix=1)
    tokens = torch.randn(2, 7, 12)
    grid = tokens[:, 1:].view(2, 2, 3, 12)
    rows = [block.row(torch.cat([tokens[:, :1], grid[:, y]], dim=1)) for y in range(2)]
    cls = torch.stack([row[:, 0] for row in rows]).mean(0)
    grid = torch.stack([row[:, 1:] for row in rows], dim=1)
    columns = [block.column(torch.cat([cls[:, None], grid[:, :, x]], dim=1)) for x in range(3)]
    cls = torch.stack([column[:, 0] for column in columns]).mean(0)
    grid = torch.stack([column[:, 1:] for column in columns], dim=2)
    expected = torch.cat([cls[:, None], grid.flatten(1, 2)], dim=1)
    torch.testing.assert_close(block(tokens), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["AxialViT gap", "AxialViT token", "AxialViT map"])
@torch.no_grad()
def test_traced_attention_is_that_of_the_block_s_own_inputs(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    names = ["block00", "block01/row_attention", "block01/column_attention"]
    traced = model.trace(images, names)
    _, rows, columns = model.blocks[1].with_attention(traced["block00"])
    assert torch.equal(traced["block01/row_attention"], rows)
    assert torch.equal(traced["block01/column_attention"], columns)
