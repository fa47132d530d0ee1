import contextlib
import threading

import pytest
import torch

from vitral.data.feed import feed, feed_batches, one_ahead
from vitral.data.loader import StepBatches
from vitral.data.order import plan_step


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
    given = list(steps(3))
    fed = list(feed((own for own in given), device=torch.device("cpu")))
    assert all(one is other for one, other in zip(fed, given, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_batches_are_there_and_the_same():
    device = torch.device("cuda")
    for step, wanted in zip(feed(steps(20), device=device), steps(20), strict=True):
        assert step.plan == wanted.plan
        assert step.num_valid == 8
        for batch, own in zip(step.micro_batches, wanted.micro_batches, strict=True):
            assert all(tensor.device.type == "cuda" for tensor in batch.values())
            busy = torch.randn(512, 512, device=device)
            for _ in range(20):
                busy = busy @ busy / 512
            assert all(torch.equal(batch[name].cpu(), own[name]) for name in own)


def test_without_a_gpu_batches_are_given_as_they_come_and_closed():
    log, given = [], [own for step in steps(3) for own in step.micro_batches]

    def loaded():
        try:
            yield from given
        finally:
            log.append("closed")

    stream = feed_batches(loaded(), device=torch.device("cpu"))
    assert all(one is own and other is own for own, (one, other) in zip(given, stream, strict=True))
    with contextlib.closing(feed_batches(loaded(), device=torch.device("cpu"))) as stream:
        next(stream)
    assert log == ["closed", "closed"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_each_batch_stands_beside_its_copy():
    given = [own for step in steps(20) for own in step.micro_batches]
    stream = feed_batches((own for own in given), device=torch.device("cuda"))
    for own, (loaded, copied) in zip(given, stream, strict=True):
        assert loaded is own
        assert all(copied[name].device.type == "cuda" for name in own)
        assert all(torch.equal(copied[name].cpu(), own[name]) for name in own)
