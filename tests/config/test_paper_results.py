"""The table of published figures: its sums are the paper's, and it agrees with itself."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.config.names import parse_model_name
from vitral.config.paper_results import (
    AVERAGE_FIVE,
    VTAB_GROUPS,
    PaperRow,
    average_five,
    paper_rows,
    pretraining_name,
    read_paper_results,
    vtab_means,
)
from vitral.data.datasets.names import BUILTIN, JFT
from vitral.data.datasets.table import DATASETS, LABEL_SETS, TASKS
from vitral.errors import RequestError

ROWS = read_paper_results()
Named = tuple[str, str, str]


def values(source: str, wanted: Callable[[PaperRow], bool] = lambda row: True) -> dict[str, float]:
    """Return the accuracies of a source by task; each task is there once."""
    rows = [
        row for row in ROWS if row.source == source and row.metric == "accuracy" and wanted(row)
    ]
    by_task = {row.task: row.value for row in rows}
    assert len(by_task) == len(rows)
    return by_task


def runs(source: str) -> list[tuple[str, str, float | None, str]]:
    found = [(r.model, r.pretraining, r.epochs, r.optimizer) for r in ROWS if r.source == source]
    return list(dict.fromkeys(found))


def of(source: str, run: tuple[str, str, float | None, str]) -> dict[str, float]:
    return values(source, lambda r: (r.model, r.pretraining, r.epochs, r.optimizer) == run)


@pytest.mark.parametrize(
    ("model", "pretraining", "means"),
    [
        ("ViT-H/14", "jft300m", (86.69, 87.00, 65.03, 77.63)),
        ("ViT-L/16", "jft300m", (85.56, 86.72, 62.96, 76.28)),
        ("ViT-L/16", "imagenet21k", (83.27, 84.65, 57.50, 72.72)),
    ],
)
def test_table_9_has_the_means_of_its_groups_and_of_table_2(
    model: str, pretraining: str, means: tuple[float, float, float, float]
) -> None:
    row = values("Table 9", lambda r: (r.model, r.pretraining) == (model, pretraining))
    tasks = {task: value for task, value in row.items() if task in TASKS}
    found = vtab_means(tasks)
    assert len(tasks) == 19
    assert list(found) == ["natural", "specialized", "structured", "overall"]
    # The tasks are printed with one decimal, so that their mean may be off in the second.
    assert list(found.values()) == pytest.approx(means, abs=0.0101)
    stated = [row[f"vtab-{group}"] for group in VTAB_GROUPS]
    assert list(found.values())[:3] == pytest.approx(stated, abs=0.0051)
    assert row["vtab"] == pytest.approx(found["overall"], abs=0.051)
    printed = paper_rows(model, "vtab", pretraining=pretraining)[0]
    assert (printed.source, printed.value) == ("Table 2", means[3])


@pytest.mark.parametrize("source", ["Table 6", "Table 7"])
def test_the_averages_of_tables_6_and_7_are_over_the_five_sets(source: str) -> None:
    for run in runs(source):
        row = of(source, run)
        name, mean = average_five({task: row[task] for task in AVERAGE_FIVE})
        assert name == "Average-5"
        assert mean == pytest.approx(row["average-5"], abs=0.0101)


def test_table_7_s_averages_are_those_printed() -> None:
    printed = [of("Table 7", run)["average-5"] for run in runs("Table 7")]
    assert printed == [89.33, 88.79, 94.01, 93.72]


@pytest.mark.parametrize(
    ("first", "second", "model", "differing"),
    [
        ("Table 2", "Table 5", "ViT-H/14", {"imagenet", "imagenet-real"}),
        ("Table 5", "Table 6", "ViT-B/32", set()),
        ("Table 5", "Table 6", "ViT-B/16", set()),
        ("Table 5", "Table 6", "ViT-L/32", set()),
        ("Table 5", "Table 6", "ViT-L/16", set()),
        ("Table 5", "Table 6", "ViT-H/14", {*AVERAGE_FIVE, "imagenet-real"} - {"cifar10"}),
        ("Table 6", "Table 7", "R50x1", set()),
        ("Table 6", "Table 7", "R152x2", set()),
    ],
)
def test_tables_that_show_the_same_runs_agree(
    first: str, second: str, model: str, differing: set[str]
) -> None:
    def longest(source: str) -> dict[str, float]:
        def same(r: PaperRow) -> bool:
            return r.pretraining == "jft300m" and r.optimizer == "adam" and r.model == model

        epochs = {r.epochs for r in ROWS if r.source == source and same(r)}
        both = {r.epochs for r in ROWS if r.source in (first, second) and same(r)} & epochs
        chosen = 7 if "Table 7" in (first, second) else max(filter(None, both))
        return values(source, lambda r: same(r) and r.epochs == chosen)

    one, other = longest(first), longest(second)
    shared = one.keys() & other.keys() - {"average-5"}
    assert len(shared) >= 5
    assert {task for task in shared if one[task] != other[task]} == differing


def test_the_two_figures_of_h14_on_imagenet_are_both_there() -> None:
    found = {row.source: row.value for row in paper_rows("ViT-H/14", "imagenet")
             if row.pretraining == "jft300m"}  # fmt: skip
    assert found == {"Table 2": 88.55, "Table 5": 88.04, "Table 6": 88.08}


@pytest.mark.parametrize(
    ("heading", "source", "columns"),
    [
        ("C.2 Table 5", "Table 5", slice(2, None)),
        ("C.3 Table 6", "Table 6", slice(2, 9)),
        ("C.4 Table 7", "Table 7", slice(1, None)),
        ("C.6 Table 9", "Table 9", slice(1, None)),
    ],
)
def test_every_figure_of_the_facts_is_in_the_table(
    heading: str, source: str, columns: slice, shared: Path
) -> None:
    """Numbers are compared as a multiset: the sums above tell whether they stand in place."""
    part = (shared / "paper.md").read_text(encoding="utf-8").split(f"## {heading}")[1]
    part = part.split("\n## ")[0]
    lines = [line[1:].rstrip("| ").split("|") for line in part.splitlines() if line.startswith("|")]
    printed = [re.sub(r"[^\d.]", "", cell) for line in lines[2:] for cell in line[columns]]
    published = [r.value for r in ROWS if r.source == source]
    if source == "Table 6":
        published = [r.value for r in ROWS if r.source == source and r.task != "average-5"]
    assert sorted(float(text) for text in printed if text) == sorted(published)


def test_table_2_is_there_with_its_deviations(shared: Path) -> None:
    part = (shared / "paper.md").read_text(encoding="utf-8").split("## C.1")[1].split("\n## ")[0]
    lines = [line[1:].rstrip("| ").split("|") for line in part.splitlines() if line[:1] == "|"]
    cells = [cell.strip().split("±") for line in lines[2:-1] for cell in line[1:5]]
    printed = [(float(value), float(std[0]) if std else None) for value, *std in cells]
    rows = [row for row in ROWS if row.source == "Table 2" and row.model != "EfficientNet-L2"]
    assert printed == [(row.value, row.std) for row in rows if row.metric == "accuracy"]


def test_the_figures_of_the_released_models_are_there(shared: Path) -> None:
    part = (shared / "paper.md").read_text(encoding="utf-8").split("## C.7")[1].split("\n---")[0]
    tuned, recommended = part.split("AugReg recommended")
    pairs = re.findall(r"(\d\d\.\d\d)/(\d\d\.\d\d)", tuned)
    readme = [row.value for row in ROWS if row.source == "vision_transformer README"]
    assert [float(value) for pair in pairs for value in pair] == readme
    augreg = [row for row in ROWS if row.source == "AugReg README"]
    accuracies = re.findall(r" (\d\d\.\d\d)", recommended)
    assert [float(value) for value in accuracies] == [
        row.value for row in augreg if row.metric == "accuracy"
    ]
    speeds = ",".join(f"{row.value:g}" for row in augreg if row.metric != "accuracy")
    assert speeds in recommended


def test_every_name_is_one_of_ours() -> None:
    sets = {*BUILTIN, *DATASETS, *LABEL_SETS, JFT}
    means = {"vtab", "average-5", *(f"vtab-{group}" for group in VTAB_GROUPS)}
    for row in ROWS:
        if row.model != "EfficientNet-L2":
            assert parse_model_name(row.model)["name"] == row.model
        if row.metric != "accuracy":
            assert row.task == row.protocol
        else:
            assert 0 < row.value < 100
            assert row.task in means | (set(TASKS) if row.protocol == "vtab" else sets)
        assert row.pretraining in ("", "imagenet", "imagenet21k", "jft300m")
        assert row.optimizer in ("", "adam", "sgd")


def test_the_groups_are_those_of_the_data() -> None:
    assert {task: group for group, tasks in VTAB_GROUPS.items() for task in tasks} == {
        name: task.group for name, task in TASKS.items()
    }


@pytest.mark.parametrize(
    ("spelling", "task", "found"),
    [
        ("vit_l16", "CIFAR-10", 9),
        ("ViT-L_16", "cifar10", 9),
        ("vit_large_patch16_384", "cifar_10", 9),
        ("r50+vit-b/16", "pets", 1),
        ("resnetv2_50x1_bit", "Average 5", 3),
        ("efficientnet_l2", "imagenet", 2),
        ("ViT-g/14", "imagenet", 0),
        ("my own", "imagenet", 0),
        ("ViT-B/16", "photos", 0),
    ],
)
def test_names_are_matched_whatever_their_case_and_separators(
    spelling: str, task: str, found: int
) -> None:
    assert len(paper_rows(spelling, task)) == found


def test_a_task_of_vtab_is_told_from_the_data_set() -> None:
    def protocols(task: str) -> set[str]:
        return {row.protocol for row in paper_rows("ViT-L/16", task, protocol=None)}

    assert protocols("vtab-cifar100") == protocols("vtab-cifar100-1000") == {"vtab"}
    assert protocols("cifar100") == {"vtab", "finetune/paper", "finetune/vision_transformer"}
    fine_tuned = paper_rows("ViT-L/16", "cifar100", protocol="finetune")
    assert {r.protocol for r in fine_tuned} == {"finetune/paper", "finetune/vision_transformer"}
    exact = paper_rows("ViT-L/16", "cifar100", protocol="finetune/paper")
    assert {r.protocol for r in exact} == {"finetune/paper"}


def test_pretraining_is_understood_as_the_catalogue_writes_it() -> None:
    of_21k = paper_rows("ViT-B/16", "imagenet", pretraining="ImageNet-21k, then ImageNet-1k")
    assert {row.pretraining for row in of_21k} == {"imagenet21k"}
    assert pretraining_name("ImageNet-1k") == "imagenet"
    assert pretraining_name("JFT-300M") == "jft300m"
    assert paper_rows("ViT-B/16", "imagenet", pretraining="LVD-142M") == []


def test_costs_are_in_their_units() -> None:
    cost = {row.metric: row.value for row in paper_rows("ViT-H/14", "pretraining")}
    assert cost == {"tpuv3_core_days": 2500, "exaflops": 4262}
    [speed] = paper_rows("ViT-Ti/16", "inference")
    assert (speed.metric, speed.value) == ("images_per_second", 610)


@given(st.dictionaries(st.sampled_from(sorted(TASKS)), st.floats(0, 1), min_size=1))
def test_a_group_has_a_mean_only_when_it_is_whole(by_task: dict[str, float]) -> None:
    means = vtab_means({f"vtab-{task}-1000": value for task, value in by_task.items()})
    whole = {group for group, tasks in VTAB_GROUPS.items() if set(tasks) <= set(by_task)}
    assert means.keys() - {"overall"} == whole
    assert ("overall" in means) == (len(by_task) == 19)
    assert all(0 <= mean <= 1 for mean in means.values())


@given(st.lists(st.sampled_from([*AVERAGE_FIVE, "dtd"]), min_size=1, unique=True))
def test_only_the_five_sets_are_called_average_5(names: list[str]) -> None:
    name, mean = average_five(dict.fromkeys(names, 0.5))
    assert mean == 0.5
    assert (name == "Average-5") == (set(names) == set(AVERAGE_FIVE))
    assert name == "Average-5" or all(dataset in name for dataset in names)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: vtab_means({"dtdd": 1.0}), "VTAB has no task 'dtdd': did you mean 'dtd'?"),
        (lambda: vtab_means({"dtd": 1.0, "vtab-dtd": 1.0}), "'vtab-dtd' is VTAB's task dtd a sec"),
        (lambda: average_five({}), "a mean over no data set: give one value or more"),
    ],
)
def test_mistakes_are_named(act: Callable[[], object], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        act()
