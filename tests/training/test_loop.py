"""A step that is not finite changes nothing, and raises one step later; measurements."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import DataSettings, OptimizerSettings, RunConfig, TrainSettings
from vitral.data.loader import StepBatches
from vitral.data.order import plan_step
from vitral.errors import DivergedError, RequestError
from vitral.runtime.distributed import Distributed, Machine
from vitral.training.loop import StepRunner
from vitral.training.objectives.base import Loss, Objective, StepInfo
from vitral.training.optimizer import build_optimizer
from vitral.training.parallel import parallelise, unsynchronised
from vitral.training.state import TrainState, WeightAverage

CPU = torch.device("cpu")
HOW = default_preprocessing((2, 2), channels=1)
ADAMW = OptimizerSettings(learning_rate=0.1, clip_norm=1.0)
SGD = OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=0.0)


class Averaging(Objective):
    """A linear model with BatchNorm, a teacher and a centre; its loss is label times output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.teacher = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(1))
        self.centre: Tensor
        self.rate = 0.0

    def forward(self, batch: dict[str, Tensor]) -> Loss:
        outputs = self.model(batch["image"].flatten(1))[:, 0]
        self.seen = outputs.detach()
        return Loss(outputs * batch["label"], {"size": outputs.abs()})

    def before_step(self, at: StepInfo) -> None:
        self.rate = float(at.step)

    def after_step(self, at: StepInfo) -> None:
        at.move(self.teacher.parameters(), self.model.parameters(), share=0.5)
        at.move([self.centre], [self.seen.mean()[None]], share=0.5)


class Batches:
    """Steps of two examples each; the label of the steps in `bad` is not finite."""

    steps_per_epoch = 4

    def __init__(self, *, bad: tuple[int, ...] = (), value: float = float("nan")) -> None:
        self.bad, self.value = bad, value

    def steps(self, first: int, end: int) -> Iterator[StepBatches]:
        for step in range(first, end):
            generator = torch.Generator().manual_seed(step)
            image = torch.rand(4, 1, 2, 2, generator=generator) * 255
            label = torch.full((4,), self.value if step in self.bad else 1.0)
            batch = {
                "image": image, "label": label, "index": torch.arange(4) + 4 * step,
                "valid": torch.ones(4, dtype=torch.bool),
            }  # fmt: skip
            yield StepBatches(plan_step(step, num_examples=16, batch_size=4), [batch], 4)

    @staticmethod
    def names_of(batch: dict[str, Tensor]) -> list[str]:
        return [f"{index}.png" for index in batch["index"]]


def build(settings: OptimizerSettings, kind: type[Averaging] = Averaging) -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    objective = kind(model)
    optimizer = build_optimizer(objective, settings, device=CPU)
    return TrainState(objective, optimizer, WeightAverage(objective, decay=0.5))


def runner_of(
    state: TrainState,
    batches: Any,
    settings: OptimizerSettings,
    *,
    ranks: Distributed | None = None,
) -> StepRunner:
    config = RunConfig(DataSettings(""), TrainSettings(8), HOW, None, optimizer=settings)
    machine = Machine(CPU, torch.float32, compile=False, ranks=ranks or Distributed())
    state.objective.train()
    forward = parallelise(state.objective, machine)
    return StepRunner(state, forward, batches, config=config, machine=machine)


def snapshot(state: TrainState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was_before(
    settings: OptimizerSettings, bad: int, value: float
) -> None:
    """Although it is read only after the next step, which is finite, has started."""
    good, state = build(settings), build(settings)
    runner = runner_of(good, Batches(), settings)
    for step_batches in Batches().steps(0, bad):
        runner.read(runner.start(step_batches))
    before = snapshot(good)

    batches = Batches(bad=(bad,), value=value)
    runner, pending = runner_of(state, batches, settings), None
    with pytest.raises(DivergedError, match=f"step {bad}: not finite, first in .*{4 * bad}.png"):
        for step_batches in batches.steps(0, 8):
            started = runner.start(step_batches)
            if pending:
                runner.read(pending)
            pending = started
    assert state.step == bad
    assert_same(snapshot(state), before)
    assert isinstance(state.objective, Averaging)
    assert state.objective.rate == bad
    assert all(parameter.grad is None for parameter in state.objective.parameters())


class Weighted(Averaging):
    coupling = "weighted"

    def weights(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.ones(len(batch["valid"]))


class Coupled(Averaging):
    coupling = "batch"

    def encode(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.model(batch["image"].flatten(1))
        return {"outputs": outputs, "label": batch["label"]}

    def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
        outputs = tensors["outputs"][:, 0]
        self.seen = outputs.detach()
        return Loss((outputs - outputs.mean()).square() * tensors["label"], {})


class Halves(Batches):
    """The same steps in two micro-batches."""

    def steps(self, first: int, end: int) -> Iterator[StepBatches]:
        for whole in super().steps(first, end):
            (batch,) = whole.micro_batches
            halves = [{n: t[part] for n, t in batch.items()} for part in (slice(2), slice(2, 4))]
            yield StepBatches(whole.plan, halves, 4)

    @staticmethod
    def rows_of_ranks(step: int) -> list[int]:
        return [4]

    @staticmethod
    def order_of_rows(step: int) -> None:
        return None


def without_norm(kind: type[Averaging]) -> TrainState:
    torch.manual_seed(0)
    objective = kind(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)))
    optimizer = build_optimizer(objective, ADAMW, device=CPU)
    return TrainState(objective, optimizer, WeightAverage(objective, decay=0.5))


@pytest.mark.parametrize("kind", [Averaging, Weighted, Coupled])
def test_the_latch_holds_whatever_the_coupling_and_the_micro_batches(
    kind: type[Averaging],
) -> None:
    state = without_norm(kind)
    runner = runner_of(state, Halves(bad=(2,)), ADAMW)
    steps = list(Halves(bad=(2,)).steps(0, 4))
    for step_batches in steps[:2]:
        runner.read(runner.start(step_batches))
    before = snapshot(state)
    started = [runner.start(step_batches) for step_batches in steps[2:]]
    with pytest.raises(DivergedError, match="step 2: not finite, first in the loss; the batch was"):
        runner.read(started[0])
    assert state.step == 2
    assert_same(snapshot(state), before)


class NormInHead(Coupled):
    """BatchNorm over the whole step, which needs more than one row."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.norm = nn.BatchNorm1d(1)

    def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
        return super().couple({**tensors, "outputs": self.norm(tensors["outputs"])})


class Singles(Halves):
    """The same steps in four micro-batches of one row."""

    def steps(self, first: int, end: int) -> Iterator[StepBatches]:
        for whole in Batches.steps(self, first, end):
            (batch,) = whole.micro_batches
            rows = [{n: t[row : row + 1] for n, t in batch.items()} for row in range(4)]
            yield StepBatches(whole.plan, rows, 4)


def test_what_can_not_be_looked_at_row_by_row_has_still_diverged() -> None:
    batches = Singles(bad=(0,))
    state = without_norm(NormInHead)
    runner = runner_of(state, batches, ADAMW)
    (step_batches,) = batches.steps(0, 1)
    with pytest.raises(
        DivergedError, match="step 0: the loss or the gradient's norm is not finite"
    ):
        runner.read(runner.start(step_batches))


def test_a_search_for_what_diverged_waits_for_no_other_process() -> None:
    """Its own SyncBatchNorm would, which besides has none for the CPU."""
    norm = nn.SyncBatchNorm(3)
    plain = nn.BatchNorm1d(3)
    rows = torch.randn(4, 3)
    with unsynchronised(nn.Sequential(norm)):
        assert torch.equal(norm(rows), plain(rows))
    assert "forward" not in vars(norm)


class Parts(Weighted):
    """Has a loss and weights of different numbers of parts."""

    given: tuple[int, ...] = ()
    counted: tuple[int, ...] = ()

    def forward(self, batch: dict[str, Tensor]) -> Loss:
        values = super().forward(batch).values
        return Loss(values.reshape(-1, 1).expand(4, *self.given) if self.given else values, {})

    def weights(self, batch: dict[str, Tensor]) -> Any:
        return torch.ones(*self.counted)


@pytest.mark.parametrize(
    ("given", "counted", "said"),
    [
        ((), (4, 2), "Parts has a loss of 1 parts and weights of 2: give each part its own"),
        ((2,), (4,), "Parts has a loss of 2 parts and weights of 1"),
        ((2,), (4, 3), "Parts has a loss of 2 parts and weights of 3"),
        ((), (3,), r"Parts.weights of 4 rows gives \(3,\): give \(4,\), or \(4, parts\) where"),
        ((), (4, 1, 1), r"Parts.weights of 4 rows gives \(4, 1, 1\)"),
    ],
)
def test_each_part_of_a_loss_has_weights(
    given: tuple[int, ...], counted: tuple[int, ...], said: str
) -> None:
    objective = Parts(nn.Linear(4, 1))
    objective.given, objective.counted = given, counted
    state = TrainState(objective, build_optimizer(objective, ADAMW, device=CPU), None)
    (step_batches,) = Batches().steps(0, 1)
    with pytest.raises(RequestError, match=said):
        runner_of(state, Batches(), ADAMW).start(step_batches)


class Shifted(Averaging):
    """Adds the label to the outputs: one that is not finite leaves the gradient finite."""

    def forward(self, batch: dict[str, Tensor]) -> Loss:
        found = super().forward(batch | {"label": torch.ones_like(batch["label"])})
        return Loss(found.values + batch["label"], found.metrics)


def step_beside_a_bad_one(rank: int, folder: Path) -> None:
    """Run in one of two processes; only the second has a step that is not finite."""
    torch.set_num_threads(1)
    init = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    state, bad = build(ADAMW, Shifted), 2
    batches = Batches(bad=(bad,) if rank == 1 else ())
    runner = runner_of(state, batches, ADAMW, ranks=Distributed(rank, 2, rank))
    steps = list(batches.steps(0, 5))
    for step_batches in steps[:bad]:
        runner.read(runner.start(step_batches))
    before = snapshot(state)
    started = [runner.start(step_batches) for step_batches in steps[bad:]]
    with pytest.raises(DivergedError) as raised:
        runner.read(started[0])
    assert state.step == bad
    assert_same(snapshot(state), before)
    Path(folder, str(rank)).write_text(str(raised.value))
    torch.distributed.barrier()  # gloo aborts where the other end is gone
    torch.distributed.destroy_process_group()


def test_the_latch_of_one_process_holds_the_others(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(step_beside_a_bad_one, args=(tmp_path,), nprocs=2)
    here, there = ((tmp_path / str(rank)).read_text() for rank in (0, 1))
    assert here.startswith("step 2: the loss or the gradient's norm is not finite, on another")
    assert there.startswith("step 2: not finite, first in") and "8.png" in there


def test_reading_one_step_later_changes_no_number() -> None:
    at_once, later = build(ADAMW), build(ADAMW)
    runner = runner_of(at_once, Batches(), ADAMW)
    first = [runner.read(runner.start(step)) for step in Batches().steps(0, 6)]
    runner = runner_of(later, Batches(), ADAMW)
    started = [runner.start(step) for step in Batches().steps(0, 6)]
    assert [runner.read(step) for step in started] == first
    assert_same(snapshot(later), snapshot(at_once))


def test_a_step_measures_sums_and_what_they_are_divided_by() -> None:
    state = build(ADAMW)
    runner = runner_of(state, Batches(), ADAMW)
    (step_batches,) = Batches().steps(0, 1)
    result = runner.read(runner.start(step_batches, wait_seconds=0.5, stop=15))
    assert (result.total, result.num_examples, result.wait_seconds, result.stop) == (4, 4, 0.5, 15)
    assert result.metric_sums.keys() == {"size"}
    assert result.grad_norm > 0 and result.learning_rate == 0.1


def test_the_average_moves_by_a_tensors_share_as_by_a_number() -> None:
    """On a GPU only the device knows whether the step was finite."""
    here, there = build(ADAMW), build(ADAMW)
    for state in (here, there):
        with torch.no_grad():
            for parameter in state.objective.parameters():
                parameter.add_(1.0)
    assert here.average and there.average
    here.average.update(here.objective, step=3, finite=torch.ones(()))
    averages = [t for t in there.average.tensors.values() if t.is_floating_point()]
    current = there.objective.state_dict()
    values = [current[n] for n, t in there.average.tensors.items() if t.is_floating_point()]
    share = (1 - 0.5) / (1 - 0.5**4)
    torch._foreach_lerp_(averages, values, [torch.ones(()) * share] * len(averages))
    for name, tensor in here.average.tensors.items():
        torch.testing.assert_close(tensor, there.average.tensors[name])
    before = {name: tensor.clone() for name, tensor in here.average.tensors.items()}
    here.average.update(there.objective, step=4, finite=torch.zeros(()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in here.average.tensors.items())


def test_state_moves_by_its_share_and_not_where_a_step_was_not_finite() -> None:
    optimizer: Any = None
    for finite, wanted in ((1.0, 3.0), (0.0, 1.0)):
        at = StepInfo(2, 8, 4, optimizer, torch.tensor(finite))
        tensor = torch.ones(2)
        at.move([tensor], [torch.full((2,), 5.0 if finite else float("nan"))], share=0.5)
        assert tensor.tolist() == [wanted, wanted]
        assert (at.epoch, at.progress) == (0.5, 0.25)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float64])
@pytest.mark.parametrize(("finite", "moved"), [(1.0, True), (0.0, False)])
def test_state_of_any_type_may_be_replaced(kind: torch.dtype, finite: float, moved: bool) -> None:
    optimizer: Any = None
    at = StepInfo(0, 8, 4, optimizer, torch.tensor(finite))
    tensor, goal = torch.zeros(2, dtype=kind), torch.ones(2, dtype=kind)
    at.move([tensor], [goal], share=1)
    assert torch.equal(tensor, goal if moved else torch.zeros(2, dtype=kind))


class Thawed(Averaging):
    """Unfreezes in its third step a layer that was frozen when the run began."""

    def before_step(self, at: StepInfo) -> None:
        self.model.requires_grad_(at.step >= 2)


def test_what_is_thawed_later_without_the_optimizer_knowing_is_told() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    objective = Thawed(model)
    model[0].requires_grad_(False)
    state = TrainState(objective, build_optimizer(objective, ADAMW, device=CPU), None)
    objective.model[1].requires_grad_(True)
    runner = runner_of(state, Batches(), ADAMW)
    with pytest.raises(RequestError, match=r"model\.0\.weight has a gradient and is not trained"):
        for step_batches in Batches().steps(2, 3):
            runner.start(step_batches)


class Late(Averaging):
    """The last layer has no gradient in the first two steps."""

    def on_gradients(self, at: StepInfo) -> None:
        if at.step < 2:
            for parameter in self.model[2].parameters():
                parameter.grad = None


@pytest.mark.parametrize("settings", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_a_dropped_gradient_leaves_its_layer_as_it_was(settings: OptimizerSettings) -> None:
    torch.manual_seed(0)
    objective = Late(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    state = TrainState(objective, build_optimizer(objective, settings, device=CPU), None)
    runner, before = runner_of(state, Batches(), settings), snapshot(state)
    for step_batches in Batches().steps(0, 4):
        runner.read(runner.start(step_batches))
        moved = not torch.equal(objective.model[2].weight, before["objective/model.2.weight"])
        assert moved == (step_batches.plan.step >= 2)
        assert not torch.equal(objective.model[0].weight, before["objective/model.0.weight"])


class Elsewhere(Averaging):
    """Returns a given value."""

    gives: Any = None

    def forward(self, batch: dict[str, Tensor]) -> Any:
        rows = self.model(batch["image"].flatten(1))[:, 0]
        return type(self).gives(rows)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda rows: rows, r"Elsewhere gives a Tensor: give Loss\(values, metrics\)"),
        (lambda rows: rows.tolist(), "Elsewhere gives a list"),
        (lambda rows: Loss(rows.mean(), {}), r"the loss of 4 rows is \(\): give \(4,\)"),
        (lambda rows: Loss(rows[:2], {}), r"the loss of 4 rows is \(2,\): give \(4,\)"),
        (lambda rows: Loss(rows[:, None], {}), r"the loss of 4 rows is \(4, 1\)"),
        (lambda rows: Loss(rows.long(), {}), "the loss is of type torch.int64: give floats"),
        (lambda rows: Loss(rows, {"size": 3.0}), "the metric 'size' of 4 rows is float"),
        (lambda rows: Loss(rows, {"size": rows.mean()}), r"the metric 'size' of 4 rows is \(\)"),
        (lambda rows: Loss(rows, {"loss": rows}), "a metric called 'loss', which rows of metrics"),
        (lambda rows: Loss(rows, {"step": rows}), "a metric called 'step'"),
        (lambda rows: Loss(rows, {"weight": rows}), "a metric called 'weight'"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_told(gives: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elsewhere, "gives", staticmethod(gives))
    objective = Elsewhere(nn.Linear(4, 1))
    state = TrainState(objective, build_optimizer(objective, ADAMW, device=CPU), None)
    (step_batches,) = Batches().steps(0, 1)
    with pytest.raises(RequestError, match=said):
        runner_of(state, Batches(), ADAMW).start(step_batches)


def test_metrics_may_be_called_like_what_the_loop_measures() -> None:
    class Named(Averaging):
        def forward(self, batch: dict[str, Tensor]) -> Loss:
            found = super().forward(batch)
            return Loss(found.values, {"stop": found.metrics["size"], "bad": found.values})

    objective = Named(nn.Linear(4, 1))
    state = TrainState(objective, build_optimizer(objective, ADAMW, device=CPU), None)
    (step_batches,) = Batches().steps(0, 1)
    runner = runner_of(state, Batches(), ADAMW)
    read = runner.read(runner.start(step_batches))
    assert read.metric_sums.keys() == {"stop", "bad"} and read.stop == 0
