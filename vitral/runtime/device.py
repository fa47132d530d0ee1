"""Deterministic choice of device, precision and compilation."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from vitral.config.checks import check_choice
from vitral.config.run import PRECISIONS
from vitral.errors import RequestError

# Below this width the matrix products are too small for bfloat16 to outweigh its conversions on a
# CPU.
MIN_BFLOAT16_WIDTH_ON_CPU = 192
MAX_KEPT_BYTES = 8 * 2**30
KEPT_SHARE_OF_MEMORY = 0.25
"""Share of the free memory that decoded images may take."""
# Compiling a training step takes about a minute; in shorter runs it does not pay off.
MIN_STEPS_TO_COMPILE = 2000


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """Return the device of a name; "auto" prefers CUDA, then MPS, then the CPU.

    Raises:
        RequestError: the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.split(":", maxsplit=1)[0]
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    check_choice(("cpu", "cuda", "mps"), device=kind)
    if not available.get(kind, True):
        raise RequestError(f"device={name!r} is not available here: use device=auto or device=cpu")
    if name == "cuda":
        return torch.device("cuda", local_rank)
    try:
        return torch.device(name)
    except RuntimeError:
        raise RequestError(f"device={name!r} is not known: use cpu, cuda, cuda:1 or mps") from None


def choose_precision(name: str, *, device: torch.device, width: int) -> torch.dtype:
    """Return the dtype of matrix products; "auto" is bfloat16 where available and faster.

    Raises:
        RequestError: an unknown name, or float16, which needs loss scaling.
    """
    check_choice(PRECISIONS, precision=name)
    if name == "auto":
        name = "bfloat16" if _bfloat16_pays(device, width) else "float32"
    if name == "float16":
        raise RequestError("precision=float16 is not offered yet: use bfloat16 or float32")
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def choose_compile(name: str, *, device: torch.device, steps: int) -> bool:
    """Return whether to compile; "auto": on CUDA, for runs that are long enough to benefit."""
    if name == "auto":
        return device.type == "cuda" and steps >= MIN_STEPS_TO_COMPILE
    return name == "on"


@contextlib.contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Run matrix products in lower precision; norms and softmax keep float32 statistics."""
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        yield


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def free_memory_bytes() -> int:
    """Return the memory that is free; 2 GB where the system does not report it."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**31


def bytes_to_keep(*, num_processes: int) -> int:
    """Return how many bytes of decoded images each process of a machine may keep."""
    most = min(MAX_KEPT_BYTES, KEPT_SHARE_OF_MEMORY * free_memory_bytes())
    return int(most / num_processes)


def machine_facts(device: torch.device) -> dict[str, str | int]:
    """Return the facts besides the settings that the bits of a result depend on."""
    facts: dict[str, str | int] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "device": str(device.type),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _bfloat16_pays(device: torch.device, width: int) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return width >= MIN_BFLOAT16_WIDTH_ON_CPU and _cpu_has_bfloat16()
    return False


def _cpu_has_bfloat16() -> bool:
    # The public torch.cpu functions do not report avx512_bf16, so the kernel's flags are read.
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
