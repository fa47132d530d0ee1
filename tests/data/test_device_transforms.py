import contextlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitral.config.preprocessing import Preprocessing
from vitral.data.device_transforms import (
    flip_left_right,
    one_ahead,
    partner_of,
    prefetch,
    prefetch_batches,
    prepare_on_device,
)
from vitral.data.loader import StepBatches
from vitral.data.order import plan_step

CPU = torch.device("cpu")
HOW = Preprocessing((4, 5), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def loaded(count, *, shares=None):
    random = np.random.default_rng(count)
    batch = {
        "image": torch.from_numpy(random.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)),
        "label": torch.from_numpy(random.integers(0, 9, count)),
        "index": torch.arange(count),
        "valid": torch.ones(count, dtype=torch.bool),
    }
    return batch if shares is None else batch | {"mix_share": torch.tensor(shares)}


def normalised(batch):
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (HOW.mean, HOW.std))
    return (batch["image"].numpy() / 255 - mean) / std


def test_a_batch_is_brought_into_the_models_range():
    batch = loaded(6)
    ready = prepare_on_device(batch, device=CPU, preprocessing=HOW)
    assert ready["image"].dtype == torch.float32
    np.testing.assert_allclose(ready["image"], normalised(batch), atol=1e-5)
    assert ready.keys() == batch.keys()
    assert all(torch.equal(ready[name], batch[name]) for name in ("label", "index", "valid"))


def test_images_are_mirrored_before_they_are_mixed():
    flips = torch.tensor([True, False, False, True])
    batch = loaded(4, shares=[0.3, 0.3, 1.0, 1.0])
    ready = prepare_on_device(batch | {"flip": flips}, device=CPU, preprocessing=HOW)
    mirrored = batch | {"image": batch["image"].clone()}
    mirrored["image"][flips] = batch["image"][flips].flip(3)
    expected = prepare_on_device(mirrored, device=CPU, preprocessing=HOW)
    assert torch.equal(ready["image"], expected["image"])
    assert "flip" not in ready


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 13])
def test_mirroring_keeps_type_and_layout(dtype, channels):
    images = torch.randint(0, 256, (5, 4, 6, channels)).to(dtype).permute(0, 3, 1, 2)
    flips = torch.tensor([True, False, True, True, False])
    mirrored = flip_left_right(images, flips)
    assert mirrored.dtype == dtype and mirrored.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(mirrored[flips], images[flips].flip(3))
    assert torch.equal(mirrored[~flips], images[~flips])


def test_the_loaded_batch_is_not_changed():
    batch = loaded(4, shares=[0.3, 0.3, 0.9, 0.9]) | {"flip": torch.ones(4, dtype=torch.bool)}
    before = {name: tensor.clone() for name, tensor in batch.items()}
    prepare_on_device(batch, device=CPU, preprocessing=HOW)
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_pairs_are_mixed_by_their_share():
    shares = [0.3, 0.3, 0.9, 0.9, 1.0, 1.0, 1.0]
    batch = loaded(7, shares=shares)
    ready = prepare_on_device(batch, device=CPU, preprocessing=HOW)
    partner = [1, 0, 3, 2, 5, 4, 6]
    share, images = np.reshape(shares, (-1, 1, 1, 1)), normalised(batch)
    np.testing.assert_allclose(
        ready["image"], share * images + (1 - share) * images[partner], atol=1e-5
    )
    assert ready["mix_label"].tolist() == batch["label"].numpy()[partner].tolist()


def test_boxes_are_filled_from_the_partner_and_other_pairs_are_blended():
    boxes = torch.tensor([[1, 0, 3, 4], [1, 0, 3, 4], [0] * 4, [0] * 4, [0, 2, 4, 5]])
    batch = loaded(5, shares=[0.6, 0.6, 0.3, 0.3, 1.0]) | {"mix_box": boxes}
    ready = prepare_on_device(batch, device=CPU, preprocessing=HOW)
    images = normalised(batch)
    expected = images.copy()
    for row, other in ((0, 1), (1, 0)):
        expected[row, :, 1:3, 0:4] = images[other, :, 1:3, 0:4]
    for row, other in ((2, 3), (3, 2)):
        expected[row] = 0.3 * images[row] + 0.7 * images[other]
    np.testing.assert_allclose(ready["image"], expected, atol=1e-5)
    assert torch.equal(ready["mix_share"], batch["mix_share"])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_share_of_one_leaves_the_image(count):
    mixed, plain = loaded(count, shares=[1.0] * count), loaded(count)
    first, second = (prepare_on_device(b, device=CPU, preprocessing=HOW) for b in (mixed, plain))
    assert torch.equal(first["image"], second["image"])


@given(st.integers(1, 200))
def test_partners_are_mutual_and_an_odd_last_one_is_alone(count):
    partner = partner_of(count, device=CPU)
    assert torch.equal(partner[partner], torch.arange(count))
    alone = (partner == torch.arange(count)).nonzero().flatten().tolist()
    assert alone == [count - 1] * (count % 2)
    assert (partner // 2 == torch.arange(count) // 2).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shares", [None, [0.3, 0.3, 0.9, 0.9]])
def test_a_gpu_gets_the_same_batch(shares):
    batch = loaded(4, shares=shares)
    here = prepare_on_device(batch, device=CPU, preprocessing=HOW)
    there = prepare_on_device(batch, device=torch.device("cuda"), preprocessing=HOW)
    assert {tensor.device.type for tensor in there.values()} == {"cuda"}
    torch.testing.assert_close({name: t.cpu() for name, t in there.items()}, here)


def counted(count, log, *, fail=None):
    """Numbers, noting in `log` when each is asked for and when the end is told."""
    try:
        for number in range(count):
            log.append(number)
            if number == fail:
                raise ValueError("the disk is gone")
            yield number
    finally:
        log.append("closed")


def test_steps_come_in_order_and_are_closed():
    log = []
    assert list(one_ahead(counted(5, log), lambda n: 10 * n)) == [0, 10, 20, 30, 40]
    assert log == [0, 1, 2, 3, 4, "closed"]
    assert list(one_ahead(counted(0, log), str)) == []


def test_the_next_step_is_worked_on_while_the_last_is_used():
    moved = [threading.Event() for _ in range(4)]
    names = []

    def move(number):
        names.append(threading.current_thread().name)
        moved[number].set()
        return number

    stream = one_ahead(counted(4, []), move)
    assert next(stream) == 0
    assert moved[1].wait(5)
    assert not moved[2].wait(0.05)  # and no more than that one
    assert next(stream) == 1
    assert moved[2].wait(5)
    stream.close()
    assert all(name.startswith("feed") for name in names)


def test_what_a_step_raises_is_raised_at_its_turn():
    log = []
    stream = one_ahead(counted(5, log, fail=2), str)
    assert [next(stream), next(stream)] == ["0", "1"]
    with pytest.raises(ValueError, match="the disk is gone"):
        next(stream)
    assert log[-1] == "closed"


def test_a_feed_that_is_left_closes_its_steps():
    log = []
    with contextlib.closing(one_ahead(counted(9, log), str)) as stream:
        next(stream)
    assert log[-1] == "closed"
    assert len(log) < 5
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]


def steps(count):
    for number in range(count):
        images = torch.full((4, 3, 2, 2), number, dtype=torch.uint8)
        batch = {"image": images, "valid": torch.ones(4, dtype=torch.bool)}
        yield StepBatches(plan_step(number, num_examples=99, batch_size=4), [batch, batch], 8)


def test_without_a_gpu_steps_are_given_as_they_come():
    loaded = list(steps(3))
    fed = list(prefetch((step for step in loaded), device=torch.device("cpu")))
    assert all(one is other for one, other in zip(fed, loaded, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_batches_are_there_and_the_same():
    device = torch.device("cuda")
    for step, wanted in zip(prefetch(steps(20), device=device), steps(20), strict=True):
        assert step.plan == wanted.plan
        assert step.num_valid == 8
        for batch, expected in zip(step.micro_batches, wanted.micro_batches, strict=True):
            assert all(tensor.device.type == "cuda" for tensor in batch.values())
            busy = torch.randn(512, 512, device=device)
            for _ in range(20):
                busy = busy @ busy / 512
            assert all(torch.equal(batch[name].cpu(), expected[name]) for name in expected)


def test_without_a_gpu_batches_are_given_as_they_come_and_closed():
    log, batches = [], [batch for step in steps(3) for batch in step.micro_batches]

    def loaded():
        try:
            yield from batches
        finally:
            log.append("closed")

    stream = prefetch_batches(loaded(), device=torch.device("cpu"))
    assert all(
        one is batch and other is batch for batch, (one, other) in zip(batches, stream, strict=True)
    )
    with contextlib.closing(prefetch_batches(loaded(), device=torch.device("cpu"))) as stream:
        next(stream)
    assert log == ["closed", "closed"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_each_batch_stands_beside_its_copy():
    batches = [batch for step in steps(20) for batch in step.micro_batches]
    stream = prefetch_batches((batch for batch in batches), device=torch.device("cuda"))
    for batch, (loaded, copied) in zip(batches, stream, strict=True):
        assert loaded is batch
        assert all(copied[name].device.type == "cuda" for name in batch)
        assert all(torch.equal(copied[name].cpu(), batch[name]) for name in batch)
