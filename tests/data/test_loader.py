import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import AugmentSettings
from vitral.data.dataset import open_dataset
from vitral.data.decode import decode_image
from vitral.data.examples import Examples
from vitral.data.geometry import flips
from vitral.data.loader import TrainingBatches, evaluation_batches
from vitral.data.needs import Draw, Needs
from vitral.data.order import epoch_order, mixup_shares, steps_per_epoch, uniforms
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings
from vitral.data.transforms import augment, num_uniforms, preprocess
from vitral.data.workers import choose_workers, decode

HOW = default_preprocessing((8, 8), channels=3)
MIXED = AugmentSettings(mixup=0.4)
CUT = AugmentSettings(cutmix=1.0)
BOTH = AugmentSettings(mixup=0.4, cutmix=1.0)
PLAIN = AugmentSettings()
CHANGED = AugmentSettings(randaugment=2, mixup=0.4)
NUM_IMAGES = 37


class MemoryStore:
    """Files in memory; those in `broken` raise what reading them would."""

    def __init__(self, contents, broken=()):
        self.contents, self.broken = contents, dict(broken)
        self.names = [str(number) for number in range(len(contents))]
        self.reads, self.readers = [], set()

    def read(self, number):
        self.reads.append(number)
        self.readers.add(threading.current_thread().name.split("_")[0])
        if number in self.broken:
            raise self.broken[number]
        return self.contents[number]

    def stamp(self, number):
        return None

    def blocks(self):
        return None


@pytest.fixture(scope="session")
def contents(picture, encode):
    kinds = ["PNG", "JPEG", "WEBP", "BMP"]
    return [
        encode(picture(number, size=(9 + number % 5, 14 - number % 3)), kinds[number % 4])
        for number in range(NUM_IMAGES)
    ]


@pytest.fixture(scope="session")
def examples_of(contents):
    """A function that returns the examples, numbered from the last file to the first."""

    def build(broken=(), count=NUM_IMAGES):
        numbers = np.arange(count)[::-1].copy()
        store = MemoryStore(
            contents, {count - 1 - index: why for index, why in dict(broken).items()}
        )
        return Examples(store, numbers, numbers % 5)

    return build


def training(examples, *, augment=PLAIN, **options):
    values = {"seed": 3, "batch_size": 10, "workers": 0} | options
    return TrainingBatches(examples, HOW, augment, **values)


def flat(steps):
    """Every micro-batch of some steps."""
    return [batch for step in steps for batch in step.micro_batches]


def joined(batches):
    """What counts of some batches, as one."""
    names = batches[0].keys()
    return {name: torch.cat([batch[name][batch["valid"]] for batch in batches]) for name in names}


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


# What a batch is


@pytest.mark.parametrize("changes", [PLAIN, MIXED, BOTH, CHANGED])
def test_a_training_batch_is_a_function_of_seed_epoch_and_index(examples_of, contents, changes):
    examples = examples_of()
    steps = list(training(examples, augment=changes).steps(0, 8))
    for step in steps:
        plan, (batch,) = step.plan, step.micro_batches
        order = epoch_order(3, plan.epoch, NUM_IMAGES)[plan.start : plan.stop]
        assert batch["index"].tolist() == order.tolist()
        assert batch["label"].tolist() == examples.labels[order].tolist()
        assert batch["valid"].all()
        drawn = uniforms(3, plan.epoch, order, count=num_uniforms(changes))
        for row, index in enumerate(order):
            pixels = decode_image(contents[NUM_IMAGES - 1 - index])
            expected = augment(pixels, drawn[row], settings=changes, preprocessing=HOW)
            np.testing.assert_array_equal(batch["image"][row].permute(1, 2, 0), expected)
    assert [len(batch["index"]) for batch in flat(steps)] == [8, 10, 10, 9, 8, 10, 10, 9]
    assert [step.plan.epoch for step in steps] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_scaled_decoding_gives_nearly_the_same_batches(encode, workers):
    down, right = np.mgrid[:160, :200]
    ramps = np.stack([down, right, down // 2 + right // 2], axis=2).astype(np.uint8)
    contents = [encode(Image.fromarray(np.roll(ramps, n, axis=2)), "JPEG") for n in range(12)]
    examples = Examples(MemoryStore(contents), np.arange(12), np.zeros(12, np.int64))
    exact, scaled = (
        joined(flat(training(examples, scaled_decoding=scaled, workers=workers).steps(0, 2)))
        for scaled in (False, True)
    )
    assert scaled["index"].tolist() == exact["index"].tolist()
    difference = (scaled["image"].int() - exact["image"].int()).abs()
    assert difference.any()
    assert difference.float().mean() < 3


def test_what_is_mirrored_is_a_function_of_seed_epoch_and_index(examples_of):
    examples = examples_of()
    for step in training(examples).steps(0, 8):
        (batch,) = step.micro_batches
        drawn = uniforms(3, step.plan.epoch, batch["index"].numpy(), count=num_uniforms(PLAIN))
        assert batch["flip"].tolist() == flips(drawn).tolist()
    (step,) = training(examples, augment=AugmentSettings(flip=False)).steps(0, 1)
    assert "flip" not in step.micro_batches[0]


def test_every_example_comes_once_an_epoch(examples_of):
    steps = list(training(examples_of()).steps(0, 8))
    for epoch in (0, 1):
        indices = [
            i for s in steps for i in s.micro_batches[0]["index"].tolist() if s.plan.epoch == epoch
        ]
        assert sorted(indices) == list(range(NUM_IMAGES))


def test_shares_are_those_of_the_epochs_positions(examples_of):
    steps = list(training(examples_of(), augment=MIXED).steps(0, 8))
    for epoch in (0, 1):
        shares = [b["mix_share"] for s in steps for b in s.micro_batches if s.plan.epoch == epoch]
        expected = mixup_shares(3, epoch, NUM_IMAGES, alpha=0.4)
        np.testing.assert_array_equal(torch.cat(shares), expected)


@pytest.mark.parametrize("settings", [CUT, BOTH])
def test_the_share_that_an_image_keeps_is_what_lies_outside_of_its_box(examples_of, settings):
    batches = flat(training(examples_of(), augment=settings).steps(0, 8))
    num_cut = 0
    for batch in batches:
        assert batch["mix_box"].shape == (len(batch["index"]), 4)
        for box, share in zip(batch["mix_box"].tolist(), batch["mix_share"].tolist(), strict=True):
            top, left, bottom, right = box
            assert 0 <= top <= bottom <= HOW.size[0]
            assert 0 <= left <= right <= HOW.size[1]
            area = (bottom - top) * (right - left)
            num_cut += area > 0
            if settings is CUT or area:
                assert share == pytest.approx(1 - area / (HOW.size[0] * HOW.size[1]))
    assert num_cut > 10
    odd = batches[3]
    assert len(odd["index"]) == 9
    assert odd["mix_share"][-1] == 1
    assert not odd["mix_box"][-1].any()


def test_a_pair_with_a_broken_image_is_not_cut(examples_of):
    broken = examples_of({index: OSError("gone") for index in range(0, NUM_IMAGES, 5)})
    for batch in flat(training(broken, augment=CUT).steps(0, 8)):
        valid = batch["valid"].numpy()
        partner = np.minimum(np.arange(len(valid)) ^ 1, len(valid) - 1)
        alone = ~(valid & valid[partner])
        assert not batch["mix_box"].numpy()[alone].any()
        assert (batch["mix_share"].numpy()[alone] == 1).all()


def test_without_mixup_there_are_no_shares(examples_of):
    assert {key for batch in flat(training(examples_of()).steps(0, 2)) for key in batch} == {
        "image", "label", "index", "valid", "flip",
    }  # fmt: skip


@pytest.mark.parametrize("parts", [{}, {"micro_batch_size": 4}, {"rank": 1, "world_size": 2}])
def test_numbers_for_stochastic_depth_are_a_function_of_seed_epoch_and_index(examples_of, parts):
    needs = Needs(draws={"uniforms/drop_path": Draw(6)})
    for batch in flat(training(examples_of(), needs=needs, **parts).steps(4, 8)):
        expected = uniforms(3, 1, batch["index"].numpy(), count=6, purpose="drop_path")
        drawn = batch["uniforms/drop_path"]
        np.testing.assert_array_equal(drawn, expected.astype(np.float32))


@pytest.mark.parametrize("workers", [0, 4])
def test_an_evaluation_batch_holds_the_examples_in_order(examples_of, contents, workers):
    errors = {}
    batches = list(
        evaluation_batches(
            examples_of(), preprocessing=HOW, batch_size=16, errors=errors, workers=workers
        )
    )
    assert [len(batch["index"]) for batch in batches] == [16, 16, 5]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(NUM_IMAGES))
    expected = [preprocess(decode_image(content), HOW) for content in contents[::-1]]
    images = torch.cat([batch["image"] for batch in batches]).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(images, np.stack(expected))
    assert errors == {}


def test_some_of_the_examples_can_be_evaluated(examples_of):
    (batch,) = evaluation_batches(
        examples_of(), preprocessing=HOW, batch_size=9, errors={}, indices=np.array([30, 2, 5])
    )
    assert batch["index"].tolist() == [30, 2, 5]


def test_no_examples_give_no_batch(examples_of):
    assert not list(
        evaluation_batches(
            examples_of(), preprocessing=HOW, batch_size=9, errors={}, indices=np.array([], int)
        )
    )


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [({"rounding": "round"}, torch.uint8), ({"rounding": "truncate"}, torch.uint8),
     ({"rounding": "none"}, torch.float32), ({"antialias": False}, torch.uint8)],
)  # fmt: skip
def test_images_are_floats_where_they_are_not_rounded(examples_of, contents, fields, dtype):
    how = default_preprocessing((8, 6), channels=3, **fields)
    batch = next(evaluation_batches(examples_of(), preprocessing=how, batch_size=4, errors={}))
    assert batch["image"].dtype == dtype
    assert batch["image"].shape == (4, 3, 8, 6)
    expected = preprocess(decode_image(contents[NUM_IMAGES - 1]), how)
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0), expected)


def test_arrays_are_pixels_already():
    pixels = np.zeros((3, 2, 7), np.uint8)
    assert decode(pixels, channels=7) is pixels


# Threads, stops and processes change nothing


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("mixup", [PLAIN, MIXED, BOTH, CHANGED])
def test_the_number_of_workers_changes_nothing(examples_of, workers, mixup):
    broken = {5: OSError("the disk is gone")}
    alone, threaded = (
        flat(training(examples_of(broken), augment=mixup, workers=count).steps(0, 9))
        for count in (0, workers)
    )
    assert_equal(alone, threaded)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_no_evaluation(examples_of, workers):
    found = []
    for count in (0, workers):
        errors = {}
        batches = evaluation_batches(
            examples_of({7: OSError("gone")}), preprocessing=HOW, batch_size=20,
            errors=errors, workers=count,
        )  # fmt: skip
        found.append((list(batches), errors))
    assert_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == {7: "gone"}


@settings(max_examples=10, deadline=None)
@given(start=st.integers(0, 11), workers=st.sampled_from([0, 3]))
def test_going_on_at_any_step_gives_the_same_batches(examples_of, start, workers):
    batches = training(examples_of(), augment=MIXED, workers=workers)
    whole = list(batches.steps(0, 12))
    assert_equal(flat(whole[start:]), flat(batches.steps(start, 12)))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("micro_batch_size", [0, 2, 4])
@pytest.mark.parametrize("batch_size", [10, 4])
def test_all_processes_together_train_on_the_batch_of_one(
    examples_of, world_size, micro_batch_size, batch_size
):
    alone = training(examples_of(), augment=MIXED, batch_size=batch_size)
    ranks = [
        training(
            examples_of(), augment=MIXED, batch_size=batch_size, rank=rank,
            world_size=world_size, micro_batch_size=micro_batch_size,
        ).steps(0, 10)
        for rank in range(world_size)
    ]  # fmt: skip
    for one, *shares in zip(alone.steps(0, 10), *ranks, strict=True):
        assert_equal([joined(one.micro_batches)], [joined(flat(shares))])
        assert all(share.plan == one.plan for share in shares)


def test_a_process_without_a_share_passes_an_example_that_does_not_count(examples_of):
    share = training(examples_of(count=3), augment=MIXED, batch_size=2, rank=0, world_size=2)
    for step in share.steps(0, 4):
        (batch,) = step.micro_batches
        assert batch["image"].shape == (1, 3, 8, 8)
        assert batch["valid"].tolist() == [False]
        assert batch["mix_share"].tolist() == [1]


# Images that break after the survey


@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n no more", "Truncated File Read"),
        (b"\0\0\0 ftypheic", "HEIC is not read yet"),
        (OSError("the disk is gone"), "the disk is gone"),
        (np.zeros((5, 5, 2), np.uint8), "an image of 2 channels for a model of 3"),
    ],
)
def test_a_broken_image_is_zero_not_valid_and_has_a_reason(examples_of, workers, content, reason):
    examples = examples_of()
    files = list(examples.store.contents)
    index = NUM_IMAGES - 1 - 20
    files[index] = content
    broken = {index: content} if isinstance(content, OSError) else {}
    examples = Examples(MemoryStore(files, broken), examples.file_ids, examples.labels)
    batches = training(examples, augment=MIXED, workers=workers)
    whole = joined(flat(training(examples_of(), augment=MIXED).steps(0, 4)))
    found = flat(batches.steps(0, 4))
    (holder,) = [batch for batch in found if 20 in batch["index"].tolist()]
    row = holder["index"].tolist().index(20)
    assert batches.errors == {20: reason}
    assert not holder["image"][row].any()
    assert holder["valid"].tolist() == [index != 20 for index in holder["index"].tolist()]
    assert holder["mix_share"][[row, row ^ 1]].tolist() == [1, 1]
    others = [index != 20 for index in whole["index"].tolist()]
    assert torch.equal(joined(found)["image"], whole["image"][others])


def test_a_broken_image_in_evaluation_keeps_its_row(examples_of):
    errors = {}
    examples = examples_of({3: OSError("gone")})
    batches = list(evaluation_batches(examples, preprocessing=HOW, batch_size=8, errors=errors))
    assert errors == {3: "gone"}
    valid = torch.cat([batch["valid"] for batch in batches])
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(NUM_IMAGES))
    assert (~valid).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_of_ours_is_not_taken_for_a_broken_image(examples_of, workers):
    examples = examples_of({3: RuntimeError("a mistake")})
    with pytest.raises(RuntimeError, match="a mistake"):
        list(
            evaluation_batches(
                examples, preprocessing=HOW, batch_size=8, errors={}, workers=workers
            )
        )


# Memory and threads


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_only_a_few_batches_are_read_ahead(examples_of, workers):
    examples = examples_of()
    ahead = 3 if workers else 0
    stream = training(examples, batch_size=2, workers=workers).steps(0, 30)
    for number, _ in enumerate(stream, start=1):
        assert 2 * number - 1 <= len(examples.store.reads) <= 2 * (number + ahead)


def test_without_workers_the_caller_reads(examples_of):
    examples = examples_of()
    list(training(examples, workers=0).steps(0, 2))
    assert examples.store.readers == {threading.current_thread().name.split("_")[0]}
    list(training(examples, workers=2).steps(0, 2))
    assert "loader" in examples.store.readers


def test_a_stream_that_is_left_stops_its_threads(examples_of):
    stream = training(examples_of(), workers=3).steps(0, 100)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_the_number_of_workers_follows_the_cores(monkeypatch):
    for cores, expected in ((1, 1), (6, 6), (64, 16), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert choose_workers(-1) == expected
    assert [choose_workers(count) for count in (0, 1, 40)] == [0, 1, 40]


# Whatever the source


@pytest.fixture(scope="module", params=["packed", "parquet", "folder"])
def source(request, tmp_path_factory, contents):
    """The same images in uneven shards, in tables of uneven groups, and as files."""
    root = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAL_CACHE_DIR", str(root / "cache"))
        patch.setattr("vitral.data.order.WINDOW", 8)
        for number, content in enumerate(contents):
            path = root / "photos" / "train" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for kind in "ab":
            (root / "photos" / "test" / kind).mkdir(parents=True)
            (root / "photos" / "test" / kind / "0.png").write_bytes(contents["ab".index(kind)])
        if request.param == "packed":
            settings = PackSettings(images_per_shard=10)
            pack(open_dataset(root / "photos"), root / "packed", settings, name="photos")
            yield open_dataset(root / "packed").splits["train"]
        elif request.param == "parquet":
            (root / "tables").mkdir()
            for file, (first, end) in enumerate([(0, 3), (3, 30), (30, NUM_IMAGES)]):
                columns = {"image": contents[first:end], "label": list("ab" * 20)[first:end]}
                path = root / "tables" / f"train-{file}.parquet"
                pq.write_table(pa.table(columns), path, row_group_size=5)
            columns = {"image": contents[:2], "label": ["a", "b"]}
            pq.write_table(pa.table(columns), root / "tables" / "test-0.parquet")
            yield open_dataset(root / "tables").splits["train"]
        else:
            yield open_dataset(root / "photos").splits["train"]


@given(
    world_size=st.integers(1, 6),
    workers=st.integers(0, 3),
    batch_size=st.integers(1, 45),
    micro_batch_size=st.sampled_from([0, 2, 6]),
    first=st.integers(0, 40),
)
@settings(max_examples=15, deadline=None)
def test_every_epoch_visits_each_image_once_and_goes_on_anywhere(
    source, world_size, workers, batch_size, micro_batch_size, first
):
    per_epoch = steps_per_epoch(NUM_IMAGES, batch_size)
    first %= per_epoch

    def indices(rank, start, workers):
        batches = training(
            source,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            workers=workers,
        )
        return [
            [i for batch in step.micro_batches for i in batch["index"][batch["valid"]].tolist()]
            for step in batches.steps(start, 2 * per_epoch)
        ]

    ranks = [indices(rank, 0, workers) for rank in range(world_size)]
    steps = [[i for part in step for i in part] for step in zip(*ranks, strict=True)]
    for epoch in (steps[:per_epoch], steps[per_epoch:]):
        assert sorted(i for step in epoch for i in step) == list(range(NUM_IMAGES))
    assert steps[:per_epoch] != steps[per_epoch:]
    assert indices(world_size - 1, first, 0) == ranks[-1][first:]
