import re
from typing import Any

import pytest
from result_rows import result_row

from vitral.errors import RequestError
from vitral.figures.results_filter import filter_results

ROWS = [
    result_row(),
    result_row(model="R50x1+ViT-B/16", path="runs/birds", time="2026-11-21T10:00:00Z"),
    result_row(model="ViT-g/14", data="vtab-dtd", protocol="vtab", path=""),
    result_row(model="ViT-G/14", protocol="knn", metric="f1_macro", path=""),
    result_row(model="my model", data="photos", protocol="finetune", path=""),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"model": "vit_base_patch16_224"}, [0]),
        ({"model": "r50+vit_b16"}, [1]),
        ({"model": "b16"}, [0, 1]),
        ({"model": "ViT-g/14"}, [2]),
        ({"model": "vit_G14"}, [3]),
        ({"model": "My-Model"}, [4]),
        ({"model": "birds"}, [1]),
        ({"data": "CIFAR_10"}, [0, 1, 3]),
        ({"data": "VTAB_dtd"}, [2]),
        ({"protocol": "finetune"}, [0, 1, 4]),
        ({"protocol": "finetune/paper"}, [0, 1]),
        ({"metric": "f1-macro"}, [3]),
        ({"since": "2026-11-21"}, [1]),
        ({"since": "2026-11-20T12:00:00+02:00"}, [0, 1, 2, 3, 4]),
        ({"since": "2026-11-20T10:00:01Z"}, [1]),
        ({"model": "b16", "since": "2026-11-01", "protocol": "finetune"}, [0, 1]),
    ],
)
def test_rows_are_chosen_by_what_is_asked_for(wanted: dict[str, Any], found: list[int]) -> None:
    assert filter_results(ROWS, **wanted) == [ROWS[number] for number in found]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"model": "vit-l/16"}, "no result has --model vit-l/16: did you mean"),
        ({"data": "cifar100"}, "no result has --data cifar100: did you mean 'cifar10'?"),
        ({"protocol": "fine"}, "no result has --protocol fine: did you mean 'finetune'?"),
        ({"metric": "xyz"}, "no result has --metric xyz: use one of accuracy, f1_macro"),
        ({"data": "photos", "protocol": "knn"}, "no result has --protocol knn and the rest too"),
        ({"since": "2027-01-01"}, "no result is as new as --since 2027-01-01: give an earlier"),
        ({"since": "yesterday"}, "--since yesterday: give a day or time, such as 2026-11-26"),
    ],
)
def test_what_finds_nothing_is_named(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        filter_results(ROWS, **wanted)
