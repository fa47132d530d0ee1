from pathlib import Path

from vitral.figures.usage import origins_section, usage_section


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
