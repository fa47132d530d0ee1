from typing import Any

import pytest
from support.result_rows import result_row

from vitral.figures.paper_comparison import (
    comparable_paper_rows,
    describe_paper_means,
    flat_settings,
    paper_cell,
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "99.0 % (Table 5, ImageNet-21k)"),
        ({"model": "vit_b16", "data": "CIFAR-10"}, "99.0 % (Table 5, ImageNet-21k)"),
        ({"pretraining": "ImageNet-21k, then ImageNet-1k"}, "99.0 % (Table 5, ImageNet-21k)"),
        ({"settings": {}}, "99.0 % (Table 5, ImageNet-21k)"),
        ({"settings": {"preprocessing": {"size": [224, 224]}}},
         "99.0 % (Table 5, ImageNet-21k, image_size=384)"),
        ({"pretraining": ""}, "98.1 % (Table 5, ImageNet); 99.0 % (Table 5, ImageNet-21k); "
                              "99.0 % (Table 5, JFT-300M)"),
        ({"protocol": "evaluate"}, "99.0 % (Table 5, ImageNet-21k)"),
        ({"protocol": "finetune/vision_transformer"}, "99.0 % (vision_transformer README, "
                                                      "ImageNet-21k)"),
        ({"model": "ViT-L/16", "data": "imagenet", "settings": {"image_size": 512}},
         "85.3 % (Table 2, ImageNet-21k)"),
        ({"model": "ViT-L/16", "data": "imagenet"}, "85.2 % (Table 5, ImageNet-21k)"),
        ({"model": "ViT-H/14", "data": "vtab-svhn-1000", "protocol": "vtab",
          "pretraining": "jft300m"},
         "88.9 % (Table 9, JFT-300M)"),
        ({"model": "R50x1", "data": "average-5", "pretraining": "jft300m"},
         "89.3 % (Table 6, JFT-300M)"),
        ({"data": "imagenet", "protocol": "fewshot", "pretraining": "jft300m",
          "settings": {"shots": 5}}, "about 63.5 % (Figure 13, JFT-300M)"),
        ({"data": "imagenet", "protocol": "fewshot", "pretraining": "", "settings": {"shots": 5}},
         "64.2 % (Table 8); about 63.5 % (Figure 13, JFT-300M)"),
        ({"data": "imagenet", "protocol": "fewshot", "pretraining": "",
          "settings": {"shots": 10}}, ""),
        ({"protocol": "knn"}, ""),
        ({"split": "validation"}, ""),
        ({"metric": "f1_macro"}, ""),
        ({"pretraining": "LVD-142M"}, ""),
        ({"data": "photos"}, ""),
        ({"model": "my own"}, ""),
    ],
)  # fmt: skip
def test_the_most_alike_figure_of_each_pretraining_stands_beside_a_row(
    changes: dict[str, Any], told: str
) -> None:
    assert paper_cell(result_row(**changes)) == told


def test_only_the_model_of_that_name_is_beside_not_its_variants() -> None:
    changes = {"data": "imagenet", "protocol": "fewshot", "pretraining": "", "settings": {}}
    assert all(not paper.variant for paper in comparable_paper_rows(result_row(**changes)))


def test_settings_are_flattened_by_dots() -> None:
    assert flat_settings({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1, "a.c.d": [2], "e": None,
    }  # fmt: skip


def test_the_papers_means_are_table_9s():
    assert describe_paper_means() == [
        "Table 9   ViT-H/14, JFT-300M: "
        "natural 86.7 %, specialized 87.0 %, structured 65.0 %, overall 77.6 %",
        "Table 9   ViT-L/16, JFT-300M: "
        "natural 85.6 %, specialized 86.7 %, structured 63.0 %, overall 76.3 %",
        "Table 9   ViT-L/16, ImageNet-21k: "
        "natural 83.3 %, specialized 84.7 %, structured 57.5 %, overall 72.7 %",
    ]
