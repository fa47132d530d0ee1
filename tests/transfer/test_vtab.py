"""VTAB-1k from the command line, on a tiny tree of all 19 tasks; its choices and means as such."""

import contextlib
import csv
import io
import json
import shutil
import statistics
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.result_rows import result_row
from support.runs import photograph
from support.vtab_tree import NUM_TEST, NUM_VALIDATION, write_vtab_tree

import vitral
from vitral.cli.main import main
from vitral.config.paper_results import VTAB_GROUPS, read_paper_results
from vitral.config.preprocessing import preprocessing_from
from vitral.config.run import AugmentSettings
from vitral.data.datasets.table import TASKS
from vitral.data.geometry import NUM_UNIFORMS
from vitral.data.resize import resize
from vitral.data.transforms import augment
from vitral.errors import RequestError
from vitral.files.results import read_results
from vitral.transfer.protocols import Candidate
from vitral.transfer.vtab import RATES, SCHEDULES, best_on_average, find_tasks, list_candidates
from vitral.transfer.vtab_tasks import mean_rows

# BiT (arXiv 1912.11370), appendix F.
WITHOUT_FLIPS = {"dsprites-loc", "dsprites-ori", "smallnorb-azim"}
WITHOUT_CROPS = {"clevr-count", "clevr-dist", "dmlab", "kitti-dist", "dsprites-loc"}
SHORT = ("--image-size", "16", "--steps", "2", "--batch-size", "4", "--device", "cpu")
GROUPS = ("natural", "specialized", "structured")


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return write_vtab_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A function that writes a tiny model under a name, and returns its folder."""
    fields = {"depth": 1, "num_heads": 2, "mlp_dim": 32, "num_classes": 3}

    def write(name="ViT-Mi/8", image_size=16, width=16):
        folder = tmp_path_factory.mktemp("models") / "model"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = vitral.create_model(name, image_size=image_size, embed_dim=width, **fields)
        vitral.save_model(model, folder)
        return folder

    return write


@pytest.fixture(scope="session")
def model(tiny):
    return tiny()


class Place:
    """A folder of runs, and the way to call the verb there."""

    def __init__(self, root, model, tree):
        self.folder, self.results = root / "own", root / "results.jsonl"
        self.model, self.tree = model, tree

    def run(self, *tokens, output=None):
        """Return the exit status, and what was printed on both streams."""
        out, err = io.StringIO(), io.StringIO()
        paths = ["--output", output or self.folder, "--results", self.results]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            given = ["vtab", self.model, "--data-dir", self.tree, *paths, *tokens]
            status = main([str(token) for token in given])
        return status, out.getvalue(), err.getvalue()

    def rows(self):
        return read_results(self.results)[0]

    def config(self, run):
        return yaml.safe_load((self.folder / run / "config.yaml").read_text())

    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture
def place(tmp_path, model, tree):
    return Place(tmp_path, model, tree)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, model, tree):
    """All 19 tasks, trained for two steps."""
    root = tmp_path_factory.mktemp("whole")
    place = Place(root, model, tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAL_CACHE_DIR", str(root / "cache"))
        status, place.out, _ = place.run(*SHORT, "--set", "optimizer.clip_norm=0.5")
    assert status == 0
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_one_setting_but_flips_and_crops(whole, name):
    config = whole.config(f"tasks/{name}")
    settings, augmented = config["settings"], config["settings"]["augment"]
    assert config["recipe"]["name"] == "vtab"
    assert settings["optimizer"]["name"] == "sgd"
    assert settings["optimizer"]["learning_rate"] == 0.01
    assert settings["optimizer"]["clip_norm"] == 0.5
    assert (settings["train"]["steps"], settings["train"]["batch_size"]) == (2, 4)
    assert settings["preprocessing"]["size"] == [16, 16]
    assert augmented["flip"] == (name not in WITHOUT_FLIPS)
    assert augmented["crop"] == ("none" if name in WITHOUT_CROPS else "random")
    if name not in WITHOUT_CROPS:
        assert augmented["crop_share"] == 384 / 448


@pytest.mark.slow
def test_without_crops_an_image_is_squashed_whole(whole):
    settings = whole.config("tasks/clevr-count")["settings"]
    ready = preprocessing_from(settings["preprocessing"])
    image = photograph(20, 37)
    numbers = np.random.default_rng(0).random(NUM_UNIFORMS)
    changed = augment(
        image, numbers, settings=AugmentSettings(**settings["augment"]), preprocessing=ready
    )
    np.testing.assert_array_equal(changed, resize(image, (16, 16), ready))


@pytest.mark.slow
def test_a_task_is_trained_on_all_its_thousand_and_scored_on_all_tests(whole):
    rows = {row.data: row for row in whole.rows() if row.data.removeprefix("vtab-") in TASKS}
    assert list(rows) == [f"vtab-{name}" for name in TASKS]
    for name, task in TASKS.items():
        splits = [record["split"] for record in _csv(whole.folder / "tasks" / name / "splits.csv")]
        counts = {split: splits.count(split) for split in set(splits)}
        assert counts == {"train": task.num_classes + NUM_VALIDATION, "test": NUM_TEST}
        row = rows[f"vtab-{name}"]
        assert (row.num_examples, row.split, row.protocol) == (NUM_TEST, "test", "vtab")
        assert row.value == whole.summary()["tasks"][name]


@pytest.mark.slow
def test_the_means_are_plain_means_over_tasks(whole):
    rows = {row.data: row for row in whole.rows()}
    for group in GROUPS:
        names = [f"vtab-{name}" for name, task in TASKS.items() if task.group == group]
        row = rows[f"vtab-{group}"]
        assert row.value == pytest.approx(statistics.fmean(rows[name].value for name in names))
        assert row.num_examples == NUM_TEST * len(names)
    everything = [rows[f"vtab-{name}"].value for name in TASKS]
    assert rows["vtab"].value == pytest.approx(statistics.fmean(everything))
    assert len(rows) == len(whole.rows()) == 19 + 4


@pytest.mark.slow
def test_what_is_printed_is_the_table_with_the_papers_means_below(whole):
    lines = whole.out.splitlines()
    assert [line.split()[1] for line in lines[1:24]] == [row.data for row in whole.rows()]
    assert [line.split(":")[0] for line in lines[24:27]] == [
        "Table 9   ViT-H/14, JFT-300M",
        "Table 9   ViT-L/16, JFT-300M",
        "Table 9   ViT-L/16, ImageNet-21k",
    ]
    assert lines[27:] == [f"folder    {whole.folder}"]


@pytest.mark.slow
def test_only_the_models_of_finished_tasks_are_kept(whole):
    assert not list(whole.folder.glob("**/checkpoints"))
    assert len(list(whole.folder.glob("tasks/*/model"))) == 19


def test_mean_rows_reproduce_table_9():
    rows = [
        result_row(data=f"vtab-{row.task}", value=row.value / 100, interval=None,
                   interval_over=None, num_examples=TASKS[row.task].num_test, protocol="vtab",
                   settings={"image_size": 384, "augment": {"crop": row.task, "mixup": 0.0}})
        for row in read_paper_results()
        if row.source == "Table 9" and row.model == "ViT-H/14" and row.task in TASKS
    ]  # fmt: skip
    means = {row.data: row for row in mean_rows(rows, Path("runs/h14"))}
    values = {data: round(100 * row.value, 2) for data, row in means.items()}
    assert values == {
        "vtab-natural": 86.69, "vtab-specialized": 87.00, "vtab-structured": 65.03, "vtab": 77.63
    }  # fmt: skip
    assert means["vtab"].num_examples == sum(task.num_test for task in TASKS.values())
    assert means["vtab-specialized"].num_examples == 32_768 + 5_400 + 6_300 + 42_670
    assert means["vtab"].settings == {"image_size": 384, "augment.mixup": 0.0}
    assert means["vtab"].path == str(Path("runs/h14"))


def test_a_group_that_lacks_a_task_has_no_mean():
    rows = [result_row(data=f"vtab-{name}") for name in VTAB_GROUPS["specialized"]]
    assert [row.data for row in mean_rows(rows, Path())] == ["vtab-specialized"]
    assert mean_rows(rows[1:], Path()) == []


def test_the_same_command_runs_nothing_twice_and_takes_further_tasks(place):
    first = place.run(*SHORT, "--tasks", "camelyon")
    before = _written(place.folder / "tasks/camelyon")
    again = place.run(*SHORT, "--tasks", "camelyon")
    assert first[:2] == again[:2]
    assert place.run(*SHORT, "--tasks", "camelyon,kitti-dist")[0] == 0
    assert _written(place.folder / "tasks/camelyon") == before
    assert [row.data for row in place.rows()] == ["vtab-camelyon", "vtab-kitti-dist"]


def test_a_run_that_ended_before_its_outcome_was_kept_is_not_run_again(place):
    assert place.run(*SHORT, "--tasks", "camelyon")[0] == 0
    path = place.folder / "tasks/camelyon"
    outcome = (path / "outcome.json").read_text()
    (path / "outcome.json").unlink()
    before = _written(path)
    assert place.run(*SHORT, "--tasks", "camelyon")[0] == 0
    after = _written(path)
    assert after.pop(path / "outcome.json")
    assert after == before
    first, found = (json.loads(text) for text in (outcome, (path / "outcome.json").read_text()))
    assert {**found["found"], "time": ""} == {**first["found"], "time": ""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--set", "train.seed=1"), "settings"),
        (("--image-size", "24"), "candidates, image_size"),
        (("--sweep",), "candidates, tasks"),
        (("--set", "model.dropout=0.2"), "dropout"),
    ],
)
def test_another_setting_into_the_same_folder_is_refused(whole, changed, named):
    tokens = [*SHORT, "--set", "optimizer.clip_norm=0.5", "--tasks", "dtd", *changed]
    status, _, err = whole.run(*tokens)
    assert status == 2
    assert f"holds a series with another {named}: use the same" in err


def test_where_the_data_lies_may_change_but_not_the_images(place, tmp_path):
    place.run(*SHORT, "--tasks", "camelyon")
    folder = TASKS["camelyon"].tree[0]
    moved = tmp_path / "moved"
    shutil.copytree(place.tree / "vtab-1k" / folder, moved / folder)
    place.tree = moved
    assert place.run(*SHORT, "--tasks", "camelyon")[0] == 0
    (moved / folder / "test.txt").write_text("images/test/000001.jpg 0\nimages/test/000002.jpg 1")
    status, _, err = place.run(*SHORT, "--tasks", "camelyon")
    assert status == 2
    assert "tasks/camelyon was found on other images than" in err.replace("\\", "/")


@pytest.mark.slow
def test_a_sweep_chooses_one_setting_for_all_without_a_look_at_test_images(place):
    tokens = [*SHORT, "--sweep", "--tasks", "camelyon,clevr-count"]
    status, out, _ = place.run(*tokens)
    assert status == 0
    names = [f"learning_rate-{rate:g}" for rate in RATES]
    summary = place.summary()
    assert list(summary["dev_accuracies"]) == names
    for name in names:
        scores = []
        for task in ("camelyon", "clevr-count"):
            run = place.folder / "sweep" / name / task
            assert {row["split"] for row in _csv(run / "splits.csv")} == {"train", "validation"}
            run_summary = json.loads((run / "summary.json").read_text())
            assert (run_summary["split"], run_summary["num_examples"]) == (
                "validation",
                NUM_VALIDATION,
            )
            assert not (run / "model").exists()
            scores.append(run_summary["accuracy"])
        assert summary["dev_accuracies"][name] == pytest.approx(statistics.fmean(scores))
    best = max(names, key=lambda name: summary["dev_accuracies"][name])
    assert summary["chosen"] == best
    assert f"{best} for all tasks" in out
    for task in ("camelyon", "clevr-count"):
        settings = place.config(f"tasks/{task}")["settings"]
        assert f"learning_rate-{settings['optimizer']['learning_rate']:g}" == best
    before = _written(place.folder / "sweep")
    assert place.run(*tokens)[:2] == (0, out)
    assert _written(place.folder / "sweep") == before


@given(st.lists(st.lists(st.integers(0, 200), min_size=3, max_size=3), min_size=1, max_size=4))
def test_the_best_is_the_first_of_the_highest_mean(right):
    candidates = [Candidate(str(number), "vtab") for number in range(len(right))]
    scores = {
        candidate.name: {f"task{number}": count / 200 for number, count in enumerate(counts)}
        for candidate, counts in zip(candidates, right, strict=True)
    }
    wanted = int(np.argmax(np.sum(right, axis=1)))
    assert best_on_average(candidates, scores).name == str(wanted)


RATE, STEPS = {"optimizer.learning_rate": 0.1}, {"train.steps": 9}


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ({}, [{"optimizer.learning_rate": r, "train.steps": s} for r in RATES for s in SCHEDULES]),
        (RATE, [{"train.steps": steps} for steps in SCHEDULES]),
        (STEPS, [{"optimizer.learning_rate": rate} for rate in RATES]),
        ({"train.epochs": 2.0}, [{"optimizer.learning_rate": rate} for rate in RATES]),
    ],
)
def test_what_is_asked_for_is_not_swept(overrides, wanted):
    found = list_candidates(overrides, image_size=None, sweep=True)
    assert [candidate.settings for candidate in found] == wanted
    assert {candidate.image_size for candidate in found} == {384}
    assert len({candidate.name for candidate in found}) == len(found)
    [candidate] = list_candidates(overrides, image_size=(32, 48), sweep=False)
    assert (candidate.settings, candidate.image_size, candidate.recipe) == ({}, (32, 48), "vtab")


def test_a_sweep_begins_with_what_the_paper_settled_on():
    first = list_candidates({}, image_size=None, sweep=True)[0]
    assert first.settings == {"optimizer.learning_rate": 0.01, "train.steps": 2500}


def test_frozen_features_are_scored_with_classes_unseen_in_training(place):
    tokens = ["--linear", "--device", "cpu", "--tasks", "sun397,camelyon"]
    status, out, _ = place.run(*tokens)
    assert status == 0
    rows = place.rows()
    assert [(row.data, row.protocol) for row in rows] == [
        ("vtab-sun397", "vtab/linear"), ("vtab-camelyon", "vtab/linear")
    ]  # fmt: skip
    assert all(row.num_examples == NUM_TEST and row.precision == "float32" for row in rows)
    assert rows[0].settings["preprocessing"]["size"] == [16, 16]
    assert place.run(*tokens)[:2] == (0, out)
    assert place.rows() == rows


def test_a_probe_takes_another_size_and_precision(place):
    tokens = ["--linear", "--tasks", "camelyon", "--image-size", "24", "--precision", "bf16"]
    assert place.run(*tokens, "--device", "cpu")[0] == 0
    [row] = place.rows()
    assert row.settings["preprocessing"]["size"] == [24, 24]
    assert row.precision == "bfloat16"


def test_real_textures_are_told_apart_by_frozen_features(shared, tmp_path, tiny):
    names = (shared / "data/dtd10/classes.txt").read_text().split()
    folder = tmp_path / "tree/dtd"
    lists = {"train800": [], "val200": [], "test": []}
    for split in ("train", "test"):
        with tarfile.open(shared / f"data/dtd10/{split}.tar") as archive:
            archive.extractall(folder / split, filter="data")
        for number, path in enumerate(sorted((folder / split).glob("*/*.jpg"))):
            part = "test" if split == "test" else "train800" if number % 4 else "val200"
            label = names.index(path.parent.name)
            lists[part].append(f"{path.relative_to(folder).as_posix()} {label}")
    for part, lines in lists.items():
        (folder / f"{part}.txt").write_text("\n".join(lines))
    place = Place(tmp_path, tiny(image_size=64, width=128), tmp_path / "tree")
    assert place.run("--linear", "--device", "cpu", "--tasks", "dtd")[0] == 0
    [row] = place.rows()
    assert row.num_examples == 100
    assert row.value > 0.17  # 0.24 here, from random weights; chance is 0.1


def test_missing_tasks_are_named_and_the_others_run(place, tmp_path):
    partial_tree = tmp_path / "tree"
    write_vtab_tree(partial_tree, ["camelyon"])
    place.tree = partial_tree
    status, out, err = place.run(*SHORT, "--tasks", "pets,camelyon,dtd")
    assert status == 0
    assert "missing   dtd, pets: a mean needs every task of its group" in out
    assert "missing: pets: pets needs" in err
    assert "or name another folder with --data-dir" in err
    assert set(place.summary()["missing"]) == {"dtd", "pets"}
    assert [row.data for row in place.rows()] == ["vtab-camelyon"]


def test_tasks_are_found_by_any_spelling_in_the_tables_order(tree):
    found, missing = find_tasks(["Clevr_Count", "vtab-dtd"], tree)
    assert (found, missing) == (["dtd", "clevr-count"], {})
    assert find_tasks([], tree) == (list(TASKS), {})


def test_table_9_stands_beside_its_own_models(place, tiny):
    place.model = tiny("ViT-L/16", 16)
    status, out, _ = place.run(*SHORT, "--tasks", "camelyon", "--json")
    assert status == 0
    printed = json.loads(out)
    assert printed == place.summary() | {"path": str(place.folder)}
    out = place.run(*SHORT, "--tasks", "camelyon")[1]
    assert "83.6 % (Table 9, JFT-300M, image_size=384)" in out
    assert "natural" not in out
    # Its dropout is that of the authors' fine-tuning.
    assert place.config("tasks/camelyon")["settings"]["model"]["dropout"] == 0.1


def test_a_dropout_that_is_asked_for_is_taken(place):
    assert place.run(*SHORT, "--tasks", "camelyon", "--set", "model.dropout=0.25")[0] == 0
    assert place.config("tasks/camelyon")["settings"]["model"]["dropout"] == 0.25


def test_crops_asked_for_do_not_reach_tasks_without_them(place):
    overrides = ["--set", "augment.crop_share=0.5", "--set", "augment.crop=random"]
    assert place.run(*SHORT, "--tasks", "camelyon,clevr-count", *overrides)[0] == 0
    crops = {
        name: place.config(f"tasks/{name}")["settings"]["augment"]
        for name in ("camelyon", "clevr-count")
    }
    assert (crops["camelyon"]["crop"], crops["camelyon"]["crop_share"]) == ("random", 0.5)
    assert crops["clevr-count"]["crop"] == "none"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--tasks", "dtt"], "VTAB has no task 'dtt': did you mean 'dtd'?"),
        (["--sweep", "--linear"], "--sweep has no effect with --linear"),
        (["--linear", "--steps", "2"], "train.steps has no effect with --linear"),
        (["--linear", "--set", "model.dropout=0"], "model.dropout has no effect with --linear"),
        (["--set", "data.folds=5"], "data.folds has no effect on VTAB, whose splits are given"),
        (["--set", "evaluation.keep_best=true"], "evaluation.keep_best has no effect on VTAB"),
        (["--sweep", "--steps", "2", "--lr", "0.1"], "--sweep has nothing left to compare"),
        (["--data-dir", "nowhere"], "none of VTAB's tasks is there, so of caltech101: caltech101"),
    ],
)
def test_a_request_that_makes_no_sense_is_an_error_before_anything_runs(place, tokens, message):
    status, _, err = place.run(*tokens)
    assert status == 2
    assert message in err
    assert not place.folder.exists()


def test_a_task_whose_test_images_are_damaged_is_an_error(place, tmp_path):
    place.tree = write_vtab_tree(tmp_path / "tree", ["camelyon"])
    for path in (tmp_path / "tree").glob("**/images/test/*.jpg"):
        path.write_bytes(b"damaged")
    status, _, err = place.run(*SHORT, "--tasks", "camelyon")
    assert status == 3
    assert "vtab-camelyon has no test image that can be used" in err


def test_a_candidate_needs_something_to_differ_in():
    with pytest.raises(RequestError, match="leave one of the three out"):
        list_candidates(RATE | STEPS, image_size=None, sweep=True)


def test_a_python_call_needs_no_command_line(tmp_path, model, tree):
    from vitral.transfer.vtab import vtab

    result = vtab(
        vitral.load_model(model),
        directory=tree,
        tasks=["camelyon"],
        image_size=16,
        settings={"train.steps": 2, "train.batch_size": 4, "train.device": "cpu"},
        output=tmp_path / "own",
        results=tmp_path / "results.jsonl",
        quiet=True,
    )
    assert [row.data for row in result.rows] == ["vtab-camelyon"]
    assert result.summary["means"] == {}


def _csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _written(folder):
    """Return when each file below was written last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.stat().st_mtime_ns for path in files}
