import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.runs import pattern_images

import vitral.models.vit
from vitral.config.preprocessing import default_preprocessing
from vitral.data.examples import Examples
from vitral.data.sources.arrays import ArrayStore
from vitral.evaluate.classification import (
    attention_to_patches,
    confident_mistakes,
    predict_examples,
)
from vitral.evaluate.controls import majority_control, pixel_accuracy
from vitral.evaluate.score import Predictions, summarise
from vitral.models.vit import ViT
from vitral.statistics import wilson_interval

CPU = torch.device("cpu")
READY = default_preprocessing((8, 8), channels=1)


def some_examples(count: int = 37) -> Examples:
    images, labels = pattern_images(count)
    return Examples(ArrayStore(images, path="memory"), np.arange(count), labels)


def some_model(*, pool: str = "token") -> ViT:
    torch.manual_seed(1)
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=2, num_heads=2, mlp_dim=32, num_classes=4,
        in_channels=1, pool=pool,
    )  # fmt: skip
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_image_is_scored_once_at_any_batch_size(batch_size: int) -> None:
    model, examples = some_model(), some_examples()
    scored = predict_examples(
        model, examples, preprocessing=READY, batch_size=batch_size, device=CPU
    )
    whole = predict_examples(model, examples, preprocessing=READY, batch_size=37, device=CPU)
    assert scored.indices.tolist() == list(range(37))
    np.testing.assert_allclose(scored.probabilities, whole.probabilities, atol=1e-6)
    assert summarise(scored)["accuracy"] == summarise(whole)["accuracy"]


def test_scores_equal_a_plain_computation() -> None:
    model, examples = some_model(), some_examples()
    scored = predict_examples(model, examples, preprocessing=READY, batch_size=8, device=CPU)
    images = np.stack([examples.read(index) for index in range(37)]).astype(np.float32)
    logits = model(torch.from_numpy(images / 127.5 - 1).permute(0, 3, 1, 2)).detach().double()
    log_shares = logits.log_softmax(dim=1).numpy()
    np.testing.assert_allclose(
        scored.losses, -log_shares[np.arange(37), examples.labels], atol=1e-5
    )
    summary = summarise(scored)
    assert summary["accuracy"] == (log_shares.argmax(axis=1) == examples.labels).mean()
    assert summary["loss"] == pytest.approx(scored.losses.mean())


def test_scoring_leaves_the_model_in_its_mode_and_bits() -> None:
    model = some_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        predict_examples(model, some_examples(), preprocessing=READY, batch_size=8, device=CPU)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_score_and_lies_in_0_to_1(case: tuple[int, int]) -> None:
    right, count = case
    low, high = wilson_interval(right, count)
    assert 0 <= low <= right / count + 1e-12
    assert right / count - 1e-12 <= high <= 1


def test_the_interval_equals_a_published_one() -> None:
    # The method-3 example of Newcombe (Statistics in Medicine 17, 1998), Table I: 81 of 263.
    low, high = wilson_interval(81, 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_an_empty_score_says_so() -> None:
    none = np.zeros(0, np.int64)
    nothing = Predictions(none, none, np.zeros((0, 4), np.float32), np.zeros(0), {3: "x"})
    assert summarise(nothing) == {
        "accuracy": None,
        "accuracy_interval": None,
        "loss": None,
        "num_examples": 0,
        "num_skipped": 1,
    }


def test_the_pixels_of_easy_patterns_tell_their_class() -> None:
    train, test = some_examples(120), some_examples(40)
    assert pixel_accuracy(train, test, preprocessing=READY, num_classes=4) == 1.0


def test_the_majority_is_the_most_frequent_class() -> None:
    control = majority_control(np.array([2, 1, 2, 0]), np.array([2, 0, 1, 1]), tuple("abcd"))
    assert control == {"majority_accuracy": 0.25, "majority_class": "c"}


def test_the_most_frequent_set_of_classes_is_a_control_too() -> None:
    train = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]], np.uint8)
    scored = np.array([[1, 0, 1], [1, 0, 0]], np.uint8)
    control = majority_control(train, scored, tuple("abc"))
    assert control == {"majority_accuracy": 0.5, "majority_class": "a|c"}
    assert majority_control(train[1:2], scored, tuple("abc"))["majority_class"] == ""


def test_mistakes_are_the_most_confident_wrong_ones_in_order() -> None:
    model, examples = some_model(), some_examples()
    scored = predict_examples(model, examples, preprocessing=READY, batch_size=8, device=CPU)
    names = tuple("abcd")
    found = confident_mistakes(
        model, examples, scored, preprocessing=READY, device=CPU, classes=names, count=5
    )
    predicted, confidence = scored.probabilities.argmax(1), scored.probabilities.max(1)
    wrong = np.flatnonzero(predicted != examples.labels)
    best = wrong[np.argsort(-confidence[wrong])][:5]
    assert found["names"].tolist() == [str(index) for index in best]
    np.testing.assert_array_equal(found["images"][0], examples.read(int(best[0])))
    assert found["attention"].shape == (5, 2, 2)
    assert found["labels"].tolist() == [names[examples.labels[index]] for index in best]
    assert found["predictions"].tolist() == [names[predicted[index]] for index in best]


@pytest.mark.parametrize("pool", ["token", "gap"])
def test_attention_to_patches_is_the_last_blocks(pool: str) -> None:
    model, images = some_model(pool=pool), torch.randn(3, 1, 8, 8)
    attention = model.trace(images, ["block01/attention"])["block01/attention"]
    shown = attention_to_patches(model, images)
    queries = {"token": attention[:, :, 0, 1:], "gap": attention.mean(dim=2)}[pool]
    torch.testing.assert_close(shown, queries.mean(dim=1).unflatten(1, (2, 2)))
