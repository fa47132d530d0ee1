import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitral.config.run import EvaluationSettings
from vitral.errors import DivergedError, RequestError
from vitral.evaluate.classification import ACCURACY
from vitral.training.best import BestModel, score_of


class Scored(nn.Module):
    """An objective whose model has one weight and one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)


def filled(value: float) -> dict[str, torch.Tensor]:
    return {"model.weight": torch.full((1, 1), value), "model.bias": torch.full((1,), value)}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 0)), min_size=1, max_size=20))
def test_the_first_of_the_best_scores_is_kept(scores: list[tuple[int, int]]) -> None:
    best = BestModel(Scored())
    for step, score in enumerate(scores):
        best.consider(filled(float(step)), score=score, step=step)
    first = scores.index(max(scores))
    assert best.step == first
    assert best.tensors["model.weight"].item() == first
    assert best.num_worse == len(scores) - 1 - first
    assert best.is_exhausted(3) == (first > 0 and best.num_worse >= 3)
    assert not best.is_exhausted(0)


def test_of_equal_accuracies_the_smaller_loss_wins_and_without_one_it_decides() -> None:
    low, high = {"loss": 1.0, "accuracy": 0.5}, {"loss": 2.0, "accuracy": 0.5}
    right = {"loss": 2.0, "accuracy": 0.6}
    settings = EvaluationSettings(keep_best=True)
    assert score_of(low, primary=ACCURACY, settings=settings) > score_of(
        high, primary=ACCURACY, settings=settings
    )
    assert score_of(right, primary=ACCURACY, settings=settings) > score_of(
        low, primary=ACCURACY, settings=settings
    )
    assert score_of({"loss": 1.0}, primary=ACCURACY, settings=settings) > score_of(
        {"loss": 2.0}, primary=ACCURACY, settings=settings
    )
    by_loss = EvaluationSettings(keep_best=True, best_by="loss")
    assert score_of(low, primary=ACCURACY, settings=by_loss) > score_of(
        right, primary=ACCURACY, settings=by_loss
    )


# Accuracies on 100 images: one standard error of 0.8 is 0.04.
@pytest.mark.parametrize(
    ("within", "accuracies", "kept"),
    [
        (0.0, [0.1, 0.8, 0.79, 0.8], 1),
        (1.0, [0.1, 0.8, 0.77, 0.75], 2),
        (1.0, [0.1, 0.8, 0.77, 0.76, 0.5], 3),
        (1.0, [0.1, 0.8, 0.77, 0.735], 2),  # as good as the one kept, not as the best
        (2.0, [0.1, 0.8, 0.77, 0.735], 3),
        (1.0, [0.1, 1.0, 0.99], 2),
        (1.0, [0.1, 1.0, 0.98], 1),
        (1.0, [0.9, 0.5, 0.6, 0.7], 0),
    ],
)
def test_the_latest_that_is_as_good_as_the_best_is_kept(
    within: float, accuracies: list[float], kept: int
) -> None:
    best = BestModel(Scored(), within=within, num_images=100)
    for step, accuracy in enumerate(accuracies):
        best.consider(filled(float(step)), score=(accuracy, -1.0), step=step)
    assert best.step == kept
    assert best.tensors["model.bias"].item() == kept
    assert best.score == (max(accuracies), -1.0)
    assert best.num_worse == len(accuracies) - 1 - kept


def test_patience_begins_when_a_trained_model_is_kept() -> None:
    best = BestModel(Scored())
    for step, accuracy in enumerate([0.9, 0.1, 0.2, 0.3]):
        best.consider(filled(0.0), score=(accuracy, -1.0), step=step)
    assert not best.is_exhausted(2)
    for step, accuracy in enumerate([0.95, 0.4, 0.4], start=4):
        assert not best.is_exhausted(2)
        best.consider(filled(0.0), score=(accuracy, -1.0), step=step)
    assert best.is_exhausted(2) and not best.is_exhausted(3) and not best.is_exhausted(0)


@pytest.mark.parametrize("accuracy", [None, -0.1, 80.0])
def test_standard_errors_need_an_accuracy(accuracy: float | None) -> None:
    means = {"loss": 1.0} if accuracy is None else {"loss": 1.0, "accuracy": accuracy}
    settings = EvaluationSettings(keep_best=True, best_within=1.0)
    with pytest.raises(
        RequestError,
        match=r"best_within=1 needs a share in 0\.\.1 that is better when larger, the ob",
    ):
        score_of(means, primary=ACCURACY, settings=settings)
    plain = EvaluationSettings(keep_best=True)
    assert score_of(means, primary=ACCURACY, settings=plain) == (accuracy or 0.0, -1.0)
    by_loss = EvaluationSettings(keep_best=True, best_by="loss")
    assert score_of(means, primary=ACCURACY, settings=by_loss) == (0.0, -1.0)


def test_what_was_saved_comes_back() -> None:
    best = BestModel(Scored())
    best.consider(filled(7.0), score=(0.5, -1.0), step=4)
    best.consider(filled(8.0), score=(0.5, -2.0), step=6)
    other = BestModel(Scored())
    other.load(best.tensors, best.progress())
    assert (other.score, other.step, other.num_worse) == ((0.5, -1.0), 4, 1)
    assert other.tensors["model.bias"].item() == 7.0


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(DivergedError, match="step 3: the validation loss is not a number: lower"):
        BestModel(Scored()).consider(filled(0.0), score=(0.5, float("nan")), step=3)
