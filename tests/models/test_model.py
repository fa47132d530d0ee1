"""What every family of models does, each once at a small size."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.small_models import FAMILIES, build_small, small_batch
from torch import Tensor, nn

from vitral.errors import ModelFileError, RequestError
from vitral.models.build import create_model
from vitral.models.model import Model, check_classifier

VIT_BLOCKS = {
    "block00/attention": (2, 2, 13, 13), "block00": (2, 13, 16),
    "block01/attention": (2, 2, 13, 13), "block01": (2, 13, 16), "tokens": (2, 13, 16),
}  # fmt: skip
END = {"features": (2, 16), "logits": (2, 5)}
RESNET_MAPS = {
    "root": (2, 32, 6, 8), "stage1/unit01": (2, 128, 6, 8), "stage2/unit01": (2, 256, 3, 4),
    "stage2/unit02": (2, 256, 3, 4),
}  # fmt: skip


def vit_shapes(prefix: int, *pool: str) -> dict[str, tuple[int, ...]]:
    length = prefix + 12
    block = {"attention": (2, 2, length, length), "": (2, length, 16)}
    blocks = {
        f"block{index:02}/{part}".rstrip("/"): shape
        for index in (0, 1)
        for part, shape in block.items()
    }
    probe = dict.fromkeys(pool, (2, 2, 1, length))
    return {"embedding": (2, 12, 16)} | blocks | {"tokens": (2, length, 16)} | probe | END


def axial_shapes(prefix: int, *pool: str) -> dict[str, tuple[int, ...]]:
    rows, columns = 3 + prefix, 4 + prefix
    block = {
        "row_attention": (2, 3, 2, columns, columns), "column_attention": (2, 4, 2, rows, rows),
        "": (2, prefix + 12, 16),
    }  # fmt: skip
    blocks = {
        f"block{index:02}/{part}".rstrip("/"): shape
        for index in (0, 1)
        for part, shape in block.items()
    }
    tokens = {"tokens": (2, prefix + 12, 16)}
    probe = dict.fromkeys(pool, (2, 2, 1, prefix + 12))
    return {"embedding": (2, 12, 16)} | blocks | tokens | probe | END


AXIAL_RESNET = {
    "root": (2, 8, 6, 8),
    "stage1/unit01/column_attention": (2, 8, 2, 6, 6),
    "stage1/unit01/row_attention": (2, 6, 2, 8, 8),
    "stage1/unit01": (2, 32, 6, 8),
    "stage2/unit01/column_attention": (2, 8, 2, 6, 6),
    "stage2/unit01/row_attention": (2, 6, 2, 8, 8),
    "stage2/unit01": (2, 64, 3, 4),
    "stage2/unit02/column_attention": (2, 4, 2, 3, 3),
    "stage2/unit02/row_attention": (2, 3, 2, 4, 4),
    "stage2/unit02": (2, 64, 3, 4),
    "features": (2, 64),
    "logits": (2, 5),
}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "ViT": vit_shapes(1),
    "ViT map": vit_shapes(0, "pool/attention"),
    "hybrid": RESNET_MAPS
    | {"embedding": (2, 6, 16)}
    | {name: tuple(7 if side == 13 else side for side in s) for name, s in VIT_BLOCKS.items()}
    | END,
    "BiT": RESNET_MAPS | {"features": (2, 256), "logits": (2, 5)},
    "ResNet v1": RESNET_MAPS | {"features": (2, 256), "logits": (2, 5)},
    "AxialViT gap": axial_shapes(0),
    "AxialViT token": axial_shapes(1),
    "AxialViT map": axial_shapes(0, "pool/attention"),
    "AxialResNet": AXIAL_RESNET,
}
each_family = pytest.mark.parametrize("family", FAMILIES)


@each_family
@torch.no_grad()
def test_everything_that_can_be_traced_has_its_shape(family: str) -> None:
    model = build_small(family)
    assert model.trace_names == tuple(SHAPES[family])
    traced = model.trace(small_batch(model), model.trace_names)
    assert {name: tuple(value.shape) for name, value in traced.items()} == SHAPES[family]


@each_family
@torch.no_grad()
def test_traced_attention_sums_to_one_over_what_is_looked_at(family: str) -> None:
    model = build_small(family)
    names = [name for name in model.trace_names if name.endswith("attention")]
    for attention in model.trace(small_batch(model), names).values():
        assert attention.min() >= 0
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


@each_family
@torch.no_grad()
def test_the_trace_agrees_with_the_methods(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    traced = model.trace(images, model.trace_names)
    features = model.features(images)
    torch.testing.assert_close(traced["features"], features, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(traced["logits"], model(images), atol=1e-6, rtol=1e-5)
    assert torch.equal(model(images), model.classify(features))


@each_family
@torch.no_grad()
def test_a_name_traced_alone_equals_the_one_traced_with_all(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    together = model.trace(images, reversed(model.trace_names))
    for name in model.trace_names:
        alone = model.trace(images, [name, name])
        assert list(alone) == [name]
        assert torch.equal(alone[name], together[name])


@each_family
def test_a_trace_ends_at_the_last_name_that_is_asked_for(family: str) -> None:
    model = build_small(family)
    called: list[nn.Module] = []
    for module in model.modules():
        module.register_forward_hook(lambda module, *_: called.append(module))
    names = [name for name in model.trace_names if name not in ("features", "logits")]
    work = []
    for name in names:
        called.clear()
        model.trace(small_batch(model), [name])
        work.append(len(called))
        assert getattr(model, "head", None) not in called
    plain = [
        (name, count)
        for name, count in zip(names, work, strict=True)
        if "attention" not in name and name != "tokens"
    ]
    assert [count for _, count in plain] == sorted({count for _, count in plain})


@each_family
def test_tracing_nothing_finds_nothing(family: str) -> None:
    model = build_small(family)
    assert model.trace(small_batch(model), []) == {}


@pytest.mark.parametrize(
    ("family", "name", "nearest"),
    [
        ("ViT", "block1/attention", "block01/attention"),
        ("ViT map", "attention", "pool/attention"),
        ("hybrid", "stage1/unit1", "stage1/unit01"),
        ("BiT", "roots", "root"),
        ("AxialViT gap", "block00/rows_attention", "block00/row_attention"),
        ("AxialResNet", "stage1/unit01/columns", "stage1/unit01/column_attention"),
        ("AxialResNet", "logit", "logits"),
    ],
)
def test_an_unknown_trace_name_suggests_the_nearest(family: str, name: str, nearest: str) -> None:
    model = build_small(family)
    with pytest.raises(
        RequestError, match=f"nothing called '{name}' to trace: did you mean '{nearest}'"
    ):
        model.trace(small_batch(model), [name])


@each_family
@torch.no_grad()
def test_a_model_without_a_head_returns_its_features(family: str) -> None:
    model = build_small(family, num_classes=0)
    images = small_batch(model)
    assert model(images).shape == (2, model.config.feature_dim)
    assert torch.equal(model(images), model.features(images))
    assert torch.equal(*model.trace(images, ["features", "logits"]).values())


@each_family
def test_every_parameter_gets_a_gradient(family: str) -> None:
    model = build_small(family)
    model(small_batch(model)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    dead = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert dead == []


SIZES = [(8, 8), (9, 40), (45, 33)]


@each_family
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_any_resolution_that_holds_a_patch_works(family: str, size: tuple[int, int]) -> None:
    fields: dict[str, Any] = {"patch_size": 1} if family == "hybrid" else {}
    model = build_small(family, image_size=size, **fields)
    images = small_batch(model)
    assert model(images).shape == (2, 5)
    assert model(images).isfinite().all()
    torch.testing.assert_close(model(images[1:]), model(images)[1:], atol=1e-5, rtol=1e-4)


@each_family
@pytest.mark.parametrize("channels", [1, 5])
@torch.no_grad()
def test_any_number_of_channels_works_and_each_counts(family: str, channels: int) -> None:
    model = build_small(family, in_channels=channels)
    images = small_batch(model)
    logits = model(images)
    for channel in range(channels):
        other = images.clone()
        other[:, channel] = other[:, channel].flip(2)
        assert (model(other) - logits).abs().max() > 1e-4


@each_family
@pytest.mark.parametrize(
    ("shape", "way_out"),
    [
        ((1, 3, 32, 24), r"resize them, or load the model with image_size=\(32, 24\)"),
        ((1, 1, 24, 32), "load the model with in_channels=1"),
        ((1, 24, 32, 3), r"bring the channels first, images\.permute\(0, 3, 1, 2\)"),
    ],
)
def test_images_of_another_size_are_refused_with_both_sizes(
    family: str, shape: tuple[int, ...], way_out: str
) -> None:
    model = build_small(family)
    sides = ", ".join(map(str, shape))
    message = rf"images of shape \({sides}\) do not fit a model for \(N, 3, 24, 32\): {way_out}"
    with pytest.raises(RequestError, match=message):
        model(torch.rand(shape))
    with pytest.raises(RequestError, match=message):
        model.trace(torch.rand(shape), ["logits"])


def test_an_image_without_a_batch_is_told() -> None:
    with pytest.raises(RequestError, match=r"give a batch \(N, channels, height, width\)"):
        build_small().check_images(torch.rand(3, 24, 32))


def test_one_name_may_be_traced_without_a_list() -> None:
    model = build_small()
    images = small_batch(model)
    torch.testing.assert_close(model.trace(images, "logits")["logits"], model(images))


@each_family
def test_tracing_changes_neither_results_nor_state_in_training(family: str) -> None:
    """Asking for attention too draws no other chance and counts no statistics twice."""
    results, states = [], []
    for everything in (False, True):
        model = build_small(family, **FIELDS_WITH_CHANCE[family]).train()
        torch.manual_seed(3)
        names = model.trace_names if everything else ["logits"]
        results.append(model.trace(small_batch(model, count=4), names)["logits"])
        states.append(model.state_dict())
    assert torch.equal(*results)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pixels_that_no_patch_covers_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        create_model("ViT-Mi/14", image_size=(59, 41), num_classes=2)
    assert caplog.text.count("patches of 14 x 14 do not tile images of 59 x 41") == 1
    assert "56 x 28 and 70 x 42 tile" in caplog.text


@each_family
@torch.no_grad()
def test_bfloat16_autocast_gives_nearly_the_same_logits(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    scale = model(images).abs().max()
    torch.testing.assert_close(logits.float(), model(images), atol=0.1 * scale.item(), rtol=0)


# Exported and compiled, with one block or unit: more are more of the same.
@torch.no_grad()
def build_shallow(family: str) -> Model:
    fields = FAMILIES[family]
    one: dict[str, Any] = {"depth": 1} if "depth" in fields else {"stages": (1,)}
    stem = {"resnet": fields["resnet"] | {"stages": (1,)}} if "resnet" in fields else {}
    return build_small(family, **one, **stem)


# Those that differ from another only in what is read of the tokens take long for what they tell.
LIKE_OTHERS = ("ViT map", "ResNet v1", "AxialViT gap", "AxialViT map")
each_family_in_time = pytest.mark.parametrize(
    "family",
    [
        *(family for family in FAMILIES if family not in LIKE_OTHERS),
        *(pytest.param(family, marks=pytest.mark.slow) for family in LIKE_OTHERS),
    ],
)


@each_family_in_time
@pytest.mark.usefixtures("without_shape_checks")
@torch.no_grad()
def test_an_exported_model_takes_any_batch(family: str) -> None:
    model = build_shallow(family)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (small_batch(model),), dynamic_shapes=({0: batch},))
    more = small_batch(model, count=3)
    torch.testing.assert_close(exported.module()(more), model(more), atol=1e-5, rtol=1e-5)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@each_family_in_time
@pytest.mark.usefixtures("without_shape_checks", "fresh_compiler")
def test_a_compiled_model_is_one_graph(family: str) -> None:
    model = build_shallow(family)
    images = small_batch(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    logits = compiled(images)
    torch.testing.assert_close(logits, model(images), atol=1e-5, rtol=1e-5)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hybrid", "AxialViT token", "AxialResNet"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.usefixtures("without_shape_checks", "fresh_compiler")
@torch.no_grad()
def test_the_default_compiler_gives_the_same_logits(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images), atol=1e-5, rtol=1e-5)


# Memory for time.
FIELDS_WITH_CHANCE: dict[str, dict[str, Any]] = {
    family: {"dropout": 0.2, "drop_path": 0.3} if "ViT" in family or family == "hybrid" else {}
    for family in FAMILIES
}


def one_step(family: str, *, again: bool) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Return loss, gradients and buffers of a step in training mode."""
    model = build_small(family, **FIELDS_WITH_CHANCE[family]).train()
    model.gradient_checkpointing = again
    torch.manual_seed(3)
    loss = model(small_batch(model, count=4)).square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, dict(model.named_buffers())


@each_family
def test_gradient_checkpointing_changes_neither_loss_nor_gradients_nor_statistics(
    family: str,
) -> None:
    loss, gradients, buffers = one_step(family, again=False)
    loss_again, gradients_again, buffers_again = one_step(family, again=True)
    assert loss_again == pytest.approx(loss, rel=1e-6)
    assert gradients_again.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_again[name], gradient, atol=1e-5, rtol=1e-4)
    for name, buffer in buffers.items():
        torch.testing.assert_close(buffers_again[name], buffer)


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("ViT", "blocks.0 blocks.1"),
        ("hybrid", "stages.0.0 stages.1.0 stages.1.1 blocks.0 blocks.1"),
        ("BiT", "stages.0.0 stages.1.0 stages.1.1"),
        ("AxialViT gap", "blocks.0 blocks.1"),
        ("AxialResNet", "stages.0.0 stages.1.0 stages.1.1"),
    ],
)
def test_gradient_checkpointing_computes_each_block_and_unit_again_by_itself(
    family: str, blocks: str
) -> None:
    model = build_small(family).train()
    model.gradient_checkpointing = True
    called: list[str] = []
    for name, module in model.named_modules():
        if re.search(r"(blocks\.\d+|stages\.\d+\.\d+)$", name):
            first = next(m for m in module.modules() if not list(m.children()))
            first.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    features = model.features(small_batch(model))
    forward = len(called)
    features.sum().backward()
    again = [re.sub(r".*(stages|blocks)", r"\1", name) for name in called[forward:]]
    assert again == blocks.split()[::-1]


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler", "without_shape_checks")
@each_family
def test_compiled_checkpointing_gives_the_same_gradients_and_statistics(family: str) -> None:
    results = []
    for is_compiled in (False, True):
        model = build_small(family).train()
        model.gradient_checkpointing = is_compiled
        run = torch.compile(model, backend="aot_eager") if is_compiled else model
        run(small_batch(model, count=4)).square().sum().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append(gradients | dict(model.named_buffers()))
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, atol=1e-4, rtol=1e-3, msg=name)


def test_statistics_of_several_devices_are_not_counted_twice_either() -> None:
    """SyncBatchNorm takes the place of BatchNorm there; by itself it works as that one."""
    counts = []
    for again in (False, True):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(build_small("AxialResNet")).train()
        model.gradient_checkpointing = again
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.forward = functools.partial(plain_batch_norm, module)
        model(small_batch(model, count=4)).square().sum().backward()
        counts.append(dict(model.named_buffers()))
    for name, buffer in counts[0].items():
        torch.testing.assert_close(counts[1][name], buffer, msg=name)


def plain_batch_norm(norm: nn.SyncBatchNorm, values: Tensor) -> Tensor:
    """Do what BatchNorm does with the norm's tensors: SyncBatchNorm itself wants a GPU."""
    return nn.modules.batchnorm._BatchNorm.forward(norm, values)


def inner_module(model: Model) -> nn.Module:
    """Return a module that every block, or the last unit, calls."""
    names = ("mlp", "conv1", "conv2")
    return [m for name, m in model.named_modules() if name.rpartition(".")[2] in names][-1]


@each_family
@pytest.mark.parametrize(("again", "training", "calls"), [(0, 1, 1), (1, 1, 2), (1, 0, 1)])
def test_gradient_checkpointing_computes_again_in_training_only(
    family: str, again: int, training: int, calls: int
) -> None:
    model = build_small(family).train(bool(training))
    model.gradient_checkpointing = bool(again)
    called: list[nn.Module] = []
    inside = model.blocks[-1] if hasattr(model, "blocks") else model
    inner_module(inside).register_forward_pre_hook(lambda module, *_: called.append(module))
    model(small_batch(model)).sum().backward()
    assert len(called) == calls


# What tells a classifier from a trunk.
def test_a_head_of_zeros_is_no_classifier(caplog: pytest.LogCaptureFixture) -> None:
    model = build_small()
    assert model.is_classifier
    check_classifier(model, "m")
    assert not caplog.text
    nn.init.zeros_(model.head.weight)
    assert not model.is_classifier
    check_classifier(model, "m")
    assert "m is no classifier: its head of 5 classes is all zeros, a place to" in caplog.text


def test_no_head_is_no_classifier() -> None:
    model = build_small(num_classes=0)
    assert not model.is_classifier
    with pytest.raises(ModelFileError, match="m has no head, so it names no classes: train or"):
        check_classifier(model, "m")


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_head_of_no_classes_is_the_identity_and_has_no_tensors(family: str) -> None:
    model = build_small(family, num_classes=0)
    assert type(model.head) is nn.Identity
    assert not [name for name in model.state_dict() if name.startswith("head")]
    images = small_batch(model)
    features = model.features(images)
    assert torch.equal(model(images), features)
    assert torch.equal(model.classify(features), features)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_whatever_module_is_the_head_classifies(family: str) -> None:
    model = build_small(family)
    images = small_batch(model)
    model.head = nn.Sequential(model.head, nn.Tanh())
    torch.testing.assert_close(model(images), model.head[0](model.features(images)).tanh())


def test_a_model_without_reference_images_can_t_be_verified() -> None:
    with pytest.raises(RequestError, match="this model has no reference images: load it, unchan"):
        build_small().verify()
