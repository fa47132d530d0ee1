import gzip
import importlib.util
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from vitral.data.datasets.names import BUILTIN

PUBLISHED = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts/build_fashion_mnist.py"
    spec = importlib.util.spec_from_file_location("build_fashion_mnist", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def idx_folder(tmp_path):
    """Three images and labels in the publisher's form: big-endian headers, then bytes."""
    images, labels = bytes(n % 256 for n in range(3 * 784)), bytes([9, 0, 4])
    header = struct.pack(">IIII", 0x0803, 3, 28, 28)
    files = {"images-idx3": header + images, "labels-idx1": struct.pack(">II", 0x0801, 3) + labels}
    for name, content in files.items():
        (tmp_path / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_the_publishers_files_are_read(script, idx_folder):
    images, labels = script.read_publisher_files(idx_folder, name="train")
    assert images.shape == (3, 28, 28)
    assert labels.tolist() == [9, 0, 4]
    np.testing.assert_array_equal(images.ravel(), np.arange(3 * 784) % 256)


def test_the_first_of_each_class_are_taken_in_order(script):
    labels = np.array([*range(10), *range(10), *range(10)])[::-1]
    chosen = script.first_of_each_class(labels, count=2)
    assert chosen.tolist() == list(range(20))


def test_the_built_in_file_is_what_the_script_makes(script, tmp_path, monkeypatch):
    folder = Path(os.environ.get("VITRAL_FASHION_MNIST", PUBLISHED))
    if not folder.is_dir():
        pytest.skip("needs the publisher's files: set VITRAL_FASHION_MNIST to their folder")
    monkeypatch.setattr(script, "OUTPUT_PATH", tmp_path / "made.npz")
    monkeypatch.setattr("sys.argv", ["build_fashion_mnist.py", str(folder)])
    script.main()
    with np.load(tmp_path / "made.npz") as made, np.load(BUILTIN["fashion-mnist"]) as builtin:
        assert made.files == builtin.files
        for name in made.files:
            np.testing.assert_array_equal(made[name], builtin[name])
