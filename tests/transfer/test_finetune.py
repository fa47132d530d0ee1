"""Fine-tuning by validation and by protocols of several runs, on patterns and on photographs."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.runs import stopped_at

import vitral
from vitral.cli.main import main
from vitral.data.dataset import open_dataset
from vitral.data.splits import without_split
from vitral.errors import DataError, RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.files.results import read_results
from vitral.files.rows import read_rows
from vitral.models.weights.folder import WEIGHTS_NAME
from vitral.training.context import train_context
from vitral.training.resolve import facts_of
from vitral.training.train import RunRequest
from vitral.transfer.finetune import FineTuned, finetune
from vitral.transfer.pretrained import open_source
from vitral.transfer.protocols import choose_protocol
from vitral.transfer.series import Series

PLAIN: dict[str, Any] = {"augment.flip": False, "augment.crop": "none", "augment.mixup": 0.0}
QUICK: dict[str, Any] = {"train.steps": 6, "train.batch_size": 16}
NONE = 1e-300
"""A learning rate that moves no weight."""
Write = Callable[..., Path]


def settings_of(run: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())["settings"]
    return settings


def tune(model: Path, data: Path, output: Path, **options: Any) -> FineTuned:
    settings = PLAIN | QUICK | options.pop("settings", {})
    results = output.parent / "results.jsonl"
    return finetune(
        model, str(data), output=output, settings=settings, results=results, quiet=True, **options
    )


# By validation


@pytest.fixture(scope="module")
def tuned(
    pretrained: Path, write_task: Write, tmp_path_factory: pytest.TempPathFactory
) -> FineTuned:
    return tune(pretrained, write_task(), tmp_path_factory.mktemp("tuned") / "run")


def validation_rows(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(run / "metrics.jsonl") if row["split"] == "validation"]


def test_the_probe_comes_first_and_the_result_is_as_good_on_validation(tuned: FineTuned) -> None:
    rows = validation_rows(tuned.path)
    assert rows[0]["step"] == 0
    probe = rows[0]["accuracy"]
    assert probe == pytest.approx(tuned.summary["probe_accuracy"])
    assert probe > 0.8
    best = next(row for row in rows if row["step"] == tuned.summary["best_step"])
    count = (tuned.path / "splits.csv").read_text().count(",validation,")
    share = (probe * count + 2) / (count + 4)
    assert best["accuracy"] >= probe - np.sqrt(share * (1 - share) / count)
    assert tuned.summary["accuracy"] > 0.8
    assert tuned.summary["split"] == "test"


def test_training_begins_at_zero_and_the_probe_is_kept_where_it_stays_ahead(
    pretrained: Path, write_task: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PLAIN | QUICK | {"train.steps": 1, "optimizer.learning_rate": NONE}
    data = write_task()
    result = finetune(
        pretrained,
        str(data),
        output=tmp_path / "run",
        settings=settings,
        results=tmp_path / "r.jsonl",
    )
    first, last = validation_rows(result.path)
    assert first["accuracy"] == pytest.approx(result.summary["probe_accuracy"])
    assert last["loss"] == pytest.approx(np.log(3), rel=1e-5)
    assert result.summary["best_step"] == 0
    assert result.rows[0].settings["best_step"] == 0
    printed = capsys.readouterr().err
    assert "note: no trained model was good enough on the validation images to be kept" in printed
    assert "the result is the probe" in printed
    evaluated = evaluate(result.path, str(data), split="test").summary
    assert evaluated["accuracy"] == result.summary["accuracy"] > 0.8


@pytest.mark.parametrize("rate", [5e-3, NONE], ids=["a trained model kept", "the probe kept"])
def test_an_interrupted_run_ends_as_one_that_nothing_disturbed(
    pretrained: Path, write_task: Write, tmp_path: Path, rate: float
) -> None:
    data = write_task()
    common = {"optimizer.learning_rate": rate, "checkpoint.every_steps": 2}
    straight = tune(pretrained, data, tmp_path / "straight", settings=common)
    for name in ("after a checkpoint", "before the first one"):
        settings = (
            common if name == "after a checkpoint" else common | {"checkpoint.every_steps": 5}
        )
        with stopped_at(3):
            tune(pretrained, data, tmp_path / name, settings=settings)
        found = tune(pretrained, data, tmp_path / name, settings=settings)
        assert found.summary == straight.summary
        weights = [(run.path / "model" / WEIGHTS_NAME).read_bytes() for run in (found, straight)]
        assert weights[0] == weights[1]


def test_training_may_begin_at_the_probe(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    settings = {"train.steps": 1, "optimizer.learning_rate": NONE}
    result = tune(pretrained, write_task(), tmp_path / "run", head="probe", settings=settings)
    first, last = validation_rows(result.path)
    assert last["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert result.summary["best_step"] == 1  # as good, and later


def test_the_run_says_where_it_came_from(tuned: FineTuned, pretrained: Path) -> None:
    about = json.loads((tuned.path / "model" / "config.json").read_text())
    assert about["pretrained"]["path"] == str(pretrained)
    assert about["model"]["representation_size"] == 0
    assert about["classes"] == ["left", "top", "right"]
    assert tuned.summary["recipe"] == "finetune"


def test_its_row_of_results_is_complete(tuned: FineTuned) -> None:
    rows, damaged = read_results(tuned.path.parent / "results.jsonl")
    assert (rows, damaged) == (tuned.rows, 0)
    (row,) = rows
    assert (row.protocol, row.data, row.split, row.metric) == (
        "finetune", "task", "test", "accuracy",
    )  # fmt: skip
    assert row.value == tuned.summary["accuracy"]
    assert row.interval == tuple(tuned.summary["accuracy_interval"])
    assert row.controls.keys() == {"majority", "pixels"}
    assert row.pretraining == "patterns"
    assert row.settings["evaluation"]["best_within"] == 1


def test_the_same_call_again_trains_nothing_and_adds_no_row(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    data = write_task()
    first = tune(pretrained, data, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    again = tune(pretrained, data, tmp_path / "run")
    assert again.summary == first.summary
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before
    assert len(read_results(tmp_path / "results.jsonl")[0]) == 1


def test_validation_images_of_the_datas_own_choose(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    result = tune(pretrained, write_task(validation=12), tmp_path / "run")
    splits = (result.path / "splits.csv").read_text()
    assert splits.count(",validation,") == 12
    assert splits.count(",train,") == 48


def test_without_validation_images_there_is_no_probe(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    result = tune(
        pretrained, write_task(), tmp_path / "run", settings={"data.validation_share": 0.0}
    )
    assert "probe_accuracy" not in result.summary
    assert "best_step" not in result.summary


def test_images_of_several_labels_are_tuned_without_a_probe(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    marks = np.eye(3, dtype=np.uint8)[np.arange(72) % 3]
    marks[::5, 0] = 1
    data = write_task(labels=marks)
    result = tune(pretrained, data, tmp_path / "run", settings={"augment.mixup": 0.0})
    assert "f1_micro" in result.summary
    assert "probe_accuracy" not in result.summary
    evaluation = settings_of(result.path)["evaluation"]
    assert (evaluation["best_by"], evaluation["best_within"]) == ("loss", 0)


# By protocol


@pytest.fixture(scope="module")
def papers(
    pretrained: Path, write_task: Write, tmp_path_factory: pytest.TempPathFactory
) -> FineTuned:
    return tune(
        pretrained,
        write_task(validation=12),
        tmp_path_factory.mktemp("paper") / "series",
        protocol="paper",
        rates=(0.01, 0.1),
        seeds=2,
        image_size=8,
    )


def test_candidates_see_no_test_images_and_final_runs_train_on_everything(
    papers: FineTuned,
) -> None:
    for run in sorted((papers.path / "sweep").iterdir()):
        assert ",test," not in (run / "splits.csv").read_text()
        assert json.loads((run / "summary.json").read_text())["split"] == "validation"
    for run in (papers.path / "seed-0", papers.path / "seed-1"):
        splits = (run / "splits.csv").read_text()
        assert splits.count(",train,") == 48 + 12
        assert ",validation," not in splits
        assert json.loads((run / "summary.json").read_text())["split"] == "test"


def test_the_best_rate_on_the_dev_split_is_trained_again(papers: FineTuned) -> None:
    dev = papers.summary["dev_accuracies"]
    assert dev.keys() == {"rate-0.01", "rate-0.1"}
    scores = {
        run.name: json.loads((run / "summary.json").read_text())
        for run in (papers.path / "sweep").iterdir()
    }
    best = max(scores, key=lambda name: (scores[name]["accuracy"], -scores[name]["loss"]))
    for number in (0, 1):
        settings = settings_of(papers.path / f"seed-{number}")
        assert f"rate-{settings['optimizer']['learning_rate']:g}" == best
        assert settings["train"]["seed"] == number
        assert settings["optimizer"]["name"] == "sgd"


def test_the_mean_stands_beside_its_runs(papers: FineTuned) -> None:
    first, second, mean = papers.rows
    assert mean.value == pytest.approx((first.value + second.value) / 2)
    assert mean.seed == (0, 1)
    assert mean.interval_over == "seeds"
    assert papers.summary["accuracy"] == mean.value
    assert papers.summary["accuracies"] == [first.value, second.value]
    assert papers.summary["accuracy_std"] == pytest.approx(
        np.std([first.value, second.value], ddof=1)
    )
    assert mean.settings["dev_accuracies"] == papers.summary["dev_accuracies"]


def test_a_series_is_a_model(papers: FineTuned) -> None:
    data = settings_of(papers.path / "seed-0")["data"]["source"]
    summary = evaluate(papers.path, data).summary
    assert summary["accuracy"] == papers.rows[0].value
    assert (summary["split"], summary["num_examples"]) == ("test", 24)


def test_a_finished_series_runs_nothing_again(
    papers: FineTuned, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are asked for, and each is found finished."""
    before = {p: p.stat().st_mtime_ns for p in papers.path.rglob("metrics.jsonl")}
    data = Path(settings_of(papers.path / "seed-0")["data"]["source"])
    again = tune(
        pretrained, data, papers.path, protocol="paper", rates=(0.01, 0.1), seeds=2, image_size=8
    )
    assert {p: p.stat().st_mtime_ns for p in papers.path.rglob("metrics.jsonl")} == before
    assert again.summary == papers.summary
    assert len(read_results(papers.path.parent / "results.jsonl")[0]) == 3


def test_other_settings_into_a_series_are_refused(papers: FineTuned, pretrained: Path) -> None:
    data = Path(settings_of(papers.path / "seed-0")["data"]["source"])
    with pytest.raises(
        RequestError, match="holds a series with another asked, protocol: use the sa"
    ):
        tune(
            pretrained,
            data,
            papers.path,
            protocol="paper",
            rates=(0.01,),
            image_size=8,
            settings={"train.steps": 7},
        )


def test_fields_of_the_model_reach_every_run_of_a_series(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    settings = {"model.drop_path": 0.25, "model.dropout": 0.125}
    result = tune(
        pretrained,
        write_task(),
        tmp_path / "series",
        protocol="paper",
        rates=(0.01, 0.1),
        seeds=1,
        image_size=8,
        settings=settings,
    )
    for run in (result.path / "seed-0", result.path / "sweep" / "rate-0.1"):
        model = settings_of(run)["model"]
        assert (model["drop_path"], model["dropout"]) == (0.25, 0.125)


def test_hyperrule_is_one_run_by_the_datas_size(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    result = tune(
        pretrained,
        write_task(),
        tmp_path / "rule",
        protocol="bit-hyperrule",
        image_size=8,
        settings={"augment.crop": "random"},
    )
    settings = settings_of(result.path / "seed-0")
    assert settings["schedule"]["decay"] == "multistep"
    assert settings["augment"]["crop_share"] == pytest.approx(128 / 160)
    assert settings["model"]["image_size"] == [8, 8]
    assert not (result.path / "sweep").exists()
    assert result.summary["dev_accuracies"] == {}
    (row,) = result.rows
    assert row.protocol == "finetune/bit-hyperrule"


def test_data_with_validation_images_only_is_scored_on_them(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    result = tune(
        pretrained,
        write_task(validation=12, test=0),
        tmp_path / "series",
        protocol="paper",
        rates=(0.01, 0.1),
        seeds=1,
        image_size=8,
    )
    assert result.summary["split"] == "validation"
    dev = (result.path / "sweep" / "rate-0.1" / "splits.csv").read_text()
    assert dev.count(",validation,") < 12  # a part of the training images


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "one"}, "head='one' is not known: use one of zero, probe"),
        ({"protocol": "paper", "head": "probe"}, "head='probe' does not go with a protocol, who"),
        (
            {"head": "probe", "settings": {"data.validation_share": 0.0}},
            "head='probe': there is no probe without validation images",
        ),
        ({"rates": (0.1,)}, "rates and seeds are of a protocol: give --protocol paper"),
        ({"seeds": 2}, "rates and seeds are of a protocol"),
        ({"protocol": "paper", "resume": "runs/x"}, "resume='runs/x': a protocol of several runs"),
        (
            {"protocol": "paper", "settings": {"optimizer.learning_rate": 0.1}},
            "optimizer.learning_rate=0.1 has no place in paper, which compares several",
        ),
        ({"settings": {"model.depth": 3}}, "model.depth has no effect on a model of your own"),
    ],
)
def test_what_does_not_go_together_is_refused(
    pretrained: Path, write_task: Write, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        tune(pretrained, write_task(), tmp_path / "run", **options)


def test_a_folder_of_other_files_is_not_taken(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RequestError, match="has files that are not of this series, such as thesis"):
        tune(pretrained, write_task(), tmp_path / "mine", protocol="paper", image_size=8)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_protocol_needs_something_to_score(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    source = open_source(pretrained)
    images = without_split(open_dataset(write_task()), "test")
    with train_context("cpu", quiet=True) as context:
        protocol = choose_protocol("paper", facts_of(images, source.model.config))
        series = Series(protocol, source, images, RunRequest(None, title="t", command="c"), context)
        with pytest.raises(RequestError, match="has no test images, which paper ends with"):
            series.go(tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_test_images_that_were_trained_on_are_an_error(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    data = write_task()
    with np.load(data) as archive:
        arrays = dict(archive)
    arrays["images"][50] = arrays["images"][3]
    np.savez(tmp_path / "leak.npz", **arrays)
    with pytest.raises(DataError, match=r"1 of 24 test images of .* are training images too"):
        tune(pretrained, tmp_path / "leak.npz", tmp_path / "run")


# The command line, on photographs


@pytest.mark.usefixtures("results_in_runs")
@pytest.mark.usefixtures("with_report")
def test_the_command_tunes_on_photographs(
    shared: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for split in ("train", "test"):
        with tarfile.open(shared / "data" / "rsscn7" / f"{split}.tar") as archive:
            archive.extractall(tmp_path / "scenes" / split, filter="data")
    monkeypatch.chdir(tmp_path)
    command = [
        "finetune",
        str(pretrained),
        "scenes",
        "--set",
        "model.in_channels=3",
        "--steps",
        "4",
    ]
    assert main([*command, "--image-size", "16", "--output", "tuned"]) == 0
    printed = capsys.readouterr()
    assert "accuracy" in printed.out and "scenes test" in printed.out
    assert "tuned/report.html" in printed.out
    assert "of validation images" in printed.err or "validation images, with frozen" in printed.err
    protocol = ["--protocol", "paper", "--learning-rate", "0.01", "--seeds", "1", "--json"]
    assert main([*command, *protocol, "--image-size", "16", "--batch-size", "64"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["protocol"] == "paper"
    assert Path(summary["path"], "model", "config.json").exists()
    assert len(read_results(Path("runs/results.jsonl"))[0]) == 2


def test_rates_that_are_no_numbers_are_refused(
    pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", str(pretrained), "x", "--protocol", "paper", "--rates", "a,b"]) == 2
    assert "--rates a,b: give numbers, such as 0.003,0.01" in capsys.readouterr().err


def test_one_rate_and_several_are_not_both_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["--protocol", "paper", "--rates", "0.1,0.2", "--learning-rate", "0.3"]
    assert main(["finetune", "m", "d", *tokens]) == 2
    assert "--learning-rate 0.3 and --rates 0.1,0.2 both say which" in capsys.readouterr().err


def test_a_run_from_the_probe_is_another_one_than_from_zeros(
    pretrained: Path, write_task: Write, tmp_path: Path
) -> None:
    data = write_task()
    tune(pretrained, data, tmp_path / "run")
    with pytest.raises(RequestError, match="holds a run with another model"):
        tune(pretrained, data, tmp_path / "run", head="probe")


def test_a_resnet_takes_the_better_of_the_sweep_and_hyperrule(
    write_task: Write, tmp_path: Path
) -> None:
    resnet = vitral.create_model(
        "R50x1", stages=(1,), width_factor=0.5, image_size=16, num_classes=3, in_channels=1
    )
    result = tune(
        resnet, write_task(), tmp_path / "series", protocol="paper", rates=(0.01,), seeds=1,
        image_size=16, settings={"train.steps": 3, "augment.crop": "none"},
    )  # fmt: skip
    dev = {p.name: json.loads((p / "summary.json").read_text())
           for p in (result.path / "sweep").iterdir()}  # fmt: skip
    assert dev.keys() == {"rate-0.01", "hyperrule"}
    best = max(dev, key=lambda name: (dev[name]["accuracy"], -dev[name]["loss"]))
    decay = settings_of(result.path / "seed-0")["schedule"]["decay"]
    assert decay == ("multistep" if best == "hyperrule" else "cosine")
