"""Everything about a model and some images, as arrays."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import photograph
from support.small_models import FAMILIES, build_small

from vitral.data.device_transforms import prepare_on_device
from vitral.data.examples import Examples
from vitral.data.loader import evaluation_batches
from vitral.data.sources.arrays import ArrayStore
from vitral.errors import DataError, ModelFileError, RequestError
from vitral.inspection import (
    attention_maps,
    attention_rollout,
    feature_colors,
    occlusion_sensitivity,
    patch_similarity,
    pooled_rollout,
)
from vitral.inspection.attention_distance import attention_reach
from vitral.inspection.inspect import (
    Arrays,
    InspectSettings,
    class_number,
    inspect_model,
)
from vitral.models.model import Model
from vitral.models.vit import ViT
from vitral.predict.runner import image_examples

CPU = torch.device("cpu")
SIDES = {"image_size": (32, 48)}


def photographs(count: int = 3) -> Examples:
    pixels = np.stack([np.roll(photograph(40, 60), 7 * n, axis=1) for n in range(count)])
    return Examples(ArrayStore(pixels, path="photos"), np.arange(count), np.zeros(count, np.int64))


def inspected(model: Model, *, count: int = 3, settings: InspectSettings | None = None) -> Arrays:
    return inspect_model(
        model, photographs(count), preprocessing=model.preprocessing, device=CPU, settings=settings
    )


def prepared(model: Model, count: int = 3) -> torch.Tensor:
    (loaded,) = evaluation_batches(
        photographs(count), preprocessing=model.preprocessing, batch_size=count, errors={}
    )
    return prepare_on_device(loaded, device=CPU, preprocessing=model.preprocessing)["image"]


@pytest.mark.parametrize("family", ["ViT", "ViT map", "hybrid", "AxialViT token"])
def test_what_is_written_is_what_the_measurements_give(family: str) -> None:
    model = build_small(family, **SIDES)
    assert isinstance(model, ViT)
    found, images = inspected(model), prepared(model)
    grid, prefix = model.config.grid, model.num_prefix_tokens
    tokens = model.tokens(images).detach()[:, prefix:]
    np.testing.assert_allclose(
        found["features/colors"], feature_colors(tokens, grid=grid), atol=1e-3
    )
    alike = patch_similarity(tokens, grid=grid)
    np.testing.assert_allclose(found["features/similarity"], alike, atol=1e-3)
    shares = model(images).detach().softmax(dim=1)
    best = shares.topk(5, dim=1)
    np.testing.assert_allclose(found["images/top_probabilities"], best.values, rtol=1e-4)
    assert found["images/top_classes"].tolist() == best.indices.numpy().astype(str).tolist()
    falls = occlusion_sensitivity(model, images, best.indices[:, 0].tolist())
    np.testing.assert_allclose(found["occlusion/fall"], falls, atol=1e-5)
    reach = attention_reach(model, [images])
    np.testing.assert_allclose(found["reach/distances"], reach.distances, rtol=1e-4)
    np.testing.assert_allclose(found["reach/entropies"], reach.entropies, rtol=1e-4)
    assert found["reach/num_images"] == 3


@pytest.mark.parametrize("pool", ["token", "gap", "map", "token+gap", "token+register"])
def test_the_rollout_is_that_of_what_the_head_reads(pool: str) -> None:
    model = build_small("ViT", **SIDES, pool=pool, num_registers=2)
    found, images = inspected(model), prepared(model)
    layers = attention_maps(model, images)
    probe = attention_maps(model, images, layers=["pool"])[0] if pool == "map" else None
    prefix = model.num_prefix_tokens
    for depth in (1, 2):
        rollout = attention_rollout(layers[:depth])
        wanted = pooled_rollout(
            rollout,
            grid=model.config.grid,
            pool=pool,
            num_prefix_tokens=prefix,
            pool_attention=probe,
        )
        np.testing.assert_allclose(found["attention/rollouts"][:, depth - 1], wanted, atol=1e-5)
    np.testing.assert_allclose(found["attention/rollout"], rollout, atol=1e-3)
    stacked = np.stack([layer.numpy() for layer in layers], axis=1)
    np.testing.assert_allclose(found["attention/heads"], stacked, atol=1e-3)
    np.testing.assert_allclose(found["attention/means"], stacked.mean(axis=2), atol=1e-3)
    last = layers[-1]
    of_mean = last[:, :, prefix:].mean(dim=2)
    reader = {"gap": of_mean}.get(pool, (last if probe is None else probe)[:, :, 0])
    heads = reader[:, :, prefix:].unflatten(2, model.config.grid)
    np.testing.assert_allclose(found["attention/of_pool"], heads, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_looked_at(family: str) -> None:
    model = build_small(family, **SIDES)
    found = inspected(model, count=2, settings=InspectSettings(gallery=1))
    assert all(np.isfinite(a).all() for a in found.values() if a.dtype.kind == "f")
    names = {name.split("/")[0] for name in found}
    wanted = {"about", "images", "features", "filters", "occlusion"}
    wanted |= {"attention", "positions"} if isinstance(model, ViT) else set()
    wanted |= {"reach"} if family not in ("BiT", "ResNet v1") else set()
    assert names == wanted
    about = json.loads(str(found["about"]))
    assert about["image_size"] == [32, 48]
    assert found["images/pictures"].shape == (1, 32, 48, 3)
    if "reach" in wanted:
        assert found["reach/num_images"] == 2


def test_grey_images_and_models_without_a_head_can_be_looked_at() -> None:
    model = build_small("ViT", in_channels=1, num_classes=0)
    found = inspected(model, count=1)
    assert found["images/pictures"].shape == (1, 24, 32, 1)
    assert found["filters/components"].shape[-1] == 1
    assert not any(name.startswith(("occlusion", "images/top")) for name in found)


def test_occlusion_follows_the_class_that_is_asked_for() -> None:
    model = build_small("ViT")
    model.classes = ("a", "b", "c", "d", "e")
    found = inspected(model, count=2, settings=InspectSettings(class_name="d"))
    assert found["occlusion/classes"].tolist() == ["d", "d"]
    wanted = occlusion_sensitivity(model, prepared(model, 2), [3, 3])
    np.testing.assert_allclose(found["occlusion/fall"], wanted, atol=1e-5)
    without = inspected(model, count=1, settings=InspectSettings(occlusion=False))
    assert "occlusion/fall" not in without


def test_progress_counts_every_forward_pass_once() -> None:
    model = build_small("ViT")
    calls: list[tuple[int, int]] = []
    inspect_model(
        model,
        photographs(3),
        preprocessing=model.preprocessing,
        device=CPU,
        settings=InspectSettings(gallery=2, batch_size=7),
        progress=lambda *args: calls.append(args),
    )
    done = [number for number, _ in calls]
    assert {total for _, total in calls} == {3 + 2 * 12}
    assert done == sorted(set(done))
    assert done[-1] == 27


def test_an_image_that_can_t_be_read_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = []
    for number, pixels in enumerate([photograph(40, 60), photograph(60, 40)]):
        paths += [tmp_path / f"broken{number}.jpg", tmp_path / f"{number}.png"]
        paths[-2].write_bytes(b"\xff\xd8\xff\xe0 no more")
        Image.fromarray(pixels).save(paths[-1])
    model = build_small("ViT")

    def inspect(paths: list[Path]) -> Arrays:
        return inspect_model(
            model,
            image_examples(paths, channels=3),
            preprocessing=model.preprocessing,
            device=CPU,
            settings=InspectSettings(gallery=3),
        )

    found = inspect(paths)
    assert found["images/names"].tolist() == [str(paths[1]), str(paths[3])]
    assert found["occlusion/fall"].shape[0] == found["reach/num_images"] == 2
    assert [r.getMessage().split(": ")[0] for r in caplog.records] == [str(paths[0]), str(paths[2])]
    with pytest.raises(DataError, match="there is no image to look at: .*broken0.jpg: "):
        inspect(paths[:1])


def test_what_is_not_finite_is_told() -> None:
    model = build_small("BiT")
    with torch.no_grad():
        model.head.bias[0] = np.nan
    with pytest.raises(ModelFileError, match="small gives logits that are not finite"):
        inspected(model, count=1)


def test_a_head_of_zeros_names_nothing_and_nothing_is_blanked_for_it() -> None:
    model = build_small("ViT")
    with torch.no_grad():
        model.head.weight.zero_()
    found = inspected(model, count=1)
    assert not any(name.startswith(("occlusion", "images/top")) for name in found)


def test_a_class_is_found_by_name_and_by_number() -> None:
    model = build_small("ViT")
    assert class_number(model, "3") == 3
    model.classes = ("robin", "wren", "4", "crow", "rook")
    assert class_number(model, "wren") == 1
    assert class_number(model, "4") == 2  # a name comes before a number
    assert class_number(model, "3") == 3
    assert class_number(model, None) is None


@pytest.mark.parametrize(
    ("fields", "name", "words"),
    [
        ({}, "5", "there is no class '5'"),
        ({}, "wren", "there is no class 'wren'"),
        ({"num_classes": 0}, "wren", "small has no head, so no class 'wren'"),
    ],
)
def test_a_class_that_is_not_there_is_told(fields: dict[str, int], name: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        class_number(build_small("ViT", **fields), name)
