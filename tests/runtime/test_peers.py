import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch.distributed as dist

from vitral.runtime.liveness import Sign
from vitral.runtime.peers import Neighbours, SignBoard, pid_space


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def board(store: dist.Store, rank: int) -> SignBoard:  # type: ignore[name-defined]
    return SignBoard(
        store,
        rank=rank,
        world_size=2,
        make_sign=lambda beat: Sign(beat, pid=rank),
        interval_seconds=0.01,
    )


def test_each_process_sees_the_signs_of_all() -> None:
    store = dist.HashStore()
    first = board(store, 0)
    wait_for(lambda: (signs := first.news()) and signs[0] and signs[1] is None)
    second = board(store, 1)
    wait_for(lambda: (signs := first.news()) and signs[1] and signs[1].pid == 1)
    second.close()
    first.close()


def test_a_store_that_is_gone_is_told() -> None:
    class Gone:
        def set(self, key: str, value: str) -> None:
            raise dist.DistNetworkError("Connection reset by peer")

    broken = board(Gone(), 0)
    wait_for(lambda: broken.is_broken)
    broken.close()


@pytest.mark.skipif(sys.platform != "linux", reason="process handles are Linux's")
def test_a_process_that_ends_is_seen_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    sign = Sign(1, pid_space=pid_space())
    neighbours = Neighbours(0)
    signs = [sign, Sign(1, pid=process.pid, pid_space=sign.pid_space), None]
    neighbours.know(signs)
    assert not neighbours.dead()
    neighbours.kill([1, 2])
    wait_for(lambda: neighbours.dead() == {1})
    process.wait()
    neighbours.close()


def test_a_process_on_another_machine_is_not_looked_for() -> None:
    neighbours = Neighbours(0)
    neighbours.know([Sign(1, pid_space="here"), Sign(1, pid=1, pid_space="there")])
    assert not neighbours.dead()
    neighbours.close()
