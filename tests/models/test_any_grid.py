"""Images of any size, and any subset of their patches, through the weights of one size."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import FAMILIES, build_small, small_batch
from torch import Tensor

from vitral.config.vit import RESIZES
from vitral.errors import RequestError
from vitral.models.position import RelativePosition
from vitral.models.vit import ViT
from vitral.models.weights.load import change_model

Build = Callable[..., ViT]
POSITIONS: list[dict[str, Any]] = [
    {"position": "none"},
    *({"position": p} for p in ("1d", "2d", "sincos2d", "relative")),
    *({"position": p, "position_at": "every"} for p in ("1d", "2d", "sincos2d")),
    *({"position": p, "position_at": "shared"} for p in ("1d", "2d", "sincos2d", "relative")),
    {"position": "relative", "relative_per_head": True},
]
POOLS: dict[str, dict[str, Any]] = {
    "token": {}, "gap": {}, "map": {}, "token+gap": {}, "token+register": {"num_registers": 2},
    "gap and class token": {"pool": "gap", "class_token": True, "num_registers": 1},
    "token, normed after": {"pool": "token", "norm_pooled": True},
}  # fmt: skip
OWN = (24, 32)
SIZES = [(24, 32), (8, 8), (40, 24), (61, 39), (16, 96)]


def images_of(size: tuple[int, int], *, count: int = 2, seed: int = 3) -> Tensor:
    return torch.rand((count, 3, *size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_as_loaded(model: ViT, size: tuple[int, int]) -> None:
    """Compare a call at another size with the same weights loaded at that size."""
    loaded, images = change_model(model, image_size=size), images_of(size)
    assert isinstance(loaded, ViT)
    for call, wanted in (
        (model(images, any_size=True), loaded(images)),
        (model.features(images, any_size=True), loaded.features(images)),
        (model.tokens(images, any_size=True), loaded.tokens(images)),
        (model.embed(images, any_size=True), loaded.embed(images)),
    ):
        torch.testing.assert_close(call, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@torch.no_grad()
def test_another_size_gives_what_the_weights_give_that_are_loaded_at_it(
    small_model: Build, positions: dict[str, Any], pool: str
) -> None:
    model = small_model(**{"pool": pool} | POOLS[pool] | positions)
    for size in ((40, 24), (61, 39)):
        assert_as_loaded(model, size)


@pytest.mark.parametrize("method", RESIZES)
@pytest.mark.parametrize("at", ["stem", "every"])
@torch.no_grad()
def test_positions_are_resized_as_the_config_says(small_model: Build, method: str, at: str) -> None:
    model = small_model(position_resize=method, position_at=at, num_registers=1)
    for size in SIZES:
        assert_as_loaded(model, size)


@torch.no_grad()
def test_a_hybrid_takes_any_size() -> None:
    model = build_small("hybrid")
    assert isinstance(model, ViT)
    for size in ((24, 32), (41, 50), (16, 64)):
        assert_as_loaded(model, size)
    with pytest.raises(RequestError, match="images of 16 x 8 are smaller than a patch of small"):
        model(images_of((16, 8)), any_size=True)


@pytest.mark.parametrize("family", ["BiT", "ResNet v1"])
@torch.no_grad()
def test_a_convolutional_network_takes_any_size(family: str) -> None:
    model = build_small(family)
    for size in ((24, 32), (7, 5), (40, 33), (1, 1)):
        loaded, images = change_model(model, image_size=size), images_of(size)
        assert torch.equal(model(images, any_size=True), loaded(images))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_model_s_own_size_is_not_another(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    assert torch.equal(model(images, any_size=True), model(images))


@pytest.mark.parametrize("family", FAMILIES)
def test_another_size_is_an_error_unless_it_is_asked_for(family: str) -> None:
    with pytest.raises(RequestError, match=r"do not fit a model for .*: resize them, or load the"):
        build_small(family)(images_of((40, 40)))


@pytest.mark.parametrize("family", ["AxialViT gap", "AxialViT token", "AxialResNet"])
def test_what_attends_along_lines_takes_its_own_size_alone(family: str) -> None:
    model = build_small(family)
    with pytest.raises(RequestError, match=r"for .*40 x 48,? load it with image_size=\(40, 48\)"):
        model(images_of((40, 48)), any_size=True)


@pytest.mark.usefixtures("without_shape_checks")
def test_images_that_fit_at_no_size_are_refused(small_model: Build) -> None:
    model = small_model()
    with pytest.raises(RequestError, match="images of 7 x 32 are smaller than a patch of small: g"):
        model(images_of((7, 32)), any_size=True)
    with pytest.raises(RequestError, match="give a batch"):
        model(images_of((40, 40))[0], any_size=True)
    with pytest.raises(RequestError, match="load the model with in_channels=1"):
        model(images_of((40, 40))[:, :1], any_size=True)
    with pytest.raises(RequestError, match="bring the channels first"):
        model(images_of((40, 40)).permute(0, 2, 3, 1), any_size=True)
    with pytest.raises(RequestError, match="images of 0 x 5 pixels are empty: give larger ones"):
        build_small("BiT")(torch.zeros(1, 3, 0, 5), any_size=True)


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_gradients_reach_the_positions_through_their_resizing(
    small_model: Build, positions: dict[str, Any]
) -> None:
    model = small_model(pool="gap", **positions)
    model(images_of((40, 24)), any_size=True).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("positions", [{}, {"position": "relative"}], ids=str)
def test_several_sizes_in_turn_train_one_set_of_weights(
    small_model: Build, positions: dict[str, Any], checkpointing: bool
) -> None:
    model = small_model(**positions).train()
    model.gradient_checkpointing = checkpointing
    table = next(
        parameter for name, parameter in model.named_parameters() if name.startswith("positions.")
    )
    alone = []
    for size in SIZES[:3]:
        loss = model(images_of(size), any_size=True).square().sum()
        alone.append(torch.autograd.grad(loss, table)[0])
    losses = [model(images_of(size), any_size=True).square().sum() for size in SIZES[:3]]
    together = torch.autograd.grad(sum(losses), table)[0]
    torch.testing.assert_close(together, sum(alone), atol=1e-5, rtol=1e-4)


# A subset of the patches.
@pytest.mark.parametrize("pool", ["token", "gap", "map", "token+register"])
@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@torch.no_grad()
def test_all_patches_in_order_are_what_is_encoded_without_a_choice(
    small_model: Build, positions: dict[str, Any], pool: str
) -> None:
    model = small_model(**{"pool": pool} | POOLS[pool] | positions)
    patches = model.embed(images_of(OWN))
    everything = torch.arange(12).expand(2, -1)
    torch.testing.assert_close(
        model.encode(patches, visible=everything), model.encode(patches), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@torch.no_grad()
def test_patches_in_another_order_come_out_in_that_order(
    small_model: Build, positions: dict[str, Any]
) -> None:
    model = small_model(num_registers=1, **positions)
    patches = model.embed(images_of(OWN))
    order = torch.stack(
        [torch.randperm(12, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    )
    plain, shuffled = model.encode(patches), model.encode(patches, visible=order)
    torch.testing.assert_close(shuffled[:, :2], plain[:, :2], atol=1e-5, rtol=1e-5)
    for row in range(2):
        torch.testing.assert_close(
            shuffled[row, 2:], plain[row, 2:][order[row]], atol=1e-5, rtol=1e-5
        )


def encode_masked(model: ViT, patches: Tensor, visible: Tensor) -> Tensor:
    """Encode all patches, no token attending to a patch that is not visible."""
    prefix, config = model.num_prefix_tokens, model.config
    length = prefix + config.num_patches
    hidden = torch.full((len(patches), 1, 1, length), -math.inf)
    hidden[..., :prefix] = 0
    hidden.view(len(patches), length).scatter_(1, visible + prefix, 0.0)
    before = [token.expand(len(patches), -1, -1) for token in (model.cls_token, model.registers)]
    tokens = torch.cat([*before, patches], dim=1)
    for index, block in enumerate(model.blocks):
        position = model.positions[index if config.position_at == "every" else 0]
        is_relative = isinstance(position, RelativePosition)
        if not is_relative and (index == 0 or config.position_at != "stem"):
            tokens = position(tokens)
        normed = block.norm1(tokens)
        query, key, value = (
            part.unflatten(2, (config.num_heads, -1)).transpose(1, 2)
            for part in block.attention.qkv(normed).chunk(3, dim=2)
        )
        scores = query @ key.mT / math.sqrt(query.shape[-1]) + hidden
        scores = scores + position(query) if is_relative else scores
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        tokens = tokens + block.attention.out(mixed)
        tokens = tokens + block.mlp(block.norm2(tokens))
    return model.norm(tokens)


@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 12), positions=st.sampled_from(POSITIONS[1:])
)
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_a_subset_is_encoded_as_if_the_others_were_never_attended_to(
    seed: int, count: int, positions: dict[str, Any]
) -> None:
    model = build_small("ViT", num_registers=1, seed=seed % 7, **positions)
    assert isinstance(model, ViT)
    generator = torch.Generator().manual_seed(seed)
    visible = torch.stack([torch.randperm(12, generator=generator)[:count] for _ in range(3)])
    patches = torch.randn((3, 12, 16), generator=generator)
    found = model.encode(patches, visible=visible)
    assert found.shape == (3, 2 + count, 16)
    every = encode_masked(model, patches, visible)
    indices = torch.cat([torch.tensor([0, 1]).expand(3, -1), visible + 2], dim=1)
    wanted = every.gather(1, indices.unsqueeze(2).expand(-1, -1, 16))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", POOLS)
@torch.no_grad()
def test_the_pool_reads_what_is_left_of_the_patches(small_model: Build, pool: str) -> None:
    model = small_model(**{"pool": pool} | POOLS[pool])
    visible = torch.tensor([[3, 0, 7], [11, 5, 2]])
    features = model.pool(model.encode(model.embed(images_of(OWN)), visible=visible))
    assert features.shape == (2, model.config.feature_dim)
    assert torch.isfinite(features).all()


@torch.no_grad()
def test_a_subset_of_another_grid_has_the_positions_of_that_grid(small_model: Build) -> None:
    for positions in POSITIONS:
        model = small_model(**positions)
        loaded = change_model(model, image_size=(40, 48))
        patches = model.embed(images_of((40, 48)), any_size=True)
        assert model.config.grid_at((40, 48)) == (5, 6)
        visible = torch.tensor([[29, 1, 8], [4, 17, 3]])
        torch.testing.assert_close(
            model.encode(patches, grid=(5, 6), visible=visible),
            loaded.encode(patches, visible=visible),
            atol=1e-6,
            rtol=1e-6,
        )


def test_a_mask_token_in_place_of_patches_learns(small_model: Build) -> None:
    model = small_model()
    mask_token = torch.zeros(1, 1, 16, requires_grad=True)
    hidden = torch.rand(2, 12, 1, generator=torch.Generator().manual_seed(0)) < 0.5
    patches = torch.where(hidden, mask_token, model.embed(images_of(OWN)))
    model.pool(model.encode(patches)).square().sum().backward()
    assert mask_token.grad.any()


@pytest.mark.parametrize("at", ["stem", "every", "shared"])
@torch.no_grad()
def test_positions_are_added_where_the_config_says(small_model: Build, at: str) -> None:
    model = small_model(position_at=at)
    tokens = torch.randn(2, 13, 16)
    for block in range(3):
        table = model.positions[block if at == "every" else 0].table
        added = table if at != "stem" or block == 0 else 0
        assert torch.equal(model.add_positions(tokens, block=block), tokens + added)
    visible = torch.tensor([[3, 0], [11, 5]])
    table = model.positions[0].table[0]
    wanted = tokens[:, :3] + torch.stack([table[[0, 4, 1]], table[[0, 12, 6]]])
    assert torch.equal(model.add_positions(tokens[:, :3], visible=visible), wanted)
    relative = small_model(position="relative")
    assert torch.equal(relative.add_positions(tokens), tokens)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"grid": (3, 5)}, "12 patches do not fit a grid of 3 x 5: give all of the grid's"),
        ({"visible": torch.zeros(2, 3)}, r"visible of shape \(2, 3\) and torch.float32 for 2 ex"),
        ({"visible": torch.zeros(3, 3, dtype=torch.int64)}, r"visible of shape \(3, 3\) and "),
        ({"visible": torch.zeros(3, dtype=torch.int64)}, r"visible of shape \(3,\) and torch.int"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_patches_that_do_not_fit_are_refused(
    small_model: Build, chosen: dict[str, Any], message: str
) -> None:
    model = small_model()
    with pytest.raises(RequestError, match=message):
        model.encode(model.embed(images_of(OWN)), **chosen)


@pytest.mark.parametrize("family", ["AxialViT gap", "AxialViT token"])
def test_axial_blocks_need_all_patches(family: str) -> None:
    model = build_small(family)
    assert isinstance(model, ViT)
    patches = model.embed(images_of(OWN))
    for chosen in ({"visible": torch.zeros(2, 3, dtype=torch.int64)}, {"grid": (4, 3)}):
        with pytest.raises(RequestError, match="along the lines of its own grid and needs all of"):
            model.encode(patches, **chosen)
