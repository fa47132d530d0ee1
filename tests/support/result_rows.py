"""Rows of results shared by tests of several folders."""

import datetime
from typing import Any

from hypothesis import strategies as st

from vitral.files.results import CONTROLS, ResultRow

WEIGHTS = "0123456789abcdef" * 2


def result_row(**changes: Any) -> ResultRow:
    """Return a plausible row, with some fields changed."""
    fields: dict[str, Any] = {
        "model": "ViT-B/16", "weights": WEIGHTS, "data": "cifar10", "split": "test",
        "protocol": "finetune/paper", "settings": {"image_size": 384}, "metric": "accuracy",
        "value": 0.9, "num_examples": 10_000, "interval": (0.894, 0.906),
        "interval_over": "images", "seed": 0, "precision": "float32",
        "controls": {"pixels": 0.4, "chance": 0.1}, "time": "2026-11-20T10:00:00+00:00",
        "path": "runs/b16", "pretraining": "imagenet21k",
    }  # fmt: skip
    return ResultRow(**fields | changes)


shares = st.floats(0, 1)
names = st.text(min_size=1, max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip


@st.composite
def result_rows(draw: st.DrawFn) -> ResultRow:
    """Any row that can be."""
    low, value, high = sorted(draw(st.tuples(shares, shares, shares)))
    over = draw(st.sampled_from([None, "images", "seeds"]))
    moments = st.datetimes(
        datetime.datetime(2020, 1, 1),
        datetime.datetime(2100, 1, 1),
        timezones=st.just(datetime.UTC),
    )
    return ResultRow(
        model=draw(names), weights=draw(st.from_regex(r"[0-9a-f]{32}", fullmatch=True)),
        data=draw(names), split=draw(names), protocol=draw(names), metric=draw(names), value=value,
        settings=draw(st.dictionaries(st.text(max_size=5), plain, max_size=3)),
        num_examples=draw(st.integers(1)), precision=draw(names),
        interval=None if over is None else (low, high), interval_over=over,
        seed=draw(st.integers(0) | st.lists(st.integers(0), min_size=1).map(tuple)),
        controls=draw(st.dictionaries(st.sampled_from(CONTROLS), shares)),
        time=draw(moments).isoformat(), vitral_version=draw(names), path=draw(st.text()),
        pretraining=draw(st.text()),
    )  # fmt: skip
