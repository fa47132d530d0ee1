"""Features that are kept are the computed ones, and are used only where they are."""

import dataclasses
import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extraction import extract, opened, same
from PIL import Image
from safetensors.numpy import load_file, save_file

import vitral
from vitral.data.images import Examples, open_images
from vitral.evaluate import features as features_module
from vitral.models.model import Model


class Counter:
    """Counts the extractions that computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        compute = features_module._compute

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return compute(*arguments)

        monkeypatch.setattr(features_module, "_compute", counted)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.mark.parametrize("decoded", [False, True])
def test_kept_features_are_the_computed_ones_bit_for_bit(
    model: Model, photos: Path, tmp_path: Path, computed: Counter, decoded: bool
) -> None:
    fresh = extract(model, opened(photos))
    for wanted_count in (2, 2, 2):
        examples = opened(photos, decoded=decoded)
        assert same(extract(model, examples, cache=tmp_path / "cache"), fresh)
        assert computed.count == wanted_count
    # The labels are those of the examples, and progress is told all the same.
    other = dataclasses.replace(examples, labels=np.eye(2, dtype=np.uint8)[examples.labels])
    reported: list[tuple[int, int]] = []
    found = extract(
        model, other, cache=tmp_path / "cache", report_progress=lambda *own: reported.append(own)
    )
    assert np.array_equal(found.labels, other.labels)
    assert (computed.count, reported) == (2, [(12, 12)])


def test_names_and_places_do_not_matter_but_the_order_does(
    model: Model, photos: Path, tmp_path: Path, computed: Counter
) -> None:
    cache, examples = tmp_path / "cache", opened(photos)
    before = extract(model, examples, cache=cache)
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(path.with_name(f"renamed-{number:02}.png"))
    moved = photos.rename(tmp_path / "elsewhere")
    assert same(extract(model, opened(moved), cache=cache), before)
    assert computed.count == 1
    order = np.array([0, *range(11, 0, -1)])
    for _ in range(2):
        shuffled = extract(model, examples_in(moved, order), cache=cache)
        assert same(shuffled, extract(model, examples_in(moved, order)))
    np.testing.assert_allclose(shuffled.values, before.values[order], atol=1e-5)
    assert computed.count == 4  # of which two asked for no cache


def examples_in(photos: Path, order: np.ndarray) -> Examples:
    return opened(photos).select(order)


def change_image(setting: dict[str, Any]) -> None:
    path = sorted(setting["photos"].rglob("*.png"))[5]
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(path)


def change_weight(setting: dict[str, Any]) -> None:
    with torch.no_grad():
        setting["model"].head.bias[0] += 1


def change_code(setting: dict[str, Any]) -> None:
    own = setting["model"].features
    setting["model"].features = lambda images: own(images) * 2


def change_preprocessing(setting: dict[str, Any]) -> None:
    own = setting["model"].preprocessing
    setting["how"]["preprocessing"] = dataclasses.replace(own, crop_share=0.5)


def change_precision(setting: dict[str, Any]) -> None:
    setting["how"]["precision"] = torch.bfloat16


MISSES: list[Callable[[dict[str, Any]], None]] = [
    change_image, change_weight, change_code, change_preprocessing, change_precision,
]  # fmt: skip


@pytest.mark.parametrize("change", MISSES)
@pytest.mark.parametrize("reopened", [False, True])
def test_what_features_depend_on_is_part_of_the_key(
    model: Model, photos: Path, tmp_path: Path, computed: Counter,
    change: Callable[[dict[str, Any]], None], reopened: bool,
) -> None:  # fmt: skip
    setting: dict[str, Any] = {"model": model, "photos": photos, "how": {}}
    examples = opened(photos)
    extract(model, examples, cache=tmp_path / "cache")
    change(setting)
    examples = opened(photos) if reopened else examples
    after = extract(model, examples, cache=tmp_path / "cache", **setting["how"])
    assert computed.count == 2
    assert same(after, extract(model, examples, **setting["how"]))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_changes_while_it_is_read_is_not_kept(
    model: Model, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = opened(photos)
    compute = features_module._compute

    def interrupted(*arguments: Any) -> Any:
        change_image({"photos": photos})
        return compute(*arguments)

    monkeypatch.setattr(features_module, "_compute", interrupted)
    found = extract(model, examples, cache=tmp_path / "cache")
    assert len(found.values) == 12
    assert not list(tmp_path.glob("cache/*"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)


def forget(path: Path) -> None:
    save_file(load_file(path), path)


def garble_errors(path: Path) -> None:
    save_file(load_file(path), path, metadata={"errors": json.dumps([1]), "digest": ""})


@pytest.mark.parametrize("damage", [cut, flip_bit, forget, garble_errors])
def test_a_damaged_file_is_made_again(
    model: Model, photos: Path, tmp_path: Path, computed: Counter, damage: Callable[[Path], None]
) -> None:
    cache = tmp_path / "cache"
    fresh = extract(model, opened(photos), cache=cache)
    [path] = cache.iterdir()
    damage(path)
    for _ in range(2):
        assert same(extract(model, opened(photos), cache=cache), fresh)
    assert computed.count == 2
    assert list(cache.iterdir()) == [path]


def test_a_folder_that_can_not_be_written_is_said_once(
    model: Model, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    fresh = extract(model, opened(photos))
    with caplog.at_level(logging.WARNING, "vitral"):
        for _ in range(2):
            assert same(extract(model, opened(photos), cache=tmp_path / "file" / "c"), fresh)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["note"]
    assert f"features can't be kept in {tmp_path / 'file' / 'c'}" in caplog.text


def test_unreadable_images_are_left_out_and_told_kept_or_not(
    model: Model, photos: Path, tmp_path: Path, computed: Counter
) -> None:
    examples = opened(photos)
    names = [examples.name(index) for index in range(12)]
    for index in (0, 7):
        (photos / names[index]).write_bytes(b"no image")
    first = extract(model, examples, cache=tmp_path / "cache", batch_size=5)
    assert same(extract(model, examples, cache=tmp_path / "cache", batch_size=5), first)
    assert computed.count == 1
    assert first.errors == {0: "not an image", 7: "not an image"}
    readable = extract(model, examples.select(first.indices))
    np.testing.assert_allclose(first.values, readable.values, atol=1e-5)
    assert first.indices.tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert np.array_equal(first.labels, examples.labels[first.indices])
    # One that is gone can't be known again: nothing is kept, and the rest is computed.
    (photos / names[0]).unlink()
    shutil.rmtree(tmp_path / "cache")
    gone = extract(model, examples, cache=tmp_path / "cache", batch_size=5)
    assert np.array_equal(gone.values, first.values)
    assert not (tmp_path / "cache").exists()


def test_real_photographs_are_kept_under_their_contents(
    shared: Path, tmp_path: Path, computed: Counter
) -> None:
    torch.manual_seed(0)
    model = vitral.create_model("ViT-Mi/16", image_size=64, num_classes=0)
    with tarfile.open(shared / "data/imagenet_sample/images.tar") as tar:
        members = [member for member in tar if member.isfile()][:12]
        for number, member in enumerate(members):
            path = tmp_path / "photos" / "ab"[number % 2] / Path(member.name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    examples = open_images(tmp_path / "photos").everything()
    found = [extract(model, examples, cache=tmp_path / "cache") for _ in range(2)]
    assert same(*found)
    assert computed.count == 1
    vitral.save_model(model, tmp_path / "model")
    loaded = vitral.load_model(tmp_path / "model")
    assert same(extract(loaded, examples, cache=tmp_path / "cache"), found[0])
    assert computed.count == 1
