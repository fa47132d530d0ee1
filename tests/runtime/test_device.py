import pytest
import torch

from vitral.errors import RequestError
from vitral.runtime import device as module
from vitral.runtime.device import (
    choose_compile,
    choose_device,
    choose_precision,
    cpu_name,
    machine_facts,
)

CPU = torch.device("cpu")


def test_auto_takes_what_is_there() -> None:
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type in (wanted, "mps")
    assert choose_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows a machine without CUDA")
def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(RequestError, match="device='cuda' is not available here"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("has_bfloat16", "width", "wanted"),
    [(True, 192, torch.bfloat16), (True, 128, torch.float32), (False, 768, torch.float32)],
)
def test_precision_on_a_cpu_follows_hardware_and_width(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, width: int, wanted: torch.dtype
) -> None:
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: has_bfloat16)
    assert choose_precision("auto", device=CPU, width=width) == wanted
    assert choose_precision("float32", device=CPU, width=width) == torch.float32


def test_compiling_is_for_long_runs_on_cuda() -> None:
    cuda = torch.device("cuda")
    assert not choose_compile("auto", device=CPU, steps=10**6)
    assert not choose_compile("auto", device=cuda, steps=10)
    assert choose_compile("auto", device=cuda, steps=10**6)
    assert choose_compile("on", device=CPU, steps=1)


def test_facts_name_what_bits_depend_on() -> None:
    facts = machine_facts(CPU)
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cpu"] == cpu_name() != ""


def test_processes_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory_bytes", lambda: 4 * 2**30)
    assert module.bytes_to_keep(num_processes=1) == 2**30
    assert module.bytes_to_keep(num_processes=4) == 2**28
    monkeypatch.setattr(module, "free_memory_bytes", lambda: 2**50)
    assert module.bytes_to_keep(num_processes=1) == module.MAX_KEPT_BYTES


def test_something_is_free() -> None:
    assert module.free_memory_bytes() > 0
