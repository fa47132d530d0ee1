"""`vitral fewshot`, `vitral probe` and `vitral knn` from outside, on real images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.runs import pattern_images, write_patterns

import vitral
from vitral.cli.main import main
from vitral.evaluate.frozen.fewshot import score_fewshot
from vitral.evaluate.frozen.task import open_model, open_task
from vitral.files.results import RESULTS_PATH, read_results

pytestmark = pytest.mark.usefixtures("results_in_runs")

Captured = pytest.CaptureFixture[str]
VERBS = ("fewshot", "probe", "knn")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small RGB model, whose head has other classes."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    model = vitral.create_model(
        "ViT-Mi/8", image_size=32, embed_dim=32, depth=1, num_heads=2, mlp_dim=64, num_classes=3
    )
    vitral.save_model(model, "model")
    return tmp_path


@pytest.mark.parametrize(("data", "classes", "images"), [("rsscn7", 7, 105), ("dtd10", 10, 100)])
def test_real_images_are_scored_by_every_protocol(
    place: Path, shared: Path, capsys: Captured, data: str, classes: int, images: int
) -> None:
    source = str(shared / "data" / data)
    summaries = {}
    for tokens in (["fewshot", "--shots=1,5"], ["probe"], ["knn", "--choose"]):
        assert main([tokens[0], "model", source, *tokens[1:], "--json"]) == 0
        summaries[tokens[0]] = json.loads(capsys.readouterr().out)
    fewshot = summaries["fewshot"]
    assert [(result["shots"], result["seed"]) for result in fewshot["results"]] == [
        (shots, seed) for shots in (1, 5) for seed in range(3)
    ]
    assert fewshot["protocol"]["preprocessing"]["resize"] == "squash"
    five = [result["accuracy"] for result in fewshot["results"] if result["shots"] == 5]
    assert fewshot["means"][1]["accuracy"] == pytest.approx(np.mean(five))
    rows, num_damaged = read_results(RESULTS_PATH)
    assert (len(rows), num_damaged) == (6 + 2 + 2, 0)
    by_protocol = {row.protocol: row for row in rows}
    for verb in ("probe", "knn"):
        summary, row = summaries[verb], by_protocol[verb]
        assert (summary["num_examples"], summary["num_skipped"]) == (images, 0)
        assert (summary["accuracy"], summary["data"]) == (row.value, data)
        assert tuple(summary["accuracy_interval"]) == row.interval
        assert summary["controls"]["chance"] == pytest.approx(1 / classes)
        assert summary["accuracy"] > summary["majority_accuracy"]
        assert summary["controls"]["shuffled_labels"] < summary["accuracy"]
    assert (summaries["probe"]["loss"] > 0, summaries["knn"]["loss"]) == (True, None)


def test_the_rows_are_printed_and_the_protocol_is_said_once(place: Path, capsys: Captured) -> None:
    write_patterns(place / "d.npz")
    grey = vitral.create_model("ViT-Mi/4", image_size=8, in_channels=1, num_classes=0, depth=1)
    vitral.save_model(grey, "grey")
    assert main(["fewshot", "grey", "d.npz", "--shots", "1", "--results", "r.jsonl"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 1 + 3 + 1
    assert "shots=1" in lines[1]
    assert "over seeds" in lines[-1]
    assert "random weights" in lines[1]
    assert captured.err.count("squash to 8 x 8, 0.875 of it cut, bilinear without antialias") == 1
    assert len(read_results(Path("r.jsonl"))[0]) == 4
    assert not RESULTS_PATH.exists()


def grey_model() -> None:
    torch.manual_seed(2)
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, in_channels=1, num_classes=0, embed_dim=16, depth=1,
        num_heads=2, mlp_dim=32,
    )  # fmt: skip
    vitral.save_model(model, "grey")


@pytest.mark.parametrize("verb", VERBS)
def test_kept_features_change_nothing(
    place: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    write_patterns(place / "d.npz")
    grey_model()
    monkeypatch.setenv("VITRAL_CACHE_DIR", "kept")
    printed, num_cached = [], []
    for cache in ("off", "on", "on"):
        assert main([verb, "grey", "d.npz", "--cache", cache, "--json"]) == 0
        printed.append(capsys.readouterr().out)
        num_cached.append(len(list(Path("kept/features").glob("*"))))
    assert printed[0] == printed[1] == printed[2]
    assert num_cached[0] == 0 < num_cached[1] == num_cached[2]


def test_options_reach_the_protocol(place: Path, capsys: Captured) -> None:
    write_patterns(place / "d.npz")
    grey_model()
    tokens = ["--split=validation", "--controls=off", "preprocessing.resize=shorter", "--json"]
    assert main(["knn", "grey", "d.npz", "--k", "3", "--temperature=0.5", *tokens]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["split"] == "validation"
    assert set(summary["controls"]) == {"majority", "chance"}
    assert (summary["settings"]["k"], summary["settings"]["temperature"]) == (3, 0.5)
    assert main(["fewshot", "grey", "d.npz", "--shots=2", "--seeds=1", "--l2=sweep", *tokens]) == 0
    fewshot = json.loads(capsys.readouterr().out)
    assert fewshot["means"] == []
    assert fewshot["protocol"]["l2"] == "sweep"
    assert fewshot["protocol"]["preprocessing"]["resize"] == "shorter"
    task = open_task("d.npz", channels=1, split="validation")
    frozen = open_model("grey", device="cpu", changes={"resize": "shorter"})
    [row] = score_fewshot(frozen, task, shots=[2], num_seeds=1, l2="sweep").rows
    assert fewshot["results"][0]["accuracy"] == row.value
    assert fewshot["results"][0]["l2"] == row.settings["chosen"]["l2"]


@pytest.mark.parametrize(
    ("tokens", "status", "said"),
    [
        (["fewshot", "grey", "d.npz", "--shots=1,x"], 2, "--shots 1,x: give whole numbers, such"),
        (["fewshot", "grey", "d.npz", "--shots=21"], 2, "class 'a' has 20 training images: use 20"),
        (["fewshot", "grey", "d.npz", "--l2=strong"], 2, "--l2 strong: give a number, or sweep"),
        (["fewshot", "grey", "d.npz", "--l2=-1"], 2, "l2=-1.0 must be 0 or more"),
        (["knn", "grey", "d.npz", "--k=3", "--choose"], 2, "both say how neighbours vote"),
        (["probe", "grey", "d.npz", "--results=no/r.jsonl"], 2, "no/r.jsonl: there is no such fol"),
        (["probe", "grey", "d.npz", "--set", "train.seed=1"], 2, "only preprocessing.* can be set"),
        (["probe", "grey", "d.npz", "--controls=some"], 2, "invalid choice: 'some'"),
        (["probe", "grey", "nowhere"], 2, "there is no folder, file or data set 'nowhere'"),
        (["knn", "grey", "leak.npz"], 3, "are training images too"),
    ],
)
def test_mistakes_end_with_one_line_and_their_status(
    place: Path, capsys: Captured, tokens: list[str], status: int, said: str
) -> None:
    write_patterns(place / "d.npz")
    images, labels = pattern_images(12)
    images[9] = images[1]
    split = ["train"] * 8 + ["test"] * 4
    np.savez("leak.npz", images=images, labels=labels, split=np.array(split))
    grey_model()
    assert main(tokens) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("vitral: ")
    assert not RESULTS_PATH.exists()
