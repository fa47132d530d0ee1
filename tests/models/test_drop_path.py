"""Stochastic depth: how often, and by which numbers."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import FAMILIES, build_small, small_batch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from vitral.errors import RequestError
from vitral.models.drop_path import GOLDEN_SHARE, DropPathUniforms, stochastic_depth
from vitral.models.model import drop_path_from
from vitral.models.vit import ViT

Build = Callable[..., ViT]


@given(depth=st.integers(1, 30), drop_path=st.floats(0, 0.95), branches=st.sampled_from([2, 4]))
@settings(max_examples=40, deadline=None)
def test_the_share_skipped_grows_linearly_from_none_to_all_of_it(
    depth: int, drop_path: float, branches: int
) -> None:
    steps = 1000
    uniforms = (torch.arange(steps) / steps).view(-1, 1, 1).expand(-1, depth, branches)
    factors = stochastic_depth(uniforms, drop_path=drop_path)
    skipped = (factors == 0).double().mean(0)
    wanted = torch.tensor([drop_path * index / max(depth - 1, 1) for index in range(depth)])
    torch.testing.assert_close(
        skipped, wanted[:, None].expand(-1, branches).double(), atol=1.5 / steps, rtol=0
    )
    assert not skipped[0].any()


def test_what_is_kept_is_enlarged_so_that_the_mean_stays() -> None:
    uniforms = torch.rand(4000, 3, 2, generator=torch.Generator().manual_seed(0))
    factors = stochastic_depth(uniforms, drop_path=0.5)
    torch.testing.assert_close(factors.mean(0), torch.ones(3, 2), atol=0.05, rtol=0)
    assert set(factors[:, 2].unique().tolist()) == {0.0, 2.0}
    assert factors[:, 1].max().item() == pytest.approx(1 / 0.75)
    assert (stochastic_depth(uniforms, drop_path=0.0) == 1).all()


# By which numbers.
def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
@torch.no_grad()
def test_numbers_below_a_block_s_share_skip_its_branches(
    small_model: Build, small_images: Tensor, pool: str
) -> None:
    model = small_model(drop_path=0.5, pool=pool).train()
    given: list[Tensor] = []
    model.blocks[1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model.set_drop_path_uniforms(torch.zeros(2, 6))
    nothing = model.features(small_images)
    # All but the first block, of which none is skipped.
    torch.testing.assert_close(nothing, model.pool(model.norm(given[0])))
    model.set_drop_path_uniforms(torch.full((2, 6), 0.999))
    all_of_it = model.features(small_images)
    model.set_drop_path_uniforms(torch.tensor([0.0, 0.999])[:, None].expand(2, 6))
    features = model.features(small_images)
    torch.testing.assert_close(features[0], nothing[0])
    torch.testing.assert_close(features[1], all_of_it[1])


@torch.no_grad()
def test_each_branch_of_an_axial_block_has_a_number() -> None:
    model = build_small("AxialViT gap", drop_path=0.5).train()
    assert model.num_drop_paths == 8
    images, seen = small_batch(model), set()
    for branch in range(8):
        uniforms = torch.full((2, 8), 0.999)
        uniforms[:, branch] = 0
        model.set_drop_path_uniforms(uniforms)
        seen.add(tuple(model(images).flatten().tolist()))
    assert len(seen) == 1 + 4  # the first block skips nothing


@torch.no_grad()
def test_numbers_are_used_in_training_alone_and_until_they_are_taken_back(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(drop_path=0.9)
    plain = model(small_images)
    assert torch.equal(plain, small_model()(small_images))
    uniforms = draw(2, 6, seed=1)
    model.set_drop_path_uniforms(uniforms)
    for _ in range(3):
        assert torch.equal(model(small_images), plain)
    first = model.train()(small_images)  # evaluation has taken none
    assert not torch.allclose(first, plain)
    model.set_drop_path_uniforms(uniforms)
    assert torch.equal(model(small_images), first)
    model.set_drop_path_uniforms(None)
    torch.manual_seed(0)
    drawn = [model(small_images) for _ in range(4)]
    assert len({tuple(one.flatten().tolist()) for one in drawn}) > 1
    torch.manual_seed(0)
    assert torch.equal(model(small_images), drawn[0])


@torch.no_grad()
def test_views_stacked_in_one_pass_are_skipped_as_view_after_view(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(drop_path=0.6).train()
    views = [small_images, small_images.flip(2), small_images.flip(3)]
    uniforms = draw(2, 3, 6)
    alone = []
    for number, view in enumerate(views):
        model.set_drop_path_uniforms(uniforms[:, number])
        alone.append(model(view))
    model.set_drop_path_uniforms(uniforms)
    one_by_one = [model(view) for view in views]
    assert all(map(torch.equal, one_by_one, alone))
    model.set_drop_path_uniforms(uniforms)
    stacked = torch.cat([model(torch.cat(views[:2])), model(views[2])])
    torch.testing.assert_close(stacked, torch.cat(alone))


@given(
    num_examples=st.integers(1, 4),
    num_views=st.integers(1, 3),
    passes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_slice_k_is_view_k_moved_by_the_golden_ratio_each_time_round(
    num_examples: int, num_views: int, passes: list[int]
) -> None:
    uniforms = draw(num_examples, num_views, 5)
    dealer = DropPathUniforms(uniforms)
    dealt = torch.cat([dealer.next_rows(count * num_examples) for count in passes])
    assert dealt.min() >= 0
    assert dealt.max() < 1
    for number, chunk in enumerate(dealt.split(num_examples)):
        moved = uniforms[:, number % num_views].double() + number // num_views * GOLDEN_SHARE
        off = (chunk.double() - moved).remainder(1)
        assert torch.minimum(off, 1 - off).max() < 1e-6
    assert torch.equal(dealt[:num_examples], uniforms[:, 0])


def test_images_that_are_no_multiple_of_the_examples_are_refused(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(drop_path=0.5).train()
    model.set_drop_path_uniforms(draw(2, 6))
    with pytest.raises(
        RequestError, match=r"of 3 images draws .* from numbers of 2 examples: give"
    ):
        model(small_images[[0, 1, 0]])


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 3, 2), (2, 1, 1, 6), (0, 6), (2, 0, 6)])
def test_numbers_of_another_shape_are_refused(small_model: Build, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        RequestError, match=r"numbers of shape .* for the .*: give \(N, 6\) or \(N, v"
    ):
        small_model(drop_path=0.5).set_drop_path_uniforms(torch.zeros(shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_stochastic_depth_takes_no_numbers(family: str) -> None:
    model = build_small(family)
    assert model.num_drop_paths == 0
    with pytest.raises(RequestError, match="small has no stochastic depth that could use numbers"):
        model.set_drop_path_uniforms(torch.zeros(2, 4))
    model.set_drop_path_uniforms(None)


class Distillation(nn.Module):
    """Two models, of which one is not trained, and the mean over two passes."""

    def __init__(self, student: ViT) -> None:
        super().__init__()
        self.student, self.teacher = student, copy.deepcopy(student).eval()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.student(images), self.student(images), self.teacher(images)])


@torch.no_grad()
def test_models_inside_a_module_draw_from_numbers_for_as_long_as_asked(
    small_model: Build, small_images: Tensor
) -> None:
    student = small_model(drop_path=0.5).train()
    objective = Distillation(student)
    uniforms = draw(2, 6)
    with drop_path_from(objective, uniforms):
        first, second, taught = objective(small_images).chunk(3)
    assert torch.equal(taught, objective.teacher(small_images))
    assert not torch.equal(first, second)
    student.set_drop_path_uniforms(uniforms)
    assert torch.equal(first, student(small_images))
    assert torch.equal(second, student(small_images))
    with drop_path_from(objective, uniforms), pytest.raises(RuntimeError):
        raise RuntimeError
    student(small_images[:1])  # torch's generator draws again
    with drop_path_from(objective, None), drop_path_from(small_model(), uniforms):
        student(small_images[:1])


@pytest.mark.usefixtures("without_shape_checks")
@torch.no_grad()
def test_compiled_code_draws_from_the_numbers_of_each_step(
    small_model: Build, small_images: Tensor
) -> None:
    model = small_model(drop_path=0.5).train()
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(lambda images: model(images) + model(images.flip(3)), backend=counter)
    for seed in range(4):
        with drop_path_from(model, draw(2, 6, seed=seed)):
            wanted = model(small_images) + model(small_images.flip(3))
        with drop_path_from(model, draw(2, 6, seed=seed)):
            torch.testing.assert_close(compiled(small_images), wanted)
    assert counter.frame_count == 1
