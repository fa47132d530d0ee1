import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitral.errors import DivergedError
from vitral.train.best import BestModel, score_of


def filled(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((1, 1), value), "bias": torch.full((1,), value)}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 0)), min_size=1, max_size=20))
def test_the_first_of_the_best_scores_is_kept(scores: list[tuple[int, int]]) -> None:
    best = BestModel(nn.Linear(1, 1))
    for step, score in enumerate(scores):
        best.consider(filled(float(step)), score=score, step=step)
    first = scores.index(max(scores))
    assert best.step == first
    assert best.tensors["weight"].item() == first
    assert best.num_worse == len(scores) - 1 - first
    assert best.is_exhausted(3) == (best.num_worse >= 3)
    assert not best.is_exhausted(0)


def test_of_equal_accuracies_the_smaller_loss_wins_and_without_one_it_decides() -> None:
    low, high = {"loss": 1.0, "accuracy": 0.5}, {"loss": 2.0, "accuracy": 0.5}
    right = {"loss": 2.0, "accuracy": 0.6}
    assert score_of(low, by="accuracy") > score_of(high, by="accuracy")
    assert score_of(right, by="accuracy") > score_of(low, by="accuracy")
    assert score_of({"loss": 1.0}, by="accuracy") > score_of({"loss": 2.0}, by="accuracy")
    assert score_of(low, by="loss") > score_of(right, by="loss")


def test_what_was_saved_comes_back() -> None:
    best = BestModel(nn.Linear(1, 1))
    best.consider(filled(7.0), score=(0.5, -1.0), step=4)
    best.consider(filled(8.0), score=(0.5, -2.0), step=6)
    other = BestModel(nn.Linear(1, 1))
    other.load(best.tensors, best.progress())
    assert (other.score, other.step, other.num_worse) == ((0.5, -1.0), 4, 1)
    assert other.tensors["bias"].item() == 7.0


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(DivergedError, match="step 3: the validation loss is not a number: lower"):
        BestModel(nn.Linear(1, 1)).consider(filled(0.0), score=(0.5, float("nan")), step=3)
