"""What is measured does not depend on batches, order or processes; weights divide sums."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.runs import pattern_images

from vitral.config.preprocessing import default_preprocessing
from vitral.data.examples import Examples
from vitral.data.sources.arrays import ArrayStore
from vitral.evaluate.evaluator import LOSS, MeanEvaluator, Metric, WithMetrics, score
from vitral.runtime.distributed import Distributed

HOW: dict[str, Any] = {
    "preprocessing": default_preprocessing((8, 8), channels=1),
    "device": torch.device("cpu"),
    "workers": 0,
}
Rows = list[tuple[float, float, bool]]
rows = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(0, 100), st.booleans()), min_size=1, max_size=20
)


def filled(evaluator: MeanEvaluator, given_rows: Rows, *, weighted: bool) -> MeanEvaluator:
    values, weights, valid = (list(column) for column in zip(*given_rows, strict=True))
    outputs = {"loss": torch.tensor(values, dtype=torch.float64)}
    if weighted:
        outputs["weight"] = torch.tensor(weights, dtype=torch.float64)
    evaluator.update({"valid": torch.tensor(valid)}, outputs)
    return evaluator


@given(rows, st.integers(0, 20), st.booleans())
def test_means_are_those_of_the_whole_however_it_is_cut(
    given_rows: Rows, cut: int, weighted: bool
) -> None:
    whole = filled(MeanEvaluator(), given_rows, weighted=weighted).compute()
    parts = [part for part in (given_rows[cut:], given_rows[:cut]) if part]
    first, *others = (filled(MeanEvaluator(), part, weighted=weighted) for part in parts)
    for other in others:
        first.merge(other)
    assert first.compute() == whole
    valid_rows = [(value, weight) for value, weight, valid in given_rows if valid]
    assert whole["num_examples"] == len(valid_rows)
    total = sum(weight for _, weight in valid_rows) if weighted else len(valid_rows)
    if not total:
        assert whole["loss"] is None
    else:
        assert whole["loss"] == pytest.approx(
            sum(value for value, _ in valid_rows) / total, abs=1e-9
        )


def test_a_primary_figure_that_nothing_gives_is_none() -> None:
    evaluator = filled(MeanEvaluator(Metric("map")), [(1.0, 1.0, True)], weighted=False)
    assert evaluator.compute() == {"loss": 1.0, "num_examples": 1, "map": None}
    assert MeanEvaluator().primary == LOSS == ("loss", False)


def some_examples(count: int = 23) -> Examples:
    images, labels = pattern_images(count)
    return Examples(ArrayStore(images, path="memory"), np.arange(count), labels)


def measure(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    size = batch["image"].mean(dim=(1, 2, 3))
    return {"loss": size, "label": batch["label"].float(), "map": batch["image"], "extra": size**2}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_example_is_scored_once(batch_size: int) -> None:
    figures = score(
        measure, MeanEvaluator(), some_examples(), batch_size=batch_size, **HOW
    ).compute()
    labels = pattern_images(23)[1]
    assert figures["label"] == labels.mean()
    assert figures["num_examples"] == 23
    assert "map" not in figures  # not a number an example


def test_a_batch_is_used_while_the_next_is_computed() -> None:
    """A GPU would wait for the host otherwise, and the host for the GPU."""
    events: list[str] = []

    class Watching(MeanEvaluator):
        def update(self, batch: Any, outputs: Any) -> None:
            events.append("use")

    def watched(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        events.append("compute")
        return measure(batch)

    score(watched, Watching(), some_examples(), batch_size=8, **HOW)
    assert events == ["compute", "compute", "use", "compute", "use", "use"]


class Share(Distributed):
    """One of two processes, whose evaluators are gathered by hand."""

    def all_gather_object(self, value: Any) -> list[Any]:
        return [value]


def test_processes_share_the_examples() -> None:
    whole = score(measure, MeanEvaluator(), some_examples(), batch_size=5, **HOW)
    parts = [
        score(
            measure, MeanEvaluator(), some_examples(), batch_size=5,
            ranks=Share(rank=rank, world_size=2), **HOW,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    assert [part.compute()["num_examples"] for part in parts] == [12, 11]
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()


def test_further_metrics_stand_beside_an_evaluators_own() -> None:
    both = WithMetrics(MeanEvaluator(names=("loss",)), ("extra",))
    found = score(measure, both, some_examples(), batch_size=5, **HOW)
    figures = found.compute()
    assert list(figures) == ["loss", "num_examples", "extra"]
    assert found.primary == LOSS
    alone = score(measure, MeanEvaluator(), some_examples(), batch_size=23, **HOW).compute()
    assert figures["extra"] == pytest.approx(alone["extra"])
    other = score(measure, WithMetrics(MeanEvaluator(), ("extra",)), some_examples(), batch_size=9,
                  **HOW)  # fmt: skip
    found.merge(other)
    assert found.compute()["num_examples"] == 46


def test_what_an_evaluator_does_not_want_is_not_fetched() -> None:
    seen: list[set[str]] = []

    class Watching(MeanEvaluator):
        def update(self, batch: Any, outputs: Any) -> None:
            seen.append(set(outputs))

    score(measure, Watching(names=("loss",)), some_examples(), batch_size=23, **HOW)
    assert seen == [{"loss"}]
