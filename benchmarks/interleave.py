"""Interleaved timing: every round runs each callable once, ratios are taken within a round."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vitral.runtime.device import cpu_name
from vitral.version import __version__

RESULTS_DIR = Path(__file__).parent / "results"


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    device: torch.device,
) -> dict[str, float]:
    """Time two callables alternately, each first in every second round.

    Returns:
        Medians in seconds, and `ratio`: the median over rounds of their time / our time (above 1:
        ours is faster), with its quartiles.
    """
    for call in (ours, theirs):
        for _ in range(2):
            call()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        order = [("ours", ours), ("theirs", theirs)]
        for name, call in order if number % 2 else order[::-1]:
            times[name].append(_time(call, device))
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["theirs"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ours_seconds": statistics.median(times["ours"]),
        "theirs_seconds": statistics.median(times["theirs"]),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "rounds": rounds,
    }


def record(
    name: str, rows: list[dict[str, Any]], *, args: argparse.Namespace, **facts: str
) -> None:
    """Write results, one file for each kind of device, and print them."""
    device = torch.device(args.device)
    content = {
        "benchmark": name,
        "vitral": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **facts,
        "rows": rows,
    }
    args.results.mkdir(exist_ok=True)
    path = args.results / f"{name}_{device.type}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    for row in rows:
        print(
            "  ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )
    print(path)


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=15, help="2 or more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS_DIR, help="a folder")
    return parser


def _time(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
