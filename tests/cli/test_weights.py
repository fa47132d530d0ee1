import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vitral
from vitral.cli.main import main
from vitral.cli.weights import HEADINGS
from vitral.config.catalogue import CatalogueEntry, read_catalogue, search_catalogue
from vitral.config.variants import COMMON_NAMES

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "image_size": 32}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    model = vitral.create_model("ViT-Ti/8", **TINY, num_classes=4)
    torch.nn.init.normal_(model.head.weight)
    vitral.save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_described_without_an_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "activation gelu_tanh" in shown.out
    assert "tensors used, 0 resized, 0 new, 0 left over" in shown.err


def test_official_weights_go_to_a_folder_and_back_unchanged(shared: Path, tmp_path: Path) -> None:
    source = shared / "reference/vit_token_rep.weights.npz"
    folder, again = tmp_path / "folder", tmp_path / "again.npz"
    assert main(["convert", str(source), str(folder), "--check"]) == 0
    assert main(["convert", str(folder), str(again), "--format", "official", "--check"]) == 0
    with np.load(source) as before, np.load(again) as after:
        assert set(before.files) == set(after.files)
        assert all(np.array_equal(before[name], after[name]) for name in before.files)


def test_the_record_says_what_was_done(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "larger.npz"
    options = ["--image-size", "48,64", "--format=official", "--check", "--json"]
    assert main(["convert", str(folder), str(output), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"]["image_size"] == [48, 64]
    assert record["load"]["resized"] == ["positions.0.table"]
    small = sum(parameter.numel() for parameter in vitral.load_model(folder).parameters())
    assert record["parameters"] == small + (6 * 8 - 4 * 4) * TINY["embed_dim"]
    assert record["output"] == str(output)
    assert list(record["checks"]) == [str(output)]


def test_fields_of_the_model_can_be_set(folder: Path, tmp_path: Path) -> None:
    changes = ["--set", "activation=gelu", "--set", "num_classes=0"]
    assert main(["convert", str(folder), str(tmp_path / "other"), *changes]) == 0
    config = vitral.load_model(tmp_path / "other").config
    assert (config.activation, config.num_classes) == ("gelu", 0)


def test_a_changed_weight_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["head.weight"] *= 1.01
    save_file(tensors, folder / "model.safetensors")
    assert main(["convert", str(folder), "--check"]) == 5
    assert "do NOT agree with the stored ones: largest difference 0." in capsys.readouterr().err


def test_a_format_that_computes_otherwise_does_not_pass_the_check(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", "activation=gelu", "--format", "official", "--check"]
    model = vitral.load_model(folder)
    torch.nn.init.normal_(model.blocks[0].mlp.out.weight)
    vitral.save_model(model, folder)
    assert main(["convert", str(folder), str(tmp_path / "x.npz"), *words]) == 5
    shown = capsys.readouterr().err
    assert "x.npz: logits on the reference images do NOT agree" in shown


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nowhere"], 2, "there is nothing at nowhere"),
        (["{folder}", "out", "--format", "offical"], 2, "did you mean 'official'?"),
        (["{folder}", "out", "--set", "actvation=gelu"], 2, "did you mean 'model.activation'?"),
        (["{folder}", "out", "--set", "activation"], 2, "give a setting and its value"),
        (["{folder}", "{folder}/config.json"], 2, "exists and is no model folder"),
        (["{folder}", "out", "--format", "official"], 2, "ends with .npz"),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: Path,
    words: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *(word.format(folder=folder) for word in words)]) == status
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]


def test_without_a_search_it_lists_the_models_and_counts_the_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models"]) == 0
    stdout = capsys.readouterr().out
    assert all(name in stdout for name in COMMON_NAMES)
    assert "any patch size" in stdout
    assert f"{len(read_catalogue())} sets of public weights" in stdout
    assert "--search" in stdout
    assert max(map(len, stdout.splitlines())) <= 90


def test_a_search_prints_one_line_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--search", "augreg B/16 384"]) == 0
    captured = capsys.readouterr()
    table = captured.out.split("\n\n")[-1].splitlines()
    found = search_catalogue("augreg B/16 384")
    assert [line.split()[0] for line in table] == ["name", *[entry.name for entry in found]]
    assert all(heading in table[0] for heading in HEADINGS)
    assert "ImageNet-21k, then ImageNet-1k  85.996 % (ImageNet val, 384 px)  Apache-2.0  yes" in (
        captured.out
    )
    assert "86.9 M" in captured.out
    assert "\x1b" not in captured.out
    assert "--json" in captured.err


def test_words_without_the_option_are_a_search_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--search", "dinov2 base"]) == 0
    one = capsys.readouterr().out
    assert main(["models", "dinov2", "base"]) == 0
    assert capsys.readouterr().out == one


def test_a_model_without_public_weights_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--search", "AxialViT"]) == 0
    stdout = capsys.readouterr().out
    assert "AxialViT-B/32, AxialViT-B/16" in stdout
    assert "No public weights are known for that" in stdout


@pytest.mark.parametrize("columns", [70, 200])  # a paragraph an entry, a table
def test_a_terminal_shows_whole_names(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    assert main(["models", "--search", "deit3 large 384"]) == 0
    stdout = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "timm/deit3_large_patch16_384.fb_in22k_ft_in1k" in stdout
    assert "304.8 M" in stdout
    assert max(map(len, stdout.splitlines())) <= columns


def test_json_has_every_field_of_every_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["models"] == list(COMMON_NAMES)
    assert tuple(CatalogueEntry(**fields) for fields in record["weights"]) == read_catalogue()


def test_json_has_what_a_search_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--search", "R152x4", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["models"] == ["R152x4"]
    assert record["weights"] == [dataclasses.asdict(entry) for entry in search_catalogue("R152x4")]
    assert record["weights"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dinov3", "did you mean 'dino_vits8'?"),
        ("google/vit-base-16", "did you mean 'google/vit-base-patch16-"),
        ("zzqq", "search for a model (B/16), a family"),
    ],
)
def test_a_search_that_finds_nothing_says_what_to_do(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--search", text]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.startswith("vitral: no model and no public weights")
    assert captured.err.count("\n") == 1
