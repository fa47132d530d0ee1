import json

from vitral.figures.training import training_section


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
