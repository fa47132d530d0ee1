"""Few-shot scores during training."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import TINY_MODEL, pattern_images, write_patterns
from torch import nn

import vitral
from vitral.data.datasets import dtd
from vitral.data.datasets.table import TASKS
from vitral.errors import RequestError
from vitral.evaluate.frozen.fewshot import score_fewshot
from vitral.evaluate.frozen.task import open_model, open_task
from vitral.files.rows import read_rows
from vitral.training.fewshot import FewshotScorer
from vitral.training.results import Result


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Images that are not trained on."""
    return write_patterns(tmp_path / "other.npz", seed=7)


def train_short(
    data: Path,
    output: Path,
    fewshot: str | Path = "",
    *,
    recipe: str | None = None,
    **settings: Any,
) -> Result:
    fewshot_settings = {"evaluation.fewshot": str(fewshot)} if fewshot else {}
    return vitral.train(
        "ViT-Mi/4", str(data), output=output, steps=15, batch_size=16, quiet=True,
        settings=TINY_MODEL | fewshot_settings | settings, recipe=recipe,
    )  # fmt: skip


def fewshot_rows(run: Path) -> list[dict[str, Any]]:
    rows = read_rows(run / "metrics.jsonl")
    return [row for row in rows if row["split"].endswith("-shot")]


@pytest.mark.usefixtures("with_report")
def test_every_evaluation_writes_a_row_a_number_of_shots(
    patterns: Path, other: Path, tmp_path: Path
) -> None:
    settings = {"evaluation.fewshot_shots": "1,5"}
    result = train_short(patterns, tmp_path / "run", other, **settings)
    rows = fewshot_rows(result.path)
    assert [(row["step"], row["split"]) for row in rows] == [
        (step, f"other/{shots}-shot") for step in (5, 10, 15) for shots in (1, 5)
    ]
    assert all(set(row) == {"step", "epoch", "split", "accuracy"} for row in rows)
    with (result.path / "results.csv").open() as file:
        table = [row for row in csv.DictReader(file) if row["split"] == "other/5-shot"]
    assert [float(row["accuracy"]) for row in table] == [row["accuracy"] for row in rows[1::2]]
    assert result.summary["fewshot"] == {row["split"]: row["accuracy"] for row in rows[-2:]}
    model, task = open_model(result.path, device="cpu"), open_task(other, channels=1)
    means = score_fewshot(model, task, shots=[1, 5], controls=False).rows[-2:]
    assert [row.value for row in means] == pytest.approx(list(result.summary["fewshot"].values()))
    assert (result.path / "report.html").exists()


@pytest.mark.parametrize("settings", [{"train.ema": 0.1}, {"evaluation.keep_best": True}])
def test_scores_are_of_the_weights_that_count_and_move_none(
    patterns: Path, other: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    scored = train_short(patterns, tmp_path / "scored", other, **settings)
    plain = train_short(patterns, tmp_path / "plain", **settings)
    model, task = open_model(scored.path, device="cpu"), open_task(other, channels=1)
    mean = score_fewshot(model, task, shots=[5], controls=False).rows[-1]
    assert scored.summary["fewshot"] == pytest.approx({"other/5-shot": mean.value})
    name = "model/model.safetensors"
    assert (scored.path / name).read_bytes() == (plain.path / name).read_bytes()
    rows = [row for row in read_rows(scored.path / "metrics.jsonl") if "shot" not in row["split"]]
    assert rows == read_rows(plain.path / "metrics.jsonl")
    if "train.ema" in settings:
        assert fewshot_rows(scored.path)[-1]["accuracy"] == pytest.approx(mean.value)


@pytest.mark.parametrize(
    ("recipe", "settings", "steps"),
    [
        (None, {"evaluation.every_epochs": 2.0}, [10, 15]),
        ("paper-finetune", {}, [15]),  # it scores at the end alone
    ],
)
def test_a_run_without_validation_is_scored_all_the_same(
    other: Path, tmp_path: Path, recipe: str | None, settings: dict[str, Any], steps: list[int]
) -> None:
    images, labels = pattern_images(100)
    split = np.repeat(["train", "test"], [80, 20])
    np.savez(tmp_path / "d.npz", images=images, labels=labels, split=split)
    settings = settings | {"data.validation_share": 0.0}
    result = train_short(tmp_path / "d.npz", tmp_path / "run", other, recipe=recipe, **settings)
    assert [row["step"] for row in fewshot_rows(result.path)] == steps


def test_a_run_that_goes_on_writes_the_same_rows(
    patterns: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"checkpoint.every_steps": 3, "train.ema": 0.1}
    unbroken = train_short(patterns, tmp_path / "unbroken", other, **settings)
    scores, calls = FewshotScorer.scores, 0

    def stop_once(self: FewshotScorer, model: nn.Module) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return scores(self, model)

    monkeypatch.setattr(FewshotScorer, "scores", stop_once)
    with pytest.raises(KeyboardInterrupt):
        train_short(patterns, tmp_path / "broken", other, **settings)
    again = train_short(patterns, tmp_path / "broken", other, **settings)
    for name in ("metrics.jsonl", "results.csv", "summary.json"):
        assert (again.path / name).read_bytes() == (unbroken.path / name).read_bytes()


def test_a_finished_run_needs_its_few_shot_data_no_more(
    patterns: Path, other: Path, tmp_path: Path
) -> None:
    first = train_short(patterns, tmp_path / "run", other)
    other.unlink()
    assert train_short(patterns, tmp_path / "run", other).summary == first.summary


@pytest.mark.parametrize(
    ("fewshot", "settings", "said"),
    [
        ("fashion-mist", {}, "there is no folder, file or data set 'fashion-mist': did you mean"),
        ("nowhere.npz", {}, "there is nothing at nowhere.npz"),
        ("patterns.npz, b/patterns.npz", {}, "names 'patterns' twice: give each once"),
        ("patterns.npz", {"evaluation.fewshot_shots": (30,)}, "shots=30: class 'a' has 20 train"),
        ("patterns.npz", {"evaluation.fewshot_shots": (0,)}, "fewshot_shots=0 must be above 0"),
        ("patterns.npz", {"evaluation.fewshot_shots": ()}, "fewshot_shots is empty"),
        ("", {"evaluation.fewshot_shots": (1,)}, r"fewshot_shots=\(1,\) has no effect without few"),
    ],
)
def test_mistakes_are_told_before_training(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewshot: str,
    settings: dict[str, Any], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(patterns.parent)
    with pytest.raises(RequestError, match=said):
        train_short(patterns, tmp_path / "run", fewshot, **settings)
    assert not (tmp_path / "run").exists()


def test_a_model_of_ones_own_has_no_features(patterns: Path, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(RequestError, match="needs features, which a model of your own does not"):
        vitral.train(
            network, str(patterns), image_size=8, steps=2, output=tmp_path / "run", quiet=True,
            settings={"evaluation.fewshot": str(patterns)},
        )  # fmt: skip


def test_a_model_of_ours_that_is_given_is_scored(
    patterns: Path, other: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = vitral.create_model(
        "ViT-Mi/4", image_size=8, in_channels=1, num_classes=4, embed_dim=16, depth=1, num_heads=2,
        mlp_dim=32,
    )  # fmt: skip
    settings = {"evaluation.fewshot": str(other)}
    result = vitral.train(
        network, str(patterns), steps=2, output=tmp_path / "run", quiet=True, settings=settings
    )
    assert set(result.summary["fewshot"]) == {"other/5-shot"}


def test_published_data_sets_are_found_where_the_run_says(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside data of one's own, which needs no such folder."""
    root = tmp_path / "vtab-1k" / "dtd"
    images, labels = pattern_images(60)
    for first, name in ((0, "train800"), (20, "val200"), (40, "test")):
        (root / "images" / name).mkdir(parents=True)
        rows = [f"images/{name}/{n}.png {labels[n]}" for n in range(first, first + 20)]
        (root / f"{name}.txt").write_text("\n".join(rows))
        for number in range(first, first + 20):
            Image.fromarray(images[number]).save(root / "images" / name / f"{number}.png")
    task = dataclasses.replace(TASKS["dtd"], num_classes=4)
    monkeypatch.setitem(dtd.TASKS, "dtd", task)
    settings = {"data.directory": str(tmp_path), "evaluation.fewshot_shots": (2,)}
    result = train_short(patterns, tmp_path / "run", "vtab-dtd", **settings)
    assert set(result.summary["fewshot"]) == {"vtab-dtd/2-shot"}


@pytest.mark.slow
def test_two_processes_write_the_rows_of_one(patterns: Path, other: Path, tmp_path: Path) -> None:
    """The first process scores while the other waits."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    rows = []
    for name, launch in (("one", []), ("two", launcher)):
        sets = TINY_MODEL | {"evaluation.fewshot": str(other)}
        command = [
            sys.executable, *launch, "-m", "vitral", "train", str(patterns), "--model", "ViT-Mi/4",
            "--steps", "10", "--batch-size", "16", "--device", "cpu",
            "--output", str(tmp_path / name), *(f"--set={path}={v}" for path, v in sets.items()),
        ]  # fmt: skip
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        rows.append([(row["step"], row["accuracy"]) for row in fewshot_rows(tmp_path / name)])
    assert len(rows[0]) == 2
    np.testing.assert_allclose(rows[1], rows[0], atol=0.05)
