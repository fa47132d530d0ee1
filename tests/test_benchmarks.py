"""The page on speed shows the recorded results, and the scripts that measure run."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def page_writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_page", ROOT / "benchmarks/write_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_on_speed_shows_the_recorded_results() -> None:
    assert (ROOT / "docs/speed.md").read_text() == page_writer().write_page()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "script",
    [
        "model_speed",
        "resnet_speed",
        "loader_speed",
        "fewshot_speed",
        "features_speed",
        "inspect_speed",
        "start_up",
        "memory",
        "against_commit",
    ],
)
def test_benchmarks_run_and_their_results_fit_the_page(script: str, tmp_path: Path) -> None:
    if script in ("model_speed", "resnet_speed"):
        pytest.importorskip("transformers", reason="needs pip install '.[benchmark]'")
    generator = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "photos" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    reads = ("loader_speed", "features_speed")
    own = [str(tmp_path / "photos")] if script in reads else []
    # Compiling takes minutes.
    own += ["--modes", "eager"] if script == "resnet_speed" else []
    own += ["--small"] if script == "inspect_speed" else []
    if script == "against_commit":
        own += [str(ROOT), str(tmp_path / "photos"), "--only", "inference, ViT-Mi", "--tries", "1"]
    own += ["--cases", "1"] if script == "fewshot_speed" else []
    own += ["--images", "4", "--batch", "2"] if script == "features_speed" else []
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *own]
    options = ["--rounds", "2", "--results", str(tmp_path / "results")]
    finished = subprocess.run([*command, *options], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert any(word in finished.stdout for word in ("ratio", "peak", "spread"))
    assert len(page_writer().write_page(tmp_path / "results")) > len(page_writer().HEAD)
