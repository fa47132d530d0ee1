import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.spec.run import ScheduleSettings
from vitral.train.schedule import learning_rate_share


@pytest.mark.parametrize("name", ["finetune_sgd", "finetune_sgd_random_head"])
def test_schedule_equals_the_official_one(shared: Path, name: str) -> None:
    with np.load(shared / "reference" / f"{name}.io.npz") as fixture:
        config, official = json.loads(str(fixture["config"])), fixture["lr_schedule"]
    settings = ScheduleSettings(decay=config["decay"], warmup_steps=config["warmup_steps"])
    total = config["total_steps"]
    ours = [
        config["base_lr"] * learning_rate_share(step, total_steps=total, settings=settings)
        for step in range(total + 1)
    ]
    np.testing.assert_allclose(ours, official, atol=1e-7)


def test_linear_schedule_of_big_vision_has_an_end_share(shared: Path) -> None:
    with np.load(shared / "reference" / "pretrain_adam.io.npz") as fixture:
        config, official = json.loads(str(fixture["config"])), fixture["schedule"]
    schedule = config["schedule"]
    settings = ScheduleSettings(
        decay="linear", warmup_steps=schedule["warmup_steps"], end=schedule["linear_end"]
    )
    total = config["total_steps"]
    ours = [learning_rate_share(s, total_steps=total, settings=settings) for s in range(total + 1)]
    np.testing.assert_allclose(ours, official, atol=1e-6)


@given(
    step=st.integers(0, 1000),
    warmup=st.integers(0, 99),
    decay=st.sampled_from(["cosine", "linear", "constant", "multistep"]),
    end=st.floats(0, 1),
)
def test_learning_rate_stays_between_zero_and_the_peak(
    step: int, warmup: int, decay: str, end: float
) -> None:
    settings = ScheduleSettings(
        decay=decay,
        milestones=(0.3, 0.6) if decay == "multistep" else (),
        warmup_steps=warmup,
        end=end if decay in ("cosine", "linear") else 0.0,
    )
    assert 0 <= learning_rate_share(step, total_steps=1000, settings=settings) <= 1


def test_warm_up_begins_at_zero_and_ends_at_the_peak() -> None:
    settings = ScheduleSettings(warmup_steps=10)
    assert learning_rate_share(0, total_steps=100, settings=settings) == 0
    assert learning_rate_share(10, total_steps=100, settings=settings) == 1


@pytest.mark.parametrize(
    ("total", "warmup", "drops"),
    [
        (500, 100, (200, 300, 400)),
        (10_000, 500, (3000, 6000, 9000)),
        (20_000, 500, (6000, 12_000, 18_000)),
    ],
)
def test_milestones_drop_the_rate_where_hyperrule_does(
    total: int, warmup: int, drops: tuple[int, ...]
) -> None:
    """As big_transfer's `bit_hyperrule.get_lr`: after step s of [warm-up, s, s, s, end]."""
    milestones = tuple(drop / total for drop in drops)
    settings = ScheduleSettings("multistep", milestones=milestones, warmup_steps=warmup)

    def rate(step: int) -> float:
        return 0.003 * learning_rate_share(step, total_steps=total, settings=settings)

    assert rate(warmup // 2) == pytest.approx(0.0015)
    for number, drop in enumerate(drops):
        assert rate(drop) == pytest.approx(0.003 * 0.1**number)
        assert rate(drop + 1) == pytest.approx(0.003 * 0.1 ** (number + 1))
    assert rate(total - 1) == pytest.approx(0.003 * 0.1 ** len(drops))
