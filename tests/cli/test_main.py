"""The command line from outside: what it prints, where, and with which exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import TINY_MODEL, pattern_images, write_patterns

import vitral
from vitral.cli.main import VERBS, main
from vitral.files.results import read_results
from vitral.models.weights.load import load_model
from vitral.models.weights.provenance import weights_hash
from vitral.version import __version__

TINY = [f"--set={path}={value}" for path, value in TINY_MODEL.items()]


def command(*tokens: str) -> list[str]:
    return [sys.executable, "-m", "vitral", *tokens]


def run(*tokens: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*tokens), capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patterns(tmp_path_factory.mktemp("data") / "d.npz")


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    output = data.parent / "run"
    tokens = ["train", str(data), "--model", "ViT-Mi/4", "--steps", "6", "--output", str(output)]
    return output, run(*tokens, "--json", *TINY)


def test_train_prints_one_json_object_on_standard_output(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    output, finished = trained
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["path"] == str(output)
    assert summary["num_examples"] == 20
    assert "recipe: scratch-small" in finished.stderr
    assert "\x1b" not in finished.stderr


def test_evaluate_agrees_with_the_runs_own_summary(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = json.loads(trained[1].stdout)
    assert main(["evaluate", str(trained[0]), str(data), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["accuracy"] == summary["accuracy"]
    assert again["split"] == "test"


def test_evaluate_keeps_its_score_as_a_row_of_results(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = tmp_path / "kept.jsonl"
    assert main(["evaluate", str(trained[0]), str(data), "--results", str(results), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    [row], damaged = read_results(results)
    assert damaged == 0
    assert (row.protocol, row.split, row.metric) == ("evaluate", "test", "accuracy")
    assert row.value == summary["accuracy"]
    assert row.weights == weights_hash(load_model(trained[0]))
    assert row.path == str(trained[0])


def test_evaluate_shows_the_papers_figure_for_the_same_model_and_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model named ViT-B/16, on data named CIFAR-10."""
    images, labels = pattern_images(24)
    split = np.repeat(["train", "test"], [12, 12])
    classes = np.array(list("abcd"))
    np.savez(tmp_path / "cifar10.npz", images=images, labels=labels, split=split, classes=classes)
    config = vitral.create_model(
        "ViT-B/16", image_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, mlp_dim=32,
        in_channels=1, num_classes=4,
    )  # fmt: skip
    config.classes = tuple("abcd")
    torch.nn.init.normal_(config.head.weight)
    vitral.save_model(config, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "model", "cifar10.npz"]) == 0
    assert "paper     98.1 % (Table 5, ImageNet" in capsys.readouterr().out


def test_evaluate_writes_a_row_an_image(
    trained: tuple[Path, subprocess.CompletedProcess[str]], data: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    assert main(["evaluate", str(trained[0]), str(data), "--output", str(rows)]) == 0
    lines = rows.read_text().splitlines()
    assert lines[0] == "path,label,class,probability,error"
    assert len(lines) == 21


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_predict_writes_the_format_of_the_files_ending(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, ending: str
) -> None:
    Image.fromarray(pattern_images(1)[0][0]).save(tmp_path / "i.png")
    path = tmp_path / f"p.{ending}"
    assert main(["predict", str(trained[0]), str(tmp_path / "i.png"), "--output", str(path)]) == 0
    assert path.read_text().startswith({"csv": "path,class,", "jsonl": '{"path": '}[ending])


def test_predict_prints_json(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.png").write_text("no image")
    Image.fromarray(pattern_images(1)[0][0]).save(tmp_path / "good.png")
    (tmp_path / "notes.txt").write_text("text")
    assert main(["predict", str(trained[0] / "model"), str(tmp_path), "--top=2", "--json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["predictions"]
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert len(rows[1]["top"]) == 2
    assert "1 file is no image" in captured.err


@pytest.mark.parametrize(
    ("tokens", "status", "said"),
    [
        (["trian"], 2, "there is no verb 'trian': did you mean 'train'?"),
        (["train", "nowhere"], 2, "there is no folder, file or data set 'nowhere'"),
        (["train", "./nowhere"], 2, "there is nothing at nowhere"),
        (["train", "--model", "ViT-Z/9"], 2, "there is no model 'ViT-Z/9'"),
        (["train", "--set", "train.sed=1"], 2, "did you mean 'train.seed'"),
        (["train", "--set", "train.seed=one"], 2, "train.seed='one': give a whole number"),
        (["predict", "nowhere", "x.png"], 2, "there is nothing at x.png"),
        (["evaluate", "nowhere", "fashion-mnist"], 2, "there is nothing at nowhere"),
        (["evaluate", "only-one"], 2, "the following arguments are required: DATA"),
    ],
)
def test_mistakes_end_with_one_line_and_their_status(
    tokens: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tokens) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.startswith("vitral: ")
    assert captured.err.count("\n") == 1


def test_bad_contents_have_their_own_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.txt").write_text("text")
    assert main(["train", str(tmp_path / "data")]) == 3
    assert "has no images that can be used" in capsys.readouterr().err
    (tmp_path / "model.npz").write_text("garbage")
    assert main(["evaluate", str(tmp_path / "model.npz"), "fashion-mnist"]) == 5
    assert "is no model file" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_end_with_their_status(
    data: Path, tmp_path: Path, number: int, status: int
) -> None:
    output = tmp_path / "run"
    tokens = [
        "train",
        str(data),
        "--model",
        "ViT-Mi/4",
        "--steps",
        "100000",
        "--output",
        str(output),
    ]
    process = subprocess.Popen(command(*tokens, *TINY), stderr=subprocess.PIPE, text=True)
    while not (output / "timings.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert json.loads((output / "status.json").read_text())["state"] == "interrupted"


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from vitral.cli.main import main; main(['--help']); "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert all(f"vitral {verb}" in finished.stdout for verb in VERBS)
    assert finished.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main([verb, "--help"]) == 0
    except SystemExit as ended:  # of the standard library's parser
        assert ended.code == 0
    assert f"usage: vitral {verb}" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_a_reader_that_leaves_early_is_no_error(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The rows exceed the buffer of a pipe, so that the writer sees that it is closed."""
    for number in range(1200):
        (tmp_path / f"{number:04}-{'x' * 60}.png").write_text("no image")
    line = " ".join([*command("predict", str(trained[0]), str(tmp_path)), "| head -1"])
    finished = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_json_and_a_file_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "runs/x", "a.png", "--json", "--output", "p.csv"]) == 2
    assert "leave --output and --format out" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["predict", "m", "a.png"], ["evaluate", "m", "d"]])
def test_an_output_without_a_folder_is_told_first(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, "--output", "nowhere/p.csv"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tokens",
    [
        ["--epochs", "5", "--set", "train.steps=2"],
        ["--steps", "2", "train.epochs=5"],
        ["--config", "twice.yaml", "--epochs", "1"],
    ],
)
def test_a_length_that_is_given_twice_is_refused(
    tokens: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.yaml").write_text("train: {epochs: 5, steps: 2}\n")
    data = write_patterns(tmp_path / "patterns.npz")
    assert main(["train", str(data), "--output", "run", *tokens]) == 2
    assert "train.epochs=5 and train.steps=2 both say how long" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_report_that_is_left_out_is_not_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_patterns(tmp_path / "patterns.npz")
    command = ["train", str(data), "--steps", "1", "--output", str(tmp_path / "run")]
    assert main(command) == 0
    assert "report  " not in capsys.readouterr().out
    monkeypatch.delenv("VITRAL_REPORT")
    assert main(command) == 0
    assert f"report    {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out
