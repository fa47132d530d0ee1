"""`vitral models`: what it lists, and how."""

import dataclasses
import json
import re
import sys

import pytest

from vitral.cli.main import main
from vitral.cli.models import HEADINGS
from vitral.spec.catalogue import CatalogueEntry, read_catalogue, search_catalogue
from vitral.spec.variants import COMMON_NAMES


def test_without_a_search_it_lists_the_models_and_counts_the_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMON_NAMES)
    assert "any patch size" in said
    assert f"{len(read_catalogue())} sets of public weights" in said
    assert "--search" in said
    assert max(map(len, said.splitlines())) <= 90


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
    said = capsys.readouterr().out
    assert "AxialViT-B/32, AxialViT-B/16" in said
    assert "No public weights are known for that" in said


@pytest.mark.parametrize("columns", [70, 200])  # a paragraph an entry, a table
def test_a_terminal_shows_whole_names(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    assert main(["models", "--search", "deit3 large 384"]) == 0
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "timm/deit3_large_patch16_384.fb_in22k_ft_in1k" in said
    assert "304.8 M" in said
    assert max(map(len, said.splitlines())) <= columns


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
