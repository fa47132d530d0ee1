import csv
import io
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_rows import result_row

from vitral.figures.results_compare import (
    compare_results,
    comparison_record,
    format_comparisons,
)
from vitral.files.results import ResultRow


def model(name: str, low: float, high: float, **changes: Any) -> ResultRow:
    hash_of_name = name.encode().hex().ljust(32, "0")[:32]
    changes = {"weights": hash_of_name, "value": (low + high) / 2} | changes
    return result_row(**{"model": name, "interval": (low, high)} | changes)


ROWS = [model("a", 0.1, 0.3), model("b", 0.6, 0.8), model("c", 0.5, 0.7)]


def test_models_are_put_side_by_side_the_best_first() -> None:
    [comparison], num_alone = compare_results([*ROWS, model("d", 0, 1, data="pets")])
    assert num_alone == 1
    assert [row.model for row in comparison.rows] == ["b", "c", "a"]
    assert format_comparisons([comparison]).splitlines()[0] == (
        "cifar10 test, finetune/paper, accuracy"
    )
    lines = [line.split("  ") for line in format_comparisons([comparison]).splitlines()[2:]]
    told = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert [line[:6] for line in told] == [
        ["b", "70.0 %", "60.0 to 80.0 % over images", "10,000", "0", "best"],
        ["c", "60.0 %", "50.0 to 70.0 % over images", "10,000", "0", "-10.0 points"],
        ["a", "20.0 %", "10.0 to 30.0 % over images", "10,000", "0", "-50.0 points"],
    ]
    assert [line[6] for line in told[1:]] == ["overlap", "apart"]


@pytest.mark.parametrize(
    "changes",
    [{"data": "pets"}, {"split": "validation"}, {"protocol": "knn"}, {"metric": "f1"},
     {"settings": {"image_size": 385}}],
)  # fmt: skip
def test_what_differs_is_not_compared(changes: dict[str, Any]) -> None:
    assert compare_results([ROWS[0], model("x", 0.1, 0.3, **changes)]) == ([], 2)


def test_what_a_protocol_chose_for_each_model_keeps_none_apart() -> None:
    rows = [
        model(name, low, low + 0.1, settings={"l2_grid": [1, 10], "chosen": {"l2": l2}})
        for name, low, l2 in (("a", 0.1, 1), ("b", 0.2, 10))
    ]
    [comparison], num_alone = compare_results(rows)
    assert ([row.model for row in comparison.rows], num_alone) == (["b", "a"], 0)


def test_the_newest_row_of_the_same_weights_and_seed_counts() -> None:
    again = model("a", 0.2, 0.4)
    [comparison], _ = compare_results([*ROWS, again, model("a", 0.3, 0.5, seed=1)])
    assert again in comparison.rows
    assert ROWS[0] not in comparison.rows
    assert len(comparison.rows) == 4


def test_the_lowest_loss_is_the_best() -> None:
    rows = [model(name, low, low + 1, metric="loss") for name, low in (("a", 2), ("b", 1))]
    [comparison], _ = compare_results(rows)
    assert [row.model for row in comparison.rows] == ["b", "a"]
    assert "+1.000" in format_comparisons([comparison])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=2))
def test_intervals_overlap_where_they_share_a_point(ends: list[tuple[float, float]]) -> None:
    (a, b), (c, d) = map(sorted, ends)
    rows = [model("x", a, b, value=a), model("y", c, d, value=c)]
    [comparison], _ = compare_results(rows)
    share = any(a <= point <= b and c <= point <= d for point in (a, b, c, d))
    assert {comparison.overlap(row) for row in comparison.rows[1:]} == {share}


@pytest.mark.parametrize(
    "changes", [{"interval": None, "interval_over": None}, {"interval_over": "seeds"}]
)
def test_intervals_of_which_one_lacks_or_is_of_another_kind_are_not_compared(
    changes: dict[str, Any],
) -> None:
    for first, second in itertools.permutations([ROWS[0], model("x", 0.1, 0.3, **changes)]):
        [comparison], _ = compare_results([first, second])
        assert comparison.overlap(comparison.rows[1]) is None
        assert "not known" in format_comparisons([comparison])


def test_heads_tell_comparisons_of_different_settings_apart() -> None:
    other = {"settings": {"image_size": 224}}
    rows = [*ROWS[:2], model("x", 0, 1, **other), model("y", 0, 1, **other)]
    comparisons, _ = compare_results(rows)
    text = format_comparisons(comparisons, format="markdown")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### cifar10 test, finetune/paper, image_size=384, accuracy",
        "### cifar10 test, finetune/paper, image_size=224, accuracy",
    ]
    assert text.count("| model | value |") == 2


def test_csv_and_json_have_the_differences() -> None:
    comparisons, _ = compare_results(ROWS)
    read = list(csv.DictReader(io.StringIO(format_comparisons(comparisons, format="csv"))))
    told = comparison_record(comparisons[0])
    assert (told["data"], told["settings"]) == ("cifar10", {"image_size": 384})
    assert [row["model"] for row in read] == [own["model"] for own in told["models"]]
    for row, own in zip(read, told["models"], strict=True):
        assert float(row["difference"]) == own["difference"]
        assert row["intervals_overlap"] == str(own["intervals_overlap"])


def test_a_bfloat16_row_is_marked_beside_the_same_model_in_float32() -> None:
    [comparison], _ = compare_results([ROWS[0], model("a", 0.1, 0.2, precision="bfloat16")])
    assert "a, bfloat16" in format_comparisons([comparison])
