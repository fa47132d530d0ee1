"""The same bytes give the same tensor on every path into a model; deviations are reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import vitral
from vitral.cli.main import main
from vitral.config.preprocessing import change_preprocessing, default_preprocessing
from vitral.data.dataset import open_dataset
from vitral.data.device_transforms import prepare_on_device
from vitral.data.loader import evaluation_batches
from vitral.errors import RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.models.model import Model

HOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a share is cut": {"crop_share": 0.875},
    "both sides": {"resize": "squash", "interpolation": "bicubic"},
    "as TensorFlow": {"geometry": "tensorflow", "interpolation": "area", "rounding": "truncate"},
    "of the official code": {"antialias": False, "rounding": "none"},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Real photographs and odd files, in class folders of a test split."""
    import tarfile

    root = tmp_path_factory.mktemp("paths") / "photos"
    with tarfile.open(shared / "data/stress/images.tar") as tar:
        names = ["pillow/hopper.jpg", "pillow/hopper_gray.jpg", "pillow/hopper.webp",
                 *(f"pillow/hopper_orientation_{n}.jpg" for n in range(2, 9))]  # fmt: skip
        for number, name in enumerate(names):
            for split in ("train", "test"):
                path = root / split / "ab"[number % 2] / f"{number}-{Path(name).name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(name).read())  # type: ignore[union-attr]
    return root


class Recorder:
    """Records every batch that a model receives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[Tensor] = []
        forward = nn.Module.__call__

        def call(module: nn.Module, *arguments: Any, **options: Any) -> Any:
            if isinstance(module, Model):
                self.given.append(arguments[0].detach().clone())
            return forward(module, *arguments, **options)

        monkeypatch.setattr(nn.Module, "__call__", call)

    def take(self) -> Tensor:
        """Return all images since the last call."""
        images, self.given = torch.cat(self.given), []
        return images


def build(how: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    model = vitral.create_model("ViT-Mi/8", image_size=32, num_classes=2)
    model.preprocessing = default_preprocessing((32, 32), channels=3, **how)
    model.classes = ("a", "b")
    vitral.save_model(model, folder)
    return folder


@pytest.mark.parametrize("how", HOWS)
def test_every_way_gives_the_same_tensor(
    how: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(HOWS[how], tmp_path / "model")
    model = vitral.load_model(path)
    examples = open_dataset(photos).splits["test"]
    files = [str(photos / examples.name(n)) for n in range(len(examples))]
    # Training-time evaluation.
    loaded = evaluation_batches(
        examples, preprocessing=model.preprocessing, batch_size=4, errors={}, workers=2
    )
    cpu = torch.device("cpu")
    ready = [
        prepare_on_device(b, device=cpu, preprocessing=model.preprocessing)["image"] for b in loaded
    ]
    wanted = torch.cat(ready)
    assert len(wanted) == len(files) == 10
    seen = Recorder(monkeypatch)
    evaluate(path, photos)
    assert torch.equal(seen.take(), wanted)
    vitral.Predictor(path, precision="float32")(files)
    assert torch.equal(seen.take(), wanted)
    vitral.Predictor(model)([Image.open(file) for file in files])
    assert torch.equal(seen.take(), wanted)
    assert main(["predict", str(path), *files, "--output", str(tmp_path / "a.csv")]) == 0
    assert torch.equal(seen.take(), wanted)
    # What a run evaluates itself with, and what its folder holds.
    settings = {f"preprocessing.{name}": value for name, value in HOWS[how].items()}
    run = vitral.train(
        "ViT-Mi/8", photos, image_size=32, steps=1, batch_size=4, output=tmp_path / "run",
        settings={"model.embed_dim": 16, "model.num_heads": 2, "model.mlp_dim": 16,
                  "model.depth": 1, "data.validation_share": 0.0, **settings},
        quiet=True,
    )  # fmt: skip
    seen.take()
    evaluate(run.path, photos)
    assert torch.equal(seen.take(), wanted)
    assert vitral.load_model(run.path).preprocessing == model.preprocessing


CHANGE = "preprocessing.crop_share=0.5"


def test_another_preprocessing_is_asked_for_and_both_are_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = build({}, tmp_path / "model")
    seen = Recorder(monkeypatch)
    files = sorted(map(str, (photos / "test").rglob("*.jpg")))
    vitral.Predictor(path, preprocessing={"crop_share": 0.5})(files)
    changed = seen.take()
    stderr = capsys.readouterr().err
    assert "not the model's own preprocessing (shorter to 32 x 32, bilinear" in stderr
    assert "crop_share=0.5 instead of 1.0" in stderr
    vitral.Predictor(path)(files)
    assert not torch.equal(seen.take(), changed)
    assert capsys.readouterr().err == ""
    assert main(["predict", str(path), *files, "--set", CHANGE, "--json"]) == 0
    captured = capsys.readouterr()
    assert "crop_share=0.5 instead of 1.0" in captured.err
    assert len(json.loads(captured.out)["predictions"]) == len(files)
    assert torch.equal(seen.take(), changed)
    assert main(["evaluate", str(path), str(photos), "--set", CHANGE]) == 0
    assert "crop_share=0.5 instead of 1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 0.5}, "preprocessing has no field 'crop': did you mean 'crop_share'"),
        ({"crop_share": 2.0}, "crop_share=2.0: give a share above 0"),
        ({"size": (64, 64)}, r"preprocessing.size=\(64, 64\) is the model's to decide"),
        ({"channels": 1}, "preprocessing.channels=1 is the model's to decide, which takes 3"),
    ],
)
def test_a_change_that_can_not_be_is_an_error(changes: dict[str, Any], message: str) -> None:
    preprocessing = default_preprocessing((32, 32), channels=3)
    with pytest.raises(RequestError, match=message):
        change_preprocessing(preprocessing, changes)


def test_other_settings_have_no_effect_on_a_finished_model(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build({}, tmp_path / "model")
    assert main(["evaluate", str(path), str(photos), "--set", "train.seed=1"]) == 2
    assert "train.seed has no effect here: only preprocessing" in capsys.readouterr().err


def test_a_size_and_range_that_are_the_models_own_may_be_said() -> None:
    preprocessing = default_preprocessing((32, 32), channels=3)
    assert change_preprocessing(preprocessing, {"size": (32, 32)}) == preprocessing
    other = change_preprocessing(preprocessing, {"mean": (0.0, 0.0, 0.0)})
    assert np.allclose(other.mean, 0)
