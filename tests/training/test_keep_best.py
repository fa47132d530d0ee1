"""Runs that keep the best model on the validation images, and early stopping."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import TINY_MODEL, write_patterns

import vitral
from vitral.errors import RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.files.rows import read_rows
from vitral.training.best import BestModel
from vitral.training.checkpoint import load_newest
from vitral.training.results import Result

PLAIN = {"augment.flip": False, "augment.crop": "none", "augment.mixup": 0.0}


def train_here(data: Path, output: Path, **settings: Any) -> Result:
    return vitral.train(
        "ViT-Mi/4",
        str(data),
        epochs=40,
        batch_size=16,
        learning_rate=0.2,  # too large: scores go up and down
        output=output,
        quiet=True,
        settings=TINY_MODEL
        | PLAIN
        | {"schedule.decay": "constant", "evaluation.keep_best": True}
        | {name.replace("__", "."): value for name, value in settings.items()},
    )


@pytest.fixture(scope="module")
def run(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    output = tmp_path_factory.mktemp("best") / "run"
    return train_here(patterns, output, evaluation__patience=4)


def test_the_result_is_the_model_of_the_best_row(run: Result, patterns: Path) -> None:
    rows = [row for row in read_rows(run.path / "metrics.jsonl") if row["split"] == "validation"]
    assert rows[0]["step"] == 0
    best = max(rows, key=lambda row: (row["accuracy"], -row["loss"], -row["step"]))
    assert run.summary["best_step"] == best["step"]
    summary = evaluate(run.path, str(patterns), split="validation").summary
    assert summary["accuracy"] == pytest.approx(best["accuracy"])
    assert summary["loss"] == pytest.approx(best["loss"], rel=1e-5)


def test_training_stops_when_nothing_better_comes(run: Result) -> None:
    rows = [row for row in read_rows(run.path / "metrics.jsonl") if row["split"] == "validation"]
    steps = [row["step"] for row in rows]
    assert steps.index(run.summary["best_step"]) == len(steps) - 1 - 4
    assert run.summary["steps"] == steps[-1] < 40 * 5
    assert run.summary["epochs"] == pytest.approx(steps[-1] / 5)
    log = (run.path / "log.txt").read_text()
    assert (
        f"stopped early at step {steps[-1]} of 200: 4 scores in a row were not as good; step "
        in log
    )


def test_a_run_that_stopped_early_does_not_go_on(
    run: Result, patterns: Path, tmp_path: Path
) -> None:
    """Neither if it is finished nor if it was killed before its result was written."""
    before = (run.path / "metrics.jsonl").read_bytes()
    saved, _ = load_newest(run.path / "checkpoints")
    assert saved is not None and saved.progress["step"] == run.summary["steps"]
    (run.path / "status.json").unlink()
    again = train_here(patterns, run.path, evaluation__patience=4)
    assert (run.path / "metrics.jsonl").read_bytes() == before
    assert again.summary == run.summary


def test_a_run_within_standard_errors_stops_and_does_not_go_on(
    patterns: Path, tmp_path: Path
) -> None:
    settings = {"evaluation__patience": 2, "evaluation__best_within": 0.5}
    result = train_here(patterns, tmp_path / "run", **settings)
    rows = [row for row in read_rows(result.path / "metrics.jsonl") if row["split"] == "validation"]
    replayed = BestModel(torch.nn.Linear(1, 1), within=0.5, num_images=20)
    for row in rows:
        assert not replayed.is_exhausted(2)
        score = (row["accuracy"], -row["loss"])
        replayed.consider(replayed.tensors, score=score, step=row["step"])
    assert replayed.is_exhausted(2)
    assert result.summary["best_step"] == replayed.step
    (result.path / "status.json").unlink()
    assert train_here(patterns, tmp_path / "run", **settings).summary == result.summary


def test_the_averaged_weights_are_what_is_kept(patterns: Path, tmp_path: Path) -> None:
    result = train_here(patterns, tmp_path / "run", train__ema_decay=0.9, evaluation__patience=2)
    rows = read_rows(result.path / "metrics.jsonl")
    averaged = [row for row in rows if row["split"] == "validation"]
    best = max(averaged, key=lambda row: (row["accuracy"], -row["loss"], -row["step"]))
    assert result.summary["best_step"] == best["step"]
    summary = evaluate(result.path, str(patterns), split="validation").summary
    assert summary["loss"] == pytest.approx(best["loss"], rel=1e-5)


def test_keeping_the_best_needs_validation_images(tmp_path: Path) -> None:
    data = write_patterns(tmp_path / "p.npz", counts=(60, 0, 20))
    with pytest.raises(RequestError, match="keep_best=true: .* has no validation images to score"):
        train_here(data, tmp_path / "run", data__validation_share=0.0)


def test_without_test_images_the_score_is_said_to_flatter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_patterns(tmp_path / "p.npz", counts=(60, 20, 0))
    settings = TINY_MODEL | {"evaluation.keep_best": True}
    result = vitral.train(
        "ViT-Mi/4", str(data), steps=2, output=tmp_path / "run", settings=settings
    )
    assert result.summary["split"] == "validation"
    assert "no test images: the score will be on the validation images" in capsys.readouterr().err
