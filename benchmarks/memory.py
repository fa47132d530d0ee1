"""Measure the peak memory of training runs for growing data and epochs: it must not grow.

python benchmarks/memory.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from interleave import options, record
from PIL import Image

# Images, epochs.
CASES = ((500, 1), (500, 4), (4000, 1), (4000, 4))
SIZE = 64
TINY = ("model.embed_dim=64", "model.depth=2", "model.num_heads=2", "model.mlp_dim=128")


def write_images(folder: Path, count: int) -> None:
    """Write noise JPEGs in two class folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        class_folder = folder / f"class{number % 2}"
        class_folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(class_folder / f"{number}.jpg")


def train(folder: Path, output: Path, *, epochs: int) -> float:
    """Train in a separate process and return its peak resident memory in MB."""
    code = (
        "import resource, sys; from vitral.cli.main import main; status = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); "
        "sys.exit(status)"
    )
    sets = [f"--set={setting}" for setting in TINY]
    options = [
        "--model",
        "ViT-Mi/8",
        "--epochs",
        str(epochs),
        "--batch-size",
        "64",
        "--output",
        str(output),
    ]
    command = [sys.executable, "-c", code, "train", str(folder), *options, *sets]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads((output / "status.json").read_text())["state"] == "done"
    kilobytes = int(finished.stderr.splitlines()[-1])
    return kilobytes / 1024 if sys.platform != "darwin" else kilobytes / 1024**2


def main() -> None:
    """Measure and record."""
    args = options(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        for count, epochs in CASES:
            folder = Path(root) / f"images{count}"
            if not folder.exists():
                write_images(folder, count)
            peak = train(folder, Path(root) / f"run{count}-{epochs}", epochs=epochs)
            rows.append({"images": count, "epochs": epochs, "peak_megabytes": peak})
    record("memory", rows, args=args)


if __name__ == "__main__":
    main()
