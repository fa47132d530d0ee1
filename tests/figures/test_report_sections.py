import json
from pathlib import Path

import numpy as np
import pytest

from vitral.figures.report_sections import (
    mistakes_section,
    origins_section,
    training_section,
    usage_section,
)


def _write(run_dir, rows):
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _row(step, split, loss, accuracy=0.5):
    return {"step": step, "epoch": step / 10, "split": split, "loss": loss, "accuracy": accuracy}


def test_where_the_curves_end_and_where_validation_was_best_is_told(run_dir, part_of):
    train = [_row(step, "train", 3 / step, step / 40) for step in (10, 20, 30)]
    validation = [
        _row(10, "validation", 0.9),
        _row(20, "validation", 0.4),
        _row(30, "validation", 0.6),
    ]
    _write(run_dir, train + validation)
    text = part_of(run_dir, training_section).text
    assert "At step 30 the training loss was 0.100, accuracy 75.0 %." in text
    assert "At step 30 the validation loss was 0.600, accuracy 50.0 %." in text
    assert "The validation loss was least, 0.400, after epoch 2." in text


def test_a_run_without_validation_says_so(run_dir, part_of):
    _write(run_dir, [_row(10, "train", 1.0, None)])
    text = part_of(run_dir, training_section).text
    assert "At step 10 the training loss was 1.000. No validation was measured" in text


def test_losses_that_are_not_numbers_are_left_out_of_the_words(run_dir, part_of):
    _write(run_dir, [_row(s, "validation", float("nan") if s == 10 else 1.0) for s in (10, 20, 30)])
    assert "least, 1.000, after epoch 2" in part_of(run_dir, training_section).text


def test_smoothing_is_told_where_it_is_done(run_dir, part_of):
    _write(run_dir, [_row(step, "train", 1.0) for step in range(1, 61)])
    assert "neighbouring" not in part_of(run_dir, training_section).text
    _write(run_dir, [_row(step, "train", 1.0) for step in range(1, 122)])
    assert "Bold: mean of 5 neighbouring" in part_of(run_dir, training_section).text


def test_mistakes_come_most_confident_first_with_their_files(part_of, run_dir):
    with np.load(run_dir / "mistakes.npz") as found:
        order = np.argsort(-found["probabilities"])
        names = found["names"][order].tolist()
    text = part_of(run_dir, mistakes_section).text
    positions = [text.index(name) for name in names]
    assert positions == sorted(positions)
    assert f"The {len(names)} wrong answers" in text


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_mistakes_of_any_number_of_channels_are_shown(part_of, make_run, channels):
    page = part_of(make_run(channels=channels), mistakes_section)
    pictures = [found for tag, found in page.elements if tag == "img"]
    assert len(pictures) == 2 * 5


def test_mistakes_without_attention_are_shown_alone(part_of, run_dir):
    with np.load(run_dir / "mistakes.npz") as found:
        arrays = {name: found[name] for name in found.files if name != "attention"}
    np.savez(run_dir / "mistakes.npz", **arrays)
    page = part_of(run_dir, mistakes_section)
    assert sum(tag == "img" for tag, _ in page.elements) == 5
    assert "attention" not in page.text


def test_how_to_use_the_model_is_told(part_of, tmp_path, run_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (run_dir, Path("run")):
        text = part_of(path, usage_section).text
        assert "vitral predict run/model image.jpg" in text
        assert 'predictor = vitral.Predictor("run/model") predictor(["image.jpg"])' in text


def test_commands_quote_names_that_a_shell_would_split(part_of, make_run, tmp_path, monkeypatch):
    run_dir = make_run("my run's")
    monkeypatch.chdir(tmp_path)
    text = part_of(run_dir, usage_section).text
    assert """vitral predict 'my run'"'"'s/model' image.jpg""" in text
    assert 'vitral.Predictor("my run\'s/model")' in text


def test_all_settings_are_told_with_their_origin(part_of, run_dir):
    page = part_of(run_dir, origins_section)
    assert page.row("optimizer.learning_rate")[1:] == ["0.001", "recipe"]
    assert page.row("train.ema")[1:] == ["none", "option"]
    assert page.row("train.seed")[1:] == ["3", "\N{EN DASH}"]
    assert page.row("python")[1:] == ["3.11.7"]
