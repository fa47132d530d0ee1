"""Models whose blocks are sharded one by one (FSDP2) on two processes compute as on one."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing
from support.sharding_group import CASES, NUM_PROCESSES, TIMEOUT, run_process

Found = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each process measured, of all cases: one group for all of them."""
    folder = tmp_path_factory.mktemp("group")
    group = torch.multiprocessing.spawn(
        run_process, args=(str(folder),), nprocs=NUM_PROCESSES, join=False
    )
    end = time.monotonic() + 2 * TIMEOUT.total_seconds()
    try:
        while not group.join(timeout=1):
            assert time.monotonic() < end, "the processes do not come to an end"
    finally:
        for process in group.processes:
            process.kill()
    return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(NUM_PROCESSES)]


@pytest.mark.parametrize("case", CASES)
def test_a_sharded_model_computes_and_trains_as_a_whole_one(found: Found, case: str) -> None:
    for result in found:
        assert "error" not in result[case], result[case]["error"]
        assert result[case]["evaluation"] < 1e-5
        assert result[case]["forward"] < 1e-5
        assert result[case]["weights"] < 1e-6
        assert result[case]["after"] < 1e-5


def test_the_state_of_a_sharded_run_loads_into_shards_and_whole(found: Found) -> None:
    for result in found:
        assert "error" not in result["state"], result["state"]["error"]
        assert result["state"]["unequal"] == []
