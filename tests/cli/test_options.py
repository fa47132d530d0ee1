import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.cli import evaluate, train
from vitral.cli.options import ALIASES, Option, normalise_tokens, parse_options
from vitral.errors import RequestError


def parse(*tokens: str) -> argparse.Namespace:
    return parse_options("train", train.OPTIONS, tokens, description="")


@pytest.mark.parametrize(
    "tokens",
    [
        ["--batch-size", "64"], ["--batch-size=64"], ["--batch_size=64"], ["--batch_size", "64"],
        ["batch_size=64"], ["batch-size=64"], ["-b", "64"], ["batch=64"],
        ["--per_device_train_batch_size", "64"],
    ],
)  # fmt: skip
def test_every_spelling_of_the_batch_size_is_understood(tokens: list[str]) -> None:
    assert parse(*tokens).batch_size == 64


@pytest.mark.parametrize(
    ("tokens", "name", "value"),
    [
        (["--lr", "0.1"], "learning_rate", 0.1),
        (["lr0=0.1"], "learning_rate", 0.1),
        (["--imgsz", "96"], "image_size", "96"),
        (["--img-size=64x96"], "image_size", "64x96"),
        (["--num_train_epochs", "3"], "epochs", 3.0),
        (["--trainer.max_epochs=3"], "epochs", 3.0),
        (["--max_steps", "7"], "steps", 7),
        (["--output_dir", "x"], "output", "x"),
        (["out=x"], "output", "x"),
        (["data=photos", "model=ViT-S/16"], "data", "photos"),
        (["--data-dir", "photos"], "data", "photos"),
        (["--model_name_or_path", "ViT-S/16"], "model", "ViT-S/16"),
        (["--seed_everything", "5"], "seed", 5),
        (["--bf16"], "precision", "bfloat16"),
        (["--precision", "bf16-mixed"], "precision", "bfloat16"),
        (["precision=fp32"], "precision", "float32"),
        (["--use_cpu"], "device", "cpu"),
        (["device=0"], "device", "cuda:0"),
        (["resume=True"], "resume", "auto"),
        (["--resume", "False"], "resume", "never"),
        (["--compile=true"], "compile", "on"),
        (["-c", "x.yaml"], "config", "x.yaml"),
        (["-j", "2"], "set", ["data.workers=2"]),
        (["--weight_decay", "0.1"], "set", ["optimizer.weight_decay=0.1"]),
        (["augment.mixup=0.3"], "set", ["augment.mixup=0.3"]),
        (["--augment.mixup", "0.3"], "set", ["augment.mixup=0.3"]),
        (["--set", "train.ema=0", "--set", "train.seed=1"], "set", ["train.ema=0", "train.seed=1"]),
        (["photos", "--json"], "json", True),
    ],
)
def test_other_tools_spellings_are_understood(tokens: list[str], name: str, value: object) -> None:
    assert getattr(parse(*tokens), name) == value


def test_a_token_that_is_a_file_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1").mkdir()
    assert parse("seed=1").data == "seed=1"
    assert parse("seed=1").seed is None


def test_a_token_with_an_unknown_key_is_a_path() -> None:
    assert parse("name=x").data == "name=x"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["--epoch", "3"], "there is no option --epoch: did you mean 'epochs'"),
        (["--epochs"], "--epochs needs a value"),
        (["--epochs", "many"], "argument --epochs: invalid float value: 'many'"),
        (["a", "b"], "unrecognized arguments: b"),
    ],
)
def test_mistakes_are_told_in_one_line(tokens: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said) as error:
        parse(*tokens)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tokens", "data", "directory"),
    [
        (["runs/x", "pets", "--data-dir", "d"], "pets", "d"),
        (["runs/x", "--data_dir=d", "pets"], "pets", "d"),
        (["runs/x", "data=pets", "--data-dir", "d"], "pets", "d"),
        (["runs/x", "--data-dir", "photos"], "photos", None),
    ],
)
def test_a_folder_of_files_is_one_beside_data_and_data_itself_without(
    tokens: list[str], data: str, directory: str | None
) -> None:
    args = parse_options("evaluate", evaluate.OPTIONS, tokens, description="")
    assert (args.model, args.data, args.data_dir) == ("runs/x", data, directory)


def test_every_alias_leads_to_an_option_or_a_setting() -> None:
    from vitral.config.settings import setting_types

    names = {option.name.removeprefix("--") for option in train.OPTIONS}
    assert all(target in names or target in setting_types() for target in ALIASES.values())


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_command_line_gives_anything_but_a_request_error(tokens: list[str]) -> None:
    try:
        normal = normalise_tokens(tokens, train.OPTIONS)
    except RequestError:
        return
    assert all(isinstance(token, str) for token in normal)


@pytest.mark.parametrize(
    "tokens",
    [["runs/x", "photos"], ["runs/x", "data=photos"], ["model=runs/x", "photos"],
     ["data=photos", "model=runs/x"], ["photos", "--model", "runs/x"]],
)  # fmt: skip
def test_names_fill_the_positionals_in_any_order(tokens: list[str]) -> None:
    args = parse_options("evaluate", evaluate.OPTIONS, tokens, description="")
    assert (args.model, args.data) == ("runs/x", "photos")


@pytest.mark.parametrize(("tokens", "normal"), [([], []), (["--json"], ["--json"]), (["x"], ["x"])])
def test_a_verb_may_have_no_positionals(tokens: list[str], normal: list[str]) -> None:
    assert normalise_tokens(tokens, [Option("--json", "print JSON")]) == normal
