import os
from dataclasses import replace

import numpy as np
import pytest

from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import AugmentSettings, DataSettings
from vitral.data.examples import Examples
from vitral.data.profile import (
    Advice,
    LoadingProfile,
    advise,
    describe_advice,
    pack_side,
    profile_loading,
)
from vitral.data.sources.arrays import ArrayStore
from vitral.data.sources.store import FolderStore
from vitral.errors import DataError

HOW = default_preprocessing((32, 32), channels=3)
BALANCED = LoadingProfile(
    read=1e-4, decode=2e-3, augment=8e-4, collate=1e-4, bare=2e-3, scaled=2e-3, packed=2e-3,
    num_bytes=1, num_pixels=1,
)  # fmt: skip


def files(tmp_path, fill, contents):
    names = [f"{n}.jpg" for n in range(len(contents))]
    fill(tmp_path, dict(zip(names, contents, strict=True)))
    numbers = np.arange(len(names))
    return Examples(FolderStore(tmp_path, names), numbers, numbers)


def test_every_stage_takes_its_time(tmp_path, fill, picture, encode):
    contents = [encode(picture(n, size=(200, 300)), "JPEG") for n in range(5)]
    stages = profile_loading(
        files(tmp_path, fill, contents), preprocessing=HOW, settings=AugmentSettings()
    )
    parts = (stages.read, stages.decode, stages.augment, stages.collate, stages.bare)
    assert all(0 < seconds < 1 for seconds in parts)
    assert stages.total == pytest.approx(sum(parts[:4]))
    assert stages.num_pixels == 60_000
    assert stages.num_bytes == int(np.mean([len(content) for content in contents]))
    # Images of 200 x 300 pixels are more than are needed for crops of 32.
    assert stages.packed < stages.decode


def test_images_in_memory_take_no_decoding():
    images = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    examples = Examples(ArrayStore(images, path="memory"), np.arange(20), np.arange(20))
    stages = profile_loading(examples, preprocessing=HOW, settings=AugmentSettings())
    assert stages.decode < stages.augment
    assert stages.num_bytes == 4800


def test_damaged_images_are_left_out_of_the_sample(tmp_path, fill, picture, encode):
    examples = files(tmp_path, fill, [b"", encode(picture(), "JPEG"), b"no image"])
    stages = profile_loading(examples, preprocessing=HOW, settings=AugmentSettings())
    assert stages.num_pixels == 120
    with pytest.raises(DataError, match="no image of the sample can be read"):
        profile_loading(examples.select(np.array([0, 2])), preprocessing=HOW,
                       settings=AugmentSettings())  # fmt: skip


def advised(stages, *, fits=False, **settings):
    data = DataSettings(source="", **settings)
    return advise(stages, data=data, preprocessing=HOW, fits=fits)


@pytest.mark.parametrize(
    ("stages", "options", "what", "gain"),
    [
        (replace(BALANCED, packed=5e-4), {}, "vitral data pack --resize 48", 3.0 / 1.5),
        (replace(BALANCED, scaled=2e-4), {}, "data.scaled_decoding=true", 3.0 / 1.2),
        (BALANCED, {"fits": True, "keep_decoded": "off"}, "data.keep_decoded=auto", 3.0 / 0.9),
        (replace(BALANCED, read=9e-3), {}, "a disk of this machine", 11.9 / 2.9),
    ],
)
def test_advice_names_what_helps_and_predicts_the_gain(stages, options, what, gain):
    (advice,) = advised(stages, **options)
    assert what in advice.what
    assert advice.gain == pytest.approx(gain)


def test_more_threads_help_where_there_are_more_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    (advice,) = advised(BALANCED, workers=2)
    assert advice == Advice("use more threads: --set data.workers=8", 4.0)
    assert advised(BALANCED, workers=-1) == []
    assert advised(BALANCED, workers=8) == []


def test_the_best_advice_comes_first():
    both = advised(replace(BALANCED, scaled=5e-4, packed=3e-4))
    assert ["pack" in advice.what for advice in both] == [True, False]


def test_what_is_on_already_is_not_advised():
    stages = replace(BALANCED, scaled=1e-4)
    assert advised(stages, scaled_decoding=True) == []
    assert advised(BALANCED, fits=True) == []


def test_advice_is_said_with_the_bottleneck():
    lines = describe_advice(BALANCED, [Advice("do this", 2.04)])
    assert lines == [
        "decoding takes most: 2.00 of 3.00 ms an image on one thread",
        "do this (2.0 times as fast, predicted)",
    ]
    assert "use a machine of more cores" in describe_advice(BALANCED, [])[1]


@pytest.mark.parametrize(("size", "side"), [(224, 256), (384, 448), (32, 48)])
def test_a_pack_is_an_eighth_larger_than_the_model(size, side):
    assert pack_side(default_preprocessing((size, size), channels=3)) == side


def test_images_of_other_channels_are_measured_too():
    images = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 5), dtype=np.uint8)
    examples = Examples(ArrayStore(images, path="memory"), np.arange(20), np.arange(20))
    how = default_preprocessing((32, 32), channels=5)
    assert profile_loading(examples, preprocessing=how, settings=AugmentSettings()).bare > 0
