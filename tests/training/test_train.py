"""`vitral.train` as a person calls it, and what it refuses."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.runs import TINY_MODEL, pattern_images
from torch import nn

import vitral
from vitral.config.settings import parse_settings
from vitral.data.dataset import open_dataset
from vitral.data.datasets import dtd
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError, DivergedError, ModelFileError, RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.files.rows import read_rows
from vitral.models.vit import ViT
from vitral.training.objectives.table import choose_objective
from vitral.training.resolve import resolve_run
from vitral.training.results import Result

SHORT: dict[str, Any] = {"steps": 6, "batch_size": 16, "quiet": True, "settings": TINY_MODEL}


def train_short(data: Any, output: Path, *, model: Any = "ViT-Mi/4", **options: Any) -> Result:
    return vitral.train(model, data, output=output, **(SHORT | options))


@pytest.fixture(scope="module")
def result(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run long enough to learn the patterns."""
    plain = {"augment.flip": False, "augment.crop": "none", "augment.mixup": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITRAL_REPORT")
        return vitral.train(
            "ViT-Mi/4",
            str(patterns),
            epochs=30,
            batch_size=16,
            learning_rate=5e-3,
            output=tmp_path_factory.mktemp("run") / "run",
            settings=TINY_MODEL | plain | {"train.ema": 0.05},
            quiet=True,
        )


def test_a_run_learns_easy_classes(result: Result) -> None:
    assert result.summary["accuracy"] > 0.9
    assert result.summary["split"] == "test"
    assert result.summary["num_examples"] == 20
    low, high = result.summary["accuracy_interval"]
    assert low < result.summary["accuracy"] <= high


def test_a_run_writes_what_the_design_says(result: Result) -> None:
    for name in (
        "config.yaml", "environment.json", "status.json", "metrics.jsonl", "results.csv",
        "timings.jsonl", "skipped.csv", "splits.csv", "summary.json", "data_report.json",
        "test_predictions.csv", "report.html", "curves.png", "confusion.png", "log.txt",
        "model/model.safetensors", "model/config.json", "model/reference.safetensors",
    ):  # fmt: skip
        assert (result.path / name).stat().st_size, name
    assert json.loads((result.path / "status.json").read_text())["state"] == "done"
    assert json.loads((result.path / "summary.json").read_text()) == result.summary


def test_loss_falls_and_every_row_has_its_columns(result: Result) -> None:
    rows = read_rows(result.path / "metrics.jsonl")
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    first = rows[0]
    assert set(first) == {
        "step", "epoch", "split", "loss", "accuracy", "learning_rate", "grad_norm",
    }  # fmt: skip
    assert {row["split"] for row in rows} == {"train", "validation", "validation_raw"}


def test_the_config_says_where_each_setting_came_from(result: Result) -> None:
    config = yaml.safe_load((result.path / "config.yaml").read_text())
    assert config["origin"]["optimizer.learning_rate"] == "option"
    assert config["origin"]["optimizer.weight_decay"] == "recipe"
    assert config["origin"]["optimizer.beta1"] == "default"
    assert config["origin"]["model.num_classes"] == "automatic"
    assert config["settings"]["optimizer"]["learning_rate"] == 5e-3
    assert config["recipe"]["name"] == "scratch-small"


def test_a_config_file_repeats_a_run(result: Result, tmp_path: Path) -> None:
    again = vitral.train(config=result.path / "config.yaml", output=tmp_path / "again", quiet=True)
    assert again.summary["loss"] == pytest.approx(result.summary["loss"], rel=1e-6)
    config = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())
    assert config["origin"]["optimizer.weight_decay"] == "file"


@pytest.mark.parametrize("objective", [None, "softmax"])
def test_a_file_may_set_the_objective_that_it_does_not_name(
    objective: str | None, patterns: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("objective: {label_smoothing: 0.25}\n")
    run = train_short(
        patterns, tmp_path / "run", config=tmp_path / "mine.yaml", objective=objective
    ).path
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["settings"]["objective"]["label_smoothing"] == 0.25
    assert config["origin"]["objective.label_smoothing"] == "file"
    # That of another objective stays with it.
    again = train_short(
        patterns, tmp_path / "again", config=run / "config.yaml", objective="sigmoid"
    ).path
    settings = yaml.safe_load((again / "config.yaml").read_text())["settings"]
    assert settings["objective"] == {"name": "sigmoid", "label_smoothing": 0.0}


@pytest.mark.parametrize(
    ("length", "origin"), [({"steps": 3}, "option"), ({"epochs": 1}, "option"), ({}, "recipe")]
)
def test_the_length_in_steps_has_the_origin_of_what_was_given(
    length: dict[str, int], origin: str, patterns: Path, tmp_path: Path
) -> None:
    given = {"data.source": str(patterns)} | {f"train.{name}": n for name, n in length.items()}
    resolved = resolve_run(
        open_dataset(patterns),
        model="ViT-Mi/4",
        objective=choose_objective("softmax"),
        recipe=None,
        settings=parse_settings(given),
    )
    assert resolved.origin["train.steps"] == origin
    assert resolved.origin["schedule.warmup_steps"] == "recipe"


def test_the_result_loads_as_a_model(result: Result) -> None:
    model = vitral.load_model(result.path)
    assert model.classes == ("a", "b", "c", "d")
    assert model.preprocessing.channels == 1
    reference = vitral.models.weights.folder.read_reference(result.path / "model")
    torch.testing.assert_close(model(reference["images"]), reference["logits"])
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(images), result.model(images))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    patterns: Path, tmp_path: Path
) -> None:
    weights = [
        (train_short(str(patterns), tmp_path / name, seed=seed).path / "model/model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, second, third = (path.read_bytes() for path in weights)
    assert first == second != third


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_number_of_workers_changes_nothing(
    patterns: Path, tmp_path: Path, workers: int
) -> None:
    base = train_short(str(patterns), tmp_path / "base")
    other = train_short(
        str(patterns), tmp_path / "other", settings=TINY_MODEL | {"data.workers": workers}
    )
    for name in ("model/model.safetensors", "metrics.jsonl"):
        assert (base.path / name).read_bytes() == (other.path / name).read_bytes()


def test_the_default_output_is_named_for_data_model_and_settings(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = vitral.train("ViT-Mi/4", str(patterns), **SHORT)
    assert result.path.parts[0] == "runs"
    assert result.path.name.startswith("patterns-vit-mi4-")
    assert len(result.path.name.rpartition("-")[2]) == 6


class Net(nn.Module):
    """A module of the caller's own."""

    def __init__(self, *, seed: int = 0, outputs: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def test_a_module_of_the_callers_own_trains_and_goes_on(patterns: Path, tmp_path: Path) -> None:
    options = {"settings": {}, "image_size": 8, "steps": 40, "learning_rate": 0.01}
    result = train_short(str(patterns), tmp_path / "run", model=Net(), **options)
    assert result.summary["model"] == "Net"
    assert result.summary["accuracy"] > 0.5
    again = train_short(str(patterns), tmp_path / "run", model=Net(), **options)
    assert again.summary == result.summary
    with pytest.raises(ModelFileError, match="holds the weights of your own module 'Net'"):
        vitral.load_model(result.path)


def test_other_starting_weights_are_another_run(patterns: Path, tmp_path: Path) -> None:
    options = {"settings": {}, "image_size": 8}
    train_short(str(patterns), tmp_path / "run", model=Net(), **options)
    with pytest.raises(RequestError, match="another model, objective or metric of your own"):
        train_short(str(patterns), tmp_path / "run", model=Net(seed=1), **options)


def test_runs_of_other_functions_have_other_folders(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def entropy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch["image"]), batch["label"])

    objectives = [lambda m, b: entropy(m, b) + 1, lambda m, b: entropy(m, b) + 2]
    paths = [
        vitral.train("ViT-Mi/4", str(patterns), objective=objective, **SHORT).path
        for objective in objectives
    ]
    assert paths[0] != paths[1]


def test_a_module_of_other_outputs_is_told_before_training(patterns: Path, tmp_path: Path) -> None:
    options = {"settings": {}, "image_size": 8}
    with pytest.raises(RequestError, match=r"gives outputs of shape \(2, 7\) for 2 images of 4"):
        train_short(str(patterns), tmp_path / "a", model=Net(outputs=7), **options)
    with pytest.raises(RequestError, match="does not take images of"):
        train_short(str(patterns), tmp_path / "b", model=Net(), settings={}, image_size=12)


def test_tied_weights_are_saved(patterns: Path, tmp_path: Path) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.layers

    train_short(str(patterns), tmp_path, model=Tied(), settings={}, image_size=8)
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_file_of_another_model_lends_no_architecture(
    patterns: Path, result: Result, tmp_path: Path
) -> None:
    config = result.path / "config.yaml"
    options = {"settings": {"model.depth": 1}, "steps": 20, "config": config, "image_size": 8}
    other = train_short(str(patterns), tmp_path, model="ViT-Ti/4", **options)
    assert isinstance(other.model, ViT)
    assert other.model.config.embed_dim == 192


def test_a_new_split_of_the_same_images_is_other_data(tmp_path: Path) -> None:
    images, labels = pattern_images(80)
    path = tmp_path / "d.npz"
    for number, cut in enumerate((60, 70)):
        split = np.array(["train"] * cut + ["test"] * (80 - cut))
        np.savez(path, images=images, labels=labels, split=split)
        if number == 0:
            train_short(path, tmp_path / "run")
        else:
            with pytest.raises(RequestError, match="the images have changed since"):
                train_short(path, tmp_path / "run")


def test_a_name_that_is_no_text_does_not_stop_a_run(tmp_path: Path) -> None:
    import os

    images, labels = pattern_images(40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "data" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / os.fsdecode(f"{number}".encode() + b"\xff.png"))
    result = train_short(tmp_path / "data", tmp_path / "run")
    again = evaluate(result.path, tmp_path / "data")
    assert again.summary["num_examples"] == result.summary["num_examples"]


def test_a_loaded_vit_trains_further(patterns: Path, result: Result, tmp_path: Path) -> None:
    again = train_short(str(patterns), tmp_path, model=vitral.load_model(result.path), settings={})
    assert again.summary["accuracy"] > 0.6
    assert vitral.load_model(tmp_path).classes == ("a", "b", "c", "d")


def test_a_vit_of_other_classes_is_refused(patterns: Path, tmp_path: Path) -> None:
    model = vitral.create_model("ViT-Mi/4", image_size=8, in_channels=1, num_classes=7)
    with pytest.raises(RequestError, match="a model of 7 classes for data of 4: build or load it"):
        train_short(str(patterns), tmp_path, model=model, settings={})


def test_an_output_that_can_not_be_made_is_told(patterns: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match=r"file can't be made \(File exists\)"):
        train_short(str(patterns), tmp_path / "file")


def test_model_settings_have_no_place_beside_a_module(patterns: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="model.depth has no effect on a model of your own"):
        train_short(str(patterns), tmp_path, model=Net(), settings={"model.depth": 2}, image_size=8)


def test_objective_and_metrics_may_be_functions(patterns: Path, tmp_path: Path) -> None:
    def squared(model: nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        wanted = nn.functional.one_hot(batch["label"], 4).float()
        loss = (model(batch["image"]) - wanted).square().mean(dim=1)
        return loss, {"root": loss.sqrt()}

    def margin(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["image"]).topk(2).values.diff().abs().mean()

    result = train_short(
        str(patterns), tmp_path, objective=squared, metrics={"margin": margin}, steps=10
    )
    rows = read_rows(result.path / "metrics.jsonl")
    assert all("root" in row for row in rows)
    assert all("margin" in row for row in rows if row["split"] == "validation")
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["settings"]["objective"]["name"] == "squared"
    assert json.loads((tmp_path / "model/config.json").read_text())["output"] == "softmax"


@pytest.mark.parametrize("how", ["setting", "file"])
def test_the_objective_may_come_from_settings(patterns: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "c.yaml").write_text("objective: {name: sigmoid}")
    options: dict[str, Any] = {
        "setting": {"settings": TINY_MODEL | {"objective.name": "sigmoid"}},
        "file": {"config": tmp_path / "c.yaml"},
    }[how]
    train_short(str(patterns), tmp_path / "run", **options)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["settings"]["objective"]["name"] == "sigmoid"
    assert json.loads((tmp_path / "run/model/config.json").read_text())["output"] == "sigmoid"


def test_data_and_model_may_come_from_settings(patterns: Path, tmp_path: Path) -> None:
    settings = TINY_MODEL | {"data.source": str(patterns), "model.name": "vit_mi4"}
    result = train_short(None, tmp_path, model=None, settings=settings)
    assert result.summary["model"] == "ViT-Mi/4"


def test_metrics_may_be_a_list_of_names_and_functions(patterns: Path, tmp_path: Path) -> None:
    def spread(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["image"]).std(dim=1)

    result = train_short(str(patterns), tmp_path, metrics=["top5", spread])
    rows = read_rows(result.path / "metrics.jsonl")
    scored = [row for row in rows if row["split"] == "validation"]
    assert all(row["top5"] == 1.0 for row in scored)  # of four classes
    assert all("spread" in row for row in scored)


def test_an_objective_of_a_wrong_shape_is_an_error(patterns: Path, tmp_path: Path) -> None:
    def wrong(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["image"])

    with pytest.raises(RequestError, match=r"an objective or metric of shape \(\d+, 4\)"):
        train_short(str(patterns), tmp_path, objective=wrong)


def test_sigmoid_cross_entropy_trains_and_predicts_independent_shares(
    patterns: Path, tmp_path: Path
) -> None:
    result = train_short(str(patterns), tmp_path, objective="sigmoid", epochs=20, steps=None)
    images, _ = pattern_images(1)
    shares = [share for _, share in vitral.Predictor(result.path, top=4)(images[0])[0].top]
    logits = vitral.load_model(result.path)(torch.from_numpy(images)[:, None].float() / 127.5 - 1)
    np.testing.assert_allclose(sorted(shares), sorted(logits.sigmoid()[0].tolist()), atol=1e-5)


def test_any_sized_object_is_data(tmp_path: Path) -> None:
    images, labels = pattern_images(120)
    examples = [(Image.fromarray(image), int(label)) for image, label in zip(images, labels)]  # noqa: B905
    result = train_short(examples, tmp_path)
    assert result.model.classes == ("0", "1", "2", "3")
    assert (
        sum(
            part["num_images"]
            for part in json.loads((tmp_path / "data_report.json").read_text())["splits"].values()
        )
        == 120
    )


def test_grey_files_train_a_model_of_one_channel(tmp_path: Path) -> None:
    images, labels = pattern_images(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "data" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    settings = TINY_MODEL | {"model.in_channels": 1}
    result = train_short(tmp_path / "data", tmp_path / "run", settings=settings)
    assert isinstance(result.model, ViT)
    assert result.model.embedding.weight.shape[1] == 1
    assert vitral.Predictor(result.path)(tmp_path / "data/class0/0.png")[0].class_name


def test_many_channels_come_from_arrays(tmp_path: Path) -> None:
    images, labels = pattern_images(60)
    bands = np.repeat(images[..., None], 5, axis=3)
    np.savez(tmp_path / "bands.npz", images=bands, labels=labels)
    result = train_short(tmp_path / "bands.npz", tmp_path / "run")
    assert isinstance(result.model, ViT)
    assert result.model.config.in_channels == 5
    assert len(result.model.preprocessing.mean) == 5
    assert vitral.Predictor(result.path)([bands[0]])[0].class_name


def test_a_diverging_run_stops_and_says_where(patterns: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"step \d+: not finite, first in .*; the batch was \d+"
    ):
        train_short(str(patterns), tmp_path, learning_rate=1e25, steps=30)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed"
    assert "not finite" in status["reason"]


def test_a_checkpoint_before_divergence_is_kept(patterns: Path, tmp_path: Path) -> None:
    def explode(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
        explode.calls += model.training  # type: ignore[attr-defined]
        return loss * (float("nan") if explode.calls > 4 else 1)  # type: ignore[attr-defined]

    explode.calls = 0  # type: ignore[attr-defined]
    settings = TINY_MODEL | {"checkpoint.every_steps": 1, "evaluation.every_epochs": 0}
    with pytest.raises(DivergedError, match="step 4: not finite, first in the loss"):
        train_short(str(patterns), tmp_path, objective=explode, settings=settings)
    assert vitral.load_model(tmp_path).config.depth == 2
    weights = vitral.load_model(tmp_path).state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def broken_folder(root: Path, *, good: int, bad: int) -> Path:
    images, labels = pattern_images(good)
    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    whole = (root / "train" / "class0" / "0.png").read_bytes()
    for number in range(bad):
        (root / "train" / "class0" / f"bad{number}.png").write_bytes(whole[: len(whole) // 2])
    return root


def test_unreadable_training_images_are_left_out_and_counted(tmp_path: Path) -> None:
    data = broken_folder(tmp_path / "data", good=60, bad=1)
    settings = TINY_MODEL | {"data.validation_share": 0.0}
    result = train_short(data, tmp_path / "run", settings=settings)
    report = json.loads((result.path / "data_report.json").read_text())
    assert report["splits"]["train"]["num_images"] == 60
    skipped = (result.path / "skipped.csv").read_text()
    assert "train/class0/bad0.png,image file is truncated" in skipped


def test_too_many_unreadable_training_images_stop_a_run(tmp_path: Path) -> None:
    data = broken_folder(tmp_path / "data", good=60, bad=2)
    with pytest.raises(DataError, match="2 of 62 training images can't be read, such as") as error:
        train_short(data, tmp_path / "run", settings=TINY_MODEL | {"data.validation_share": 0.0})
    assert error.value.exit_status == 3
    settings = TINY_MODEL | {"data.validation_share": 0.0, "data.max_unreadable": 0.05}
    train_short(data, tmp_path / "other", settings=settings)


def test_unreadable_test_images_stay_in_the_denominator_and_the_rows(tmp_path: Path) -> None:
    data = broken_folder(tmp_path / "data", good=60, bad=0)
    (data / "test" / "class1" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    result = train_short(data, tmp_path / "run")
    assert result.summary["num_examples"] == 59
    assert result.summary["num_skipped"] == 1
    rows = (result.path / "test_predictions.csv").read_text().splitlines()
    assert len(rows) == 61
    assert any(row.startswith("test/class1/1.png,,,,") for row in rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "ViT-Q/4"}, "there is no model 'ViT-Q/4'"),
        ({"recipe": "scratch-smal"}, "did you mean 'scratch-small'"),
        ({"metrics": ["topp5"]}, "there is no metric 'topp5': did you mean 'top5'"),
        ({"objective": "softmx"}, "there is no objective 'softmx': did you mean 'softmax'"),
        ({"epochs": 2}, "both say how long"),
        ({"settings": {"train.epochs": 2}}, "both say how long"),
        ({"steps": None, "epochs": 0}, "epochs=0.0 must be above 0"),
        ({"steps": None, "epochs": float("nan")}, "epochs=nan must be above 0"),
        ({"settings": {"model.name": "ViT-S/4"}}, "has no effect beside another model"),
        ({"precision": "foo"}, "precision='foo' is not known"),
        ({"device": "cpu:x"}, "device='cpu:x' is not known"),
        ({"settings": {"optimizer.lr": 1}}, "there is no setting 'optimizer.lr'"),
        ({"device": "tpu"}, "device='tpu' is not known"),
        ({"precision": "float16"}, "float16 is not offered"),
        ({"compile": "maybe"}, "compile='maybe' is not known"),
        ({"batch_size": 0}, "batch_size=0 must be above 0"),
        ({"settings": {"model.num_classes": 7}}, "does not fit data of 4 classes"),
        ({"settings": {"schedule.warmup_steps": 9}}, "leaves nothing of train.steps=6"),
        ({"config": "nowhere.yaml"}, "--config nowhere.yaml can't be read"),
    ],
)
def test_wrong_requests_are_told(
    patterns: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said) as error:
        train_short(str(patterns), tmp_path / "run", **options)
    assert error.value.exit_status == 2


def test_data_without_training_images_is_an_error(tmp_path: Path) -> None:
    images, labels = pattern_images(20)
    split = np.array(["validation", "test"] * 10)
    np.savez(tmp_path / "d.npz", images=images, labels=labels, split=split)
    with pytest.raises(DataError, match="has no training images: it has validation, test only"):
        train_short(tmp_path / "d.npz", tmp_path / "run")


def test_a_patch_that_does_not_tile_is_said(
    patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_short(str(patterns), tmp_path, model="ViT-Mi/3", quiet=False)
    assert "patches of 3 x 3 do not tile images of 8 x 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"augment.crop": "none", "augment.min_area": 0.5}, "augment.min_area=0.5 has no effect"),
        ({"augment.crop": "none", "augment.shift": 0.2}, "augment.shift=0.2 has no effect"),
    ],
)
def test_settings_without_effect_are_told(
    patterns: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        train_short(str(patterns), tmp_path, settings=TINY_MODEL | settings)


@pytest.mark.parametrize("recipe", ["scratch-small", "scratch-medium", "scratch-large"])
@pytest.mark.parametrize("crop", ["none", "shift", "inception"])
def test_a_recipe_gives_way_to_what_was_asked_for(
    patterns: Path, tmp_path: Path, recipe: str, crop: str
) -> None:
    settings = TINY_MODEL | {"augment.crop": crop}
    train_short(str(patterns), tmp_path, recipe=recipe, settings=settings, steps=2)


def test_a_function_of_the_callers_own_gets_plain_labels(patterns: Path, tmp_path: Path) -> None:
    seen: set[str] = set()

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.update(batch)
        return nn.functional.cross_entropy(model(batch["image"]), batch["label"])

    train_short(str(patterns), tmp_path / "a", objective=loss, recipe="scratch-medium")
    assert "mix_label" not in seen
    settings = TINY_MODEL | {"augment.mixup": 0.2}
    train_short(str(patterns), tmp_path / "b", objective=loss, settings=settings)
    assert "mix_label" in seen
    settings = TINY_MODEL | {"objective.label_smoothing": 0.1}
    with pytest.raises(RequestError, match="label_smoothing has no effect on the objective 'loss'"):
        train_short(str(patterns), tmp_path / "c", objective=loss, settings=settings)


def test_a_sweep_can_leave_the_reports_out(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRAL_REPORT", "off")
    assert not (train_short(patterns, tmp_path).path / "report.html").exists()
    monkeypatch.setenv("VITRAL_REPORT", "on")
    assert (train_short(patterns, tmp_path).path / "report.html").exists()
    monkeypatch.setenv("VITRAL_REPORT", "no")
    with pytest.raises(RequestError, match="VITRAL_REPORT='no' is not known: use one of on, off"):
        train_short(patterns, tmp_path)


@pytest.mark.usefixtures("with_report")
def test_two_images_train_and_the_report_says_that_there_is_no_score(tmp_path: Path) -> None:
    for label, image in zip("ab", pattern_images(2)[0], strict=True):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "data" / label / "1.png")
    result = train_short(tmp_path / "data", tmp_path / "run")
    assert result.summary["accuracy"] is None
    assert "There is no score" in (tmp_path / "run" / "report.html").read_text()


def test_a_test_split_without_a_readable_image_gives_no_score(tmp_path: Path) -> None:
    data = broken_folder(tmp_path / "data", good=20, bad=0)
    for file in (data / "test").rglob("*.png"):
        file.unlink()
    (data / "test" / "class0" / "only.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    settings = TINY_MODEL | {"data.validation_share": 0.0}
    result = train_short(data, tmp_path / "run", settings=settings)
    assert result.summary["accuracy"] is None


def test_a_run_on_a_fold_tests_that_fold(tmp_path: Path) -> None:
    images, labels = pattern_images(120)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    tested: list[str] = []
    for fold in range(2):
        settings = TINY_MODEL | {"data.folds": 2, "data.fold": fold}
        result = train_short(tmp_path / "a.npz", tmp_path / str(fold), settings=settings, steps=1)
        rows = list(csv.DictReader((result.path / "splits.csv").read_text().splitlines()))
        paths = [row["path"] for row in rows if row["split"] == "test"]
        assert result.summary["num_examples"] == len(paths)
        tested += paths
    assert len(set(tested)) == len(tested) == 120


def test_images_on_both_sides_are_told_before_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = pattern_images(40)
    split = np.repeat(["train", "test"], 20)
    images[20], labels[20] = images[3], labels[3]
    np.savez(tmp_path / "a.npz", images=images, labels=labels, split=split)
    result = train_short(tmp_path / "a.npz", tmp_path / "run", steps=1, quiet=False)
    assert "warning: 1 image of one split is a copy of another split's" in capsys.readouterr().err
    report = json.loads((result.path / "data_report.json").read_text())
    kinds = {problem["kind"] for problem in report["problems"]}
    assert "across_splits" in kinds


def test_changes_that_would_make_another_class_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "vtab-1k" / "dtd"
    images, labels = pattern_images(30)
    for first, name in ((0, "train800"), (10, "val200"), (20, "test")):
        (root / "images" / name).mkdir(parents=True)
        rows = [f"images/{name}/{n}.png {labels[n]}" for n in range(first, first + 10)]
        (root / f"{name}.txt").write_text("\n".join(rows))
        for number in range(first, first + 10):
            Image.fromarray(images[number]).save(root / "images" / name / f"{number}.png")
    task = dataclasses.replace(TASKS["dtd"], flip=False, crop=False)
    monkeypatch.setitem(dtd.TASKS, "dtd", task)
    settings = {"data.directory": str(tmp_path)} | TINY_MODEL
    result = train_short("vtab-dtd", tmp_path / "run", settings=settings, steps=1)

    def augment(run: Result) -> dict[str, Any]:
        config = yaml.safe_load((run.path / "config.yaml").read_text())
        return dict(config["settings"]["augment"])

    assert (augment(result)["flip"], augment(result)["crop"]) == (False, "none")
    overrides = settings | {"augment.flip": True}
    other = train_short("vtab-dtd", tmp_path / "asked", settings=overrides, steps=1)
    assert augment(other)["flip"] is True


@pytest.fixture(scope="module")
def picture_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures in class folders."""
    root = tmp_path_factory.mktemp("pictures")
    images, labels = pattern_images(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / "abcd"[label] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).convert("RGB").save(path)
    return root


def test_small_images_are_decoded_once_and_change_nothing(
    picture_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for keep in ("auto", "off"):
        settings = TINY_MODEL | {"data.keep_decoded": keep}
        result = train_short(picture_files, tmp_path / keep, settings=settings, quiet=False)
        stderr = capsys.readouterr().err
        assert ("decoded images are kept in memory (0 MB)" in stderr) == (keep == "auto")
        losses.append([row["loss"] for row in read_rows(result.path / "metrics.jsonl")])
    assert losses[0] == losses[1]


def test_images_that_do_not_fit_are_not_kept(
    picture_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vitral.runtime.device.free_memory_bytes", lambda: 100)
    train_short(picture_files, tmp_path / "run", steps=1, quiet=False)
    assert "kept in memory" not in capsys.readouterr().err


def test_scaled_decoding_trains_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = pattern_images(40, side=64)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "data" / "abcd"[label] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB").save(path)
    settings = TINY_MODEL | {"data.scaled_decoding": True}
    result = train_short(tmp_path / "data", tmp_path / "run", settings=settings, quiet=False)
    assert "kept in memory" not in capsys.readouterr().err
    assert np.isfinite(result.summary["loss"])


def test_a_model_that_waits_for_data_is_told_why_once(
    picture_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vitral.training.meters.WAIT_SHARE", -1.0)
    monkeypatch.setattr("vitral.training.meters.WARM_STEPS", 3)
    settings = TINY_MODEL | {"data.keep_decoded": "off", "train.log_every_steps": 1}
    result = train_short(picture_files, tmp_path / "run", settings=settings, quiet=False)
    stderr = capsys.readouterr().err
    assert stderr.count("the model waits for data") == 1
    assert "takes most" in stderr
    assert "the model waits for data" in (result.path / "log.txt").read_text()


def test_a_model_that_does_not_wait_is_told_nothing(
    picture_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vitral.training.meters.WAIT_SHARE", 1.0)
    train_short(picture_files, tmp_path / "run", quiet=False)
    assert "waits for data" not in capsys.readouterr().err


def test_the_first_steps_give_no_advice(
    picture_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vitral.training.meters.WAIT_SHARE", -1.0)
    train_short(picture_files, tmp_path / "run", quiet=False)
    assert "waits for data" not in capsys.readouterr().err


def test_advice_that_can_not_be_given_stops_no_training(
    picture_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DataError("no image of the sample can be read")

    monkeypatch.setattr("vitral.training.meters.WAIT_SHARE", -1.0)
    monkeypatch.setattr("vitral.training.meters.WARM_STEPS", 0)
    monkeypatch.setattr("vitral.training.meters.profile_loading", fail)
    settings = TINY_MODEL | {"data.keep_decoded": "off"}
    assert train_short(picture_files, tmp_path / "run", settings=settings).summary


def test_a_run_on_a_fold_is_known_again_after_its_data_was_moved(tmp_path: Path) -> None:
    images, labels = pattern_images(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "data" / "abcd"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB").save(path)
    settings = TINY_MODEL | {"data.folds": 4, "data.fold": 1}
    result = train_short(tmp_path / "data", tmp_path / "run", settings=settings, steps=1)
    (tmp_path / "data").rename(tmp_path / "moved")
    again = evaluate(result.path, tmp_path / "moved")
    assert again.summary["split"] == "test"
    assert again.summary["num_examples"] == result.summary["num_examples"]
    (result.path / "splits.csv").unlink()
    with pytest.raises(RequestError, match="into 4 folds, of which fold 1 is the test, and its"):
        evaluate(result.path, tmp_path / "moved")
