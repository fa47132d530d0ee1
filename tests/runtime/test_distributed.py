"""Process groups end without leaving anything behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitral.runtime.distributed import Distributed, process_group, ranks_from_environment

SCRIPT = """
import sys, weakref
import torch
import torch.distributed as dist
from vitral.runtime.distributed import process_group, ranks_from_environment

def work():
    with process_group(ranks_from_environment(), device=torch.device("cpu")) as ranks:
        group = weakref.ref(dist.group.WORLD)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
        model(torch.ones(2, 3)).sum().backward()
        assert ranks.all_gather_object(ranks.rank) == [0, 1]
        assert ranks.broadcast_object(ranks.rank) == 0
        assert ranks.sum(torch.tensor(ranks.rank + 1)).item() == 3
        own = torch.full((2,), float(ranks.rank))
        ranks.broadcast([own])
        assert own.tolist() == [0, 0]
        del model
    return group

assert work()() is None, "the group is still alive, and its threads with it"
assert work()() is None, "a second group of the same processes"
"""


def test_one_process_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with process_group(ranks_from_environment(), device=torch.device("cpu")) as ranks:
        assert ranks == Distributed(rank=0, world_size=1, local_rank=0)
        assert ranks.all_gather_object("a") == ["a"]
        assert ranks.broadcast_object("a") == "a"
        ranks.wait()


def test_all_processes_raise_what_the_first_one_raises() -> None:
    with pytest.raises(ValueError, match="no space"):
        Distributed().run_on_main(lambda: (_ for _ in ()).throw(ValueError("no space")))


@pytest.mark.slow
def test_no_thread_of_a_group_outlives_it(tmp_path: Path) -> None:
    """A gloo thread that frees a tensor while Python ends would abort the process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(script)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
