"""Features that are kept are the computed ones, and are used only where they are."""

import dataclasses
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.extraction import extract, opened, same
from support.files import CountingStore, fill
from support.runs import noise

import vitral
from vitral.data.dataset import open_dataset
from vitral.data.examples import Examples
from vitral.data.scan import inspect_file
from vitral.data.sources.arrays import ArrayStore
from vitral.evaluate import features as features_module
from vitral.evaluate.feature_cache import WatchedStore, content_digests, digest_of
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
        model, other, cache=tmp_path / "cache", report_progress=lambda *args: reported.append(args)
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
    features = setting["model"].features
    setting["model"].features = lambda images: features(images) * 2


def change_preprocessing(setting: dict[str, Any]) -> None:
    preprocessing = setting["model"].preprocessing
    setting["how"]["preprocessing"] = dataclasses.replace(preprocessing, crop_share=0.5)


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
    examples = open_dataset(tmp_path / "photos").everything()
    found = [extract(model, examples, cache=tmp_path / "cache") for _ in range(2)]
    assert same(*found)
    assert computed.count == 1
    vitral.save_model(model, tmp_path / "model")
    loaded = vitral.load_model(tmp_path / "model")
    assert same(extract(loaded, examples, cache=tmp_path / "cache"), found[0])
    assert computed.count == 1


FILES = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)]


@pytest.fixture
def counted(tmp_path):
    """The examples of a folder, with a store that counts what is read."""
    everything = open_dataset(fill(tmp_path / "data", FILES)).everything()
    return replace(everything, store=CountingStore(everything.store))


def test_what_the_survey_has_read_is_not_read_again(counted):
    digests = content_digests(counted)
    assert counted.store.reads == []
    assert digests == content_digests(replace(counted, file_infos=None))
    assert sorted(counted.store.reads) == list(range(6))
    assert len(set(digests)) == 6


@pytest.mark.parametrize("workers", [-1, 0, 3])
def test_digests_are_in_the_order_of_the_examples(counted, workers):
    digests = content_digests(counted)
    order = np.array([4, 0, 4, 2])
    wanted = [digests[number] for number in order]
    assert content_digests(counted.select(order), workers=workers) == wanted
    assert digests == [digest_of(counted.read(index)) for index in range(6)]


def test_a_file_that_was_changed_after_the_survey_is_read(counted, tmp_path):
    before = content_digests(counted)
    path = tmp_path / "data" / counted.name(2)
    path.write_bytes(path.read_bytes() + b" ")
    after = content_digests(counted)
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, True, False] + [True] * 3
    assert counted.store.reads == [int(counted.file_ids[2])]


def test_where_an_example_can_not_be_read_there_are_none(counted, tmp_path):
    (tmp_path / "data" / counted.name(2)).unlink()
    assert content_digests(counted) is None


PIXELS = arrays.arrays(np.uint8, st.sampled_from([(2, 6, 1), (3, 4, 1), (2, 2, 3)]))


@given(PIXELS, PIXELS)
def test_arrays_are_equal_in_shape_type_and_pixels_or_not_at_all(one, other):
    assert (digest_of(one) == digest_of(other)) == np.array_equal(one, other)
    assert digest_of(one) != digest_of(one.astype(np.uint16))
    assert digest_of(one[:, ::-1]) == digest_of(one[:, ::-1].copy())


class StampedArrays(ArrayStore):
    """Arrays of which it is known when they change."""

    def stamp(self, number):
        return "unchanged"


def test_arrays_of_a_survey_count_with_their_shape_too():
    pixels, digests = noise(4, 8), []
    for shape in ((4, 8, 3), (8, 4, 3)):
        store = StampedArrays(pixels.reshape(1, *shape), path="memory")
        file_info = replace(inspect_file(store, 0, channels=3), stamp="unchanged")
        digests += content_digests(Examples(store, np.zeros(1, int), np.zeros(1), [file_info]))
    assert digests[0] != digests[1]


def swap(path, other):
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(7, 7))


CHANGES = {
    "nothing": (lambda path, other: None, False),
    "another content": (swap, True),
    "gone": (lambda path, other: path.unlink(), True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("surveyed", [True, False])
def test_a_watched_store_sees_that_a_content_is_another_one(counted, tmp_path, change, surveyed):
    examples = counted if surveyed else replace(counted, file_infos=None)
    watched = WatchedStore(examples, content_digests(examples))
    act, is_change = CHANGES[change]
    assert watched.read(1) == counted.store.read(1)
    act(*(tmp_path / "data" / counted.store.names[number] for number in (1, 3)))
    if change == "gone":
        with pytest.raises(FileNotFoundError):
            watched.read(1)
    else:
        assert watched.read(1) == counted.store.read(1)
    assert watched.has_changed == is_change


def test_a_watched_store_is_else_the_store(counted):
    watched = WatchedStore(counted, content_digests(counted))
    assert watched.names == counted.store.names
    assert watched.stamp(1) == counted.store.stamp(1)
    assert watched.blocks() is None
