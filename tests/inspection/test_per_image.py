"""How much attention a page holds."""

import re
from collections.abc import Sequence

import pytest
from support.small_models import build_small

from vitral.errors import RequestError
from vitral.inspection import per_image as budgeting
from vitral.inspection.attention import step_names
from vitral.inspection.per_image import gallery_size, kept_steps


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (None, ["block00", "block01", "block02"]),
        ((), []),
        ((0,), ["block00"]),
        ((-1, 0, 2), ["block00", "block02"]),
    ],
)
def test_heads_of_the_layers_asked_for_are_kept(
    layers: Sequence[int] | None, kept: list[str]
) -> None:
    model = build_small("ViT", depth=3)
    found = kept_steps(model, num_images=1, layers=layers)
    assert found.heads == [f"{name}/attention" for name in kept]
    assert found.means == step_names(model)


def test_an_axial_layer_is_kept_with_both_of_its_steps() -> None:
    model = build_small("AxialViT gap")
    found = kept_steps(model, num_images=1, layers=[1])
    assert found.heads == ["block01/row_attention", "block01/column_attention"]


# A map of 13 x 13 tokens an image: 169 weights, twice that of both heads.
@pytest.mark.parametrize(
    ("budget", "means", "heads"),
    [
        (0, [3], []),
        (169 * 2, [0, 3], [3]),
        (169 * 6, [0, 1, 2, 3], [0, 2, 3]),
        (169 * 8, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_what_does_not_fit_the_page_is_left_out_evenly(
    monkeypatch: pytest.MonkeyPatch, budget: int, means: list[int], heads: list[int]
) -> None:
    model = build_small("ViT", depth=4)
    monkeypatch.setattr(budgeting, "ATTENTION_BUDGET", budget)
    found = kept_steps(model, num_images=1, layers=None)
    assert found.means == [f"block{number:02}/attention" for number in means]
    assert found.heads == [f"block{number:02}/attention" for number in heads]


def test_heads_that_are_asked_for_are_kept_with_their_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budgeting, "ATTENTION_BUDGET", 169)
    found = kept_steps(build_small("ViT", depth=4), num_images=1, layers=[1])
    assert found.means == ["block01/attention", "block03/attention"]
    assert found.heads == ["block01/attention"]


def test_images_that_do_not_fit_the_page_are_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budgeting, "ATTENTION_BUDGET", 2 * 6 * 169)
    model = build_small("ViT")
    assert gallery_size(model, 2) == 2
    assert not caplog.records
    assert gallery_size(model, 5) == 2
    assert "the first 2 of 5 images are looked at one by one" in caplog.text
    assert gallery_size(build_small("BiT"), 5) == 5


@pytest.mark.parametrize(
    ("family", "layers", "words"),
    [
        ("ViT", [2], "there is no layer 2: small has 2, 0 to 1"),
        ("ViT", [-3], "there is no layer -3: small has 2, 0 to 1"),
        ("BiT", [0], "small has no tokens whose attention could be stepped through: leave --lay"),
    ],
)
def test_layers_that_are_not_there_are_told(family: str, layers: list[int], words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        kept_steps(build_small(family), num_images=1, layers=layers)
