"""Compare training, inference and loading of this checkout with another commit.

git worktree add ../before COMMIT
python benchmarks/against_commit.py ../before FOLDER_OF_CLASS_FOLDERS [--rounds 15]

In every round three new processes, two of the other checkout and one of this, do the same work in
turn. The processes are new, since memory layout changes the speed of a process by some per cent for
its whole life. The spread measures the difference of the two processes of the other checkout: half
the interquartile range of their ratio. Above 3 % the run is void and repeated, five times at most;
then the run of the least spread is recorded and marked. Only the common interface is used:
`vitral.train` and its `timings.jsonl`, `Predictor`, `TrainingBatches`.
"""

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_SPREAD = 0.03
ARMS = ("before", "before again", "after")
Seconds = dict[str, float]
"""By arm."""


def training(
    name: str, *, side: int, count: int, batch_size: int, steps: int
) -> Callable[[], float]:
    """Return a function that trains and returns the seconds per step, by the run's timings."""
    import numpy as np

    import vitral

    random = np.random.default_rng(0)
    root = Path(tempfile.mkdtemp())
    labels, split = np.arange(count) % 10, np.full(count, "train")  # nothing is scored
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    np.savez(root / "data.npz", images=images, labels=labels, split=split)
    every = steps // 3
    number = 0

    def run() -> float:
        nonlocal number
        number += 1
        output = root / str(number)
        vitral.train(
            name,
            str(root / "data.npz"),
            image_size=side,
            steps=steps,
            batch_size=batch_size,
            device="cpu",
            precision="float32",
            quiet=True,
            output=output,
            settings={
                "train.log_every_steps": every,
                "checkpoint.every_steps": steps,
                "augment.mixup": 0.2,
            },
        )
        rows = [json.loads(line) for line in (output / "timings.jsonl").read_text().splitlines()]
        # Without the first row, in which threads and memory are set up.
        return float(statistics.mean(batch_size / row["images_per_second"] for row in rows[1:]))

    return run


def inference(name: str, *, side: int, count: int) -> Callable[[], float]:
    """Return a function that predicts images in memory and returns the seconds."""
    import numpy as np
    import torch

    import vitral
    from vitral.predict.predictor import Predictor

    model = vitral.create_model(name, image_size=side, num_classes=10)
    torch.nn.init.normal_(model.head.weight)
    predictor = Predictor(model, device="cpu", precision="float32")
    random = np.random.default_rng(0)
    images = list(random.integers(0, 256, (count, side, side, 3), dtype=np.uint8))

    def run() -> float:
        start = time.perf_counter()
        predictor(images)
        return time.perf_counter() - start

    return run


def find(*names: str) -> Any:
    """Return the first of some `module:name` that this checkout has."""
    for name in names:
        module, _, attribute = name.partition(":")
        if importlib.util.find_spec(module.rpartition(".")[0]) and importlib.util.find_spec(module):
            return getattr(importlib.import_module(module), attribute)
    raise ImportError(f"none of {', '.join(names)}")


def loading(folder: str) -> Callable[[], float]:
    """Return a function that loads some batches of photographs and returns the seconds."""
    from vitral.data.loader import TrainingBatches

    # Each with its name before the rooms were renamed, so that older commits can be compared.
    open_dataset = find("vitral.data.dataset:open_dataset", "vitral.data.images:open_images")
    default_preprocessing = find(
        "vitral.config.preprocessing:default_preprocessing",
        "vitral.spec.preprocessing:default_preprocessing",
    )
    augment = find("vitral.config.run:AugmentSettings", "vitral.spec.run:AugmentSettings")
    examples = open_dataset(folder).everything()
    batches = TrainingBatches(
        examples,
        default_preprocessing((224, 224), channels=3),
        augment(min_area=0.08),
        seed=0,
        batch_size=32,
        workers=2,
    )

    def run() -> float:
        start = time.perf_counter()
        for _ in batches.steps(0, 30):
            pass
        return time.perf_counter() - start

    return run


def cases(folder: str) -> dict[str, Callable[[], Callable[[], float]]]:
    """Return the benchmark cases by name."""
    small = {"side": 28, "count": 1024, "batch_size": 64, "steps": 144}
    large = {"side": 224, "count": 60, "batch_size": 8, "steps": 6}
    return {
        "training step, ViT-Mi/7 at 28 px": lambda: training("ViT-Mi/7", **small),
        "training step, ViT-S/16 at 224 px": lambda: training("ViT-S/16", **large),
        "inference, ViT-Mi/7 at 28 px": lambda: inference("ViT-Mi/7", side=28, count=4096),
        "inference, ViT-S/16 at 224 px": lambda: inference("ViT-S/16", side=224, count=32),
        "loading, crops of 224 px": lambda: loading(folder),
    }


def work(folder: str) -> None:
    """Run in a worker process: execute the case of each input line, print its seconds."""
    ready: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in ready:
            ready[name] = cases(folder)[name]()
        print(json.dumps(ready[name]()), flush=True)


def start(checkout: Path, folder: str) -> subprocess.Popen[str]:
    """Start a worker process with the code of a checkout."""
    return subprocess.Popen(
        [sys.executable, __file__, str(checkout), folder, "--work"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=checkout,
    )


def ask(process: subprocess.Popen[str], case: str) -> float:
    """Let a worker execute a case once; return its seconds."""
    assert process.stdin and process.stdout
    process.stdin.write(case + "\n")
    process.stdin.flush()
    seconds: float = json.loads(process.stdout.readline())
    return seconds


def one_round(checkouts: dict[str, Path], folder: str, case: str, order: list[str]) -> Seconds:
    """Return the seconds of a case for each arm, each in a new process after one warm-up."""
    processes = {arm: start(checkouts[arm], folder) for arm in order}
    for arm in order:
        ask(processes[arm], case)
    seconds = {arm: ask(processes[arm], case) for arm in order}
    for process in processes.values():
        assert process.stdin
        process.stdin.close()
        process.wait()
    return seconds


def measure(checkouts: dict[str, Path], folder: str, case: str, *, rounds: int) -> dict[str, Any]:
    """Execute a case in turn on all arms, and compare."""
    found = []
    for number in range(rounds):
        first = number % len(ARMS)
        found.append(one_round(checkouts, folder, case, [*ARMS[first:], *ARMS[:first]]))
    before, again, after = ([seconds[arm] for seconds in found] for arm in ARMS)
    itself = [b / a for a, b in zip(before, again, strict=True)]
    ratios = [2 * c / (a + b) for a, b, c in zip(before, again, after, strict=True)]
    low, _, high = statistics.quantiles(itself, n=4)
    return {
        "what": case,
        "before_seconds": statistics.median(before + again),
        "after_seconds": statistics.median(after),
        "after_over_before": statistics.median(ratios),
        "before_over_itself": statistics.median(itself),
        "spread": (high - low) / 2,
        "rounds": rounds,
    }


def least_spread(
    checkouts: dict[str, Path], folder: str, case: str, *, rounds: int, tries: int
) -> dict[str, Any]:
    """Measure a case until a run is not void, or return the run of the least spread."""
    found: list[dict[str, Any]] = []
    while len(found) < tries:
        found.append(measure(checkouts, folder, case, rounds=rounds))
        if found[-1]["spread"] <= MOST_SPREAD:
            return found[-1] | {"void_runs": len(found) - 1, "is_void": False}
    least: dict[str, Any] = min(found, key=lambda row: float(row["spread"]))
    return least | {"void_runs": tries, "is_void": True}


def main() -> None:
    """Measure all cases and record them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tries", type=int, default=5, help="runs, until one is not void")
    parser.add_argument("--only", help="cases with this in their names; other rows are kept")
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.work:
        work(args.folder)
        return
    here = Path(__file__).parent.parent.resolve()
    folder = str(Path(args.folder).resolve())
    checkouts = {arm: here if arm == "after" else args.before.resolve() for arm in ARMS}
    path = args.results / "against_commit_cpu.json"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=args.before,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    rows = {}
    if args.only and path.exists():
        known = json.loads(path.read_text())
        if known["before"] != commit:
            parser.error(f"{path} compares with {known['before']}, not {commit}: leave out --only")
        rows = {row["what"]: row for row in known["rows"]}
    for case in cases(folder):
        if args.only and args.only not in case:
            continue
        row = least_spread(checkouts, folder, case, rounds=args.rounds, tries=args.tries)
        rows[case] = row
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                        for k, v in row.items()), flush=True)  # fmt: skip
    content = {"benchmark": "against_commit", "before": commit, "rows": list(rows.values())}
    args.results.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
