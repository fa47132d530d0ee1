"""Batches hold what is declared: views, draws, targets, several sources, no classes."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.example_objectives import Pairs, with_masks
from support.runs import pattern_images

from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import AugmentSettings
from vitral.data.dataset import ImageDataset, open_dataset
from vitral.data.examples import Examples
from vitral.data.loader import TrainingBatches, evaluation_batches, main_share
from vitral.data.needs import UNCOUNTED, Draw, Needs, View
from vitral.data.order import uniforms
from vitral.data.workers import Batch
from vitral.errors import DataError, RequestError

HOW = default_preprocessing((8, 8), channels=1)
PLAIN = AugmentSettings()


def opened(data: Any, **options: Any) -> ImageDataset:
    return open_dataset(data, **options)


def patterns(count: int = 40) -> Examples:
    images, labels = pattern_images(count)
    return opened(Pairs(images, labels)).everything()


def loaded(needs: Needs, steps: tuple[int, int] = (0, 2), **options: Any) -> list[Batch]:
    """Return the micro-batches of some steps."""
    arguments: dict[str, Any] = {"seed": 3, "batch_size": 16, "workers": 0} | options
    examples = arguments.pop("examples", None) or patterns()
    batches = TrainingBatches(examples, HOW, PLAIN, needs=needs, **arguments)
    return [batch for step in batches.steps(*steps) for batch in step.micro_batches]


def by_example(batches: list[Batch], name: str) -> dict[tuple[int, int], torch.Tensor]:
    """Return an entry of each example, by its source and index."""
    found = {}
    for batch in batches:
        sources = batch.get("source", torch.zeros(len(batch["index"]), dtype=torch.int64))
        for source, index, value in zip(sources, batch["index"], batch[name], strict=True):
            found[int(source), int(index)] = value
    return found


def hide_two(drawn: np.ndarray) -> np.ndarray:
    hidden: np.ndarray = drawn.argsort(axis=1).argsort(axis=1) < 2
    return hidden


TWO_VIEWS = (View(), View((4, 6), AugmentSettings(min_area=0.05, flip=False)))
MANY = Needs(
    views=TWO_VIEWS,
    draws={
        "mask": Draw(4, hide_two),
        "uniforms/drop_path": Draw(3, per_view=True),
    },
)


def test_views_have_their_sizes_names_and_own_random_changes() -> None:
    (batch, *_) = loaded(MANY)
    assert batch["image/0"].shape[1:] == (1, 8, 8)
    assert batch["image/1"].shape[1:] == (1, 4, 6)
    assert "image" not in batch and "flip/0" in batch and "flip/1" not in batch
    same = Needs(views=(View(), View()))
    (both, *_) = loaded(same)
    assert not torch.equal(both["image/0"], both["image/1"])
    (single, *_) = loaded(Needs())
    assert torch.equal(both["image/0"], single["image"])  # the first view is the only one's


def test_draws_are_made_of_each_examples_own_uniforms() -> None:
    for batch in loaded(MANY, (3, 5)):
        indices = batch["index"].numpy()
        epoch = 1  # of 40 examples, three steps each
        drawn = uniforms(3, epoch, indices, count=4, purpose="mask")
        np.testing.assert_array_equal(batch["mask"], hide_two(drawn))
        assert batch["mask"].sum(dim=1).tolist() == [2] * len(indices)
        paths = batch["uniforms/drop_path"]
        assert paths.shape == (len(indices), 2, 3) and paths.dtype == torch.float32
        for view in (0, 1):
            wanted = uniforms(3, epoch, indices, count=3, purpose="drop_path", view=view)
            np.testing.assert_array_equal(paths[:, view], wanted.astype(np.float32))


@given(st.integers(0, 2**31), st.integers(0, 50))
def test_views_and_purposes_draw_other_numbers(seed: int, epoch: int) -> None:
    indices = np.arange(20)
    streams = [
        uniforms(seed, epoch, indices, count=3, purpose=purpose, view=view)
        for purpose in ("augment", "drop_path", "mask", "evaluation/mask")
        for view in (0, 1, 2)
    ]
    assert len({stream.tobytes() for stream in streams}) == len(streams)


@pytest.mark.parametrize("parts", [{"micro_batch_size": 5}, {"workers": 3}])
def test_neither_workers_nor_micro_batches_change_what_is_drawn(parts: dict[str, Any]) -> None:
    for name in ("image/0", "image/1", "mask", "uniforms/drop_path"):
        whole, cut = (by_example(loaded(MANY, **p), name) for p in ({}, parts))
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro_batch_size", [0, 4])
def test_two_sources_come_in_their_shares_on_any_processes(
    world_size: int, micro_batch_size: int
) -> None:
    images = list(pattern_images(30, seed=9)[0])
    unlabelled = opened(images, label=False).everything()
    needs = Needs(sources={"unlabelled": 0.75})
    assert main_share(16, needs.sources) == 4
    options = {"extra": {"unlabelled": unlabelled}, "micro_batch_size": micro_batch_size}
    whole = loaded(needs, (0, 5), **options)
    parts = [
        batch
        for rank in range(world_size)
        for batch in loaded(needs, (0, 5), rank=rank, world_size=world_size, **options)
    ]
    labels, found = by_example(whole, "label"), by_example(parts, "label")
    assert {key: int(label) for key, label in found.items()} == {
        key: int(label) for key, label in labels.items()
    }
    assert {source for source, _ in labels} == {0, 1}
    assert all(int(label) == -1 for (source, _), label in labels.items() if source == 1)
    assert all(int(label) >= 0 for (source, _), label in labels.items() if source == 0)
    seen = [int(source) for batch in whole for source in batch["source"]]
    assert (seen.count(0), seen.count(1)) == (5 * 4, 5 * 12)
    # Of two steps: in later ones examples come a second time.
    found_images = by_example(
        [
            batch
            for rank in range(world_size)
            for batch in loaded(needs, (0, 2), rank=rank, world_size=world_size, **options)
        ],
        "image",
    )
    wanted_images = by_example(loaded(needs, (0, 2), **options), "image")
    assert found_images.keys() == wanted_images.keys()
    assert all(torch.equal(found_images[key], wanted_images[key]) for key in found_images)


def test_the_second_source_has_an_order_of_its_own() -> None:
    images, _ = pattern_images(40)
    needs = Needs(sources={"unlabelled": 0.5})
    unlabelled = opened(list(images), label=False).everything()
    batches = loaded(needs, (0, 1), extra={"unlabelled": unlabelled})
    orders = [
        [int(i) for b in batches for s, i in zip(b["source"], b["index"], strict=True) if s == k]
        for k in (0, 1)
    ]
    assert orders[0] != orders[1]


def test_a_further_source_is_gone_through_again_and_again() -> None:
    """Its share of each step is exact, across its epochs too; in each every example comes once."""
    unlabelled = opened(list(pattern_images(7, seed=9)[0]), label=False).everything()
    needs = Needs(sources={"unlabelled": 0.25})
    batches = loaded(needs, (0, 7), extra={"unlabelled": unlabelled})
    drawn = [
        [int(i) for s, i in zip(batch["source"], batch["index"], strict=True) if s]
        for batch in batches
    ]
    assert [len(step) for step in drawn] == [4] * 7
    order = [index for step in drawn for index in step]
    epochs = [order[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_what_can_not_be_read_of_a_further_source_is_told_by_its_name() -> None:
    class Broken:
        is_open = False

        def __len__(self) -> int:
            return 8

        def __getitem__(self, number: int) -> Any:
            if self.is_open and number == 2:
                raise OSError("bad sector")
            return pattern_images(8, seed=9)[0][number]

    broken = Broken()
    unlabelled = opened(broken, label=False).everything()
    broken.is_open = True
    batches = TrainingBatches(
        patterns(), HOW, PLAIN, seed=3, batch_size=16, workers=0,
        needs=Needs(sources={"unlabelled": 0.5}), extra={"unlabelled": unlabelled},
    )  # fmt: skip
    ((batch,),) = [step.micro_batches for step in batches.steps(0, 1)]
    assert batches.errors == {}
    (index,) = batches.extra_errors["unlabelled"]
    assert "bad sector" in batches.extra_errors["unlabelled"][index]
    assert int((~batch["valid"]).sum()) == 1
    names = batches.names_of(batch)
    hidden = batch["valid"].logical_not().tolist().index(True)
    assert names[hidden] == f"unlabelled: {unlabelled.name(index)}"
    assert sum(name.startswith("unlabelled: ") for name in names) == 8


def test_rows_of_every_process_are_known_to_all() -> None:
    needs = Needs(sources={"unlabelled": 0.5})
    unlabelled = opened(list(pattern_images(30)[0]), label=False).everything()
    counts = []
    for rank in range(3):
        batches = TrainingBatches(
            patterns(), HOW, PLAIN, seed=3, batch_size=2, rank=rank, world_size=3, workers=0,
            needs=needs, extra={"unlabelled": unlabelled},
        )  # fmt: skip
        (step,) = batches.steps(1, 2)
        counts.append(sum(len(batch["valid"]) for batch in step.micro_batches))
        assert batches.rows_of_ranks(1)[rank] == counts[-1]


def test_values_are_targets() -> None:
    images, labels = pattern_images(24)
    data = opened(Pairs(images, labels / 8), label=False, targets=("value",))
    needs = Needs(label=False, targets=("value",))
    examples = data.everything()
    for batch in loaded(needs, (0, 1), examples=examples):
        assert "label" not in batch and batch["target/value"].shape == (len(batch["index"]), 1)
        wanted = [[labels[examples.file_ids[index]] / 8] for index in batch["index"]]
        assert batch["target/value"].tolist() == wanted


def test_a_mask_goes_with_its_image_in_training_and_evaluation() -> None:
    data = opened(with_masks(), label=False, targets=("mask",))
    needs = Needs(label=False, targets=("mask",))
    (batch, *_) = loaded(needs, (0, 1), examples=data.everything())
    mask = batch["target/mask"]
    assert mask.dtype == torch.uint8 and mask.shape[1:] == (8, 8)
    assert {0, 1, UNCOUNTED} == set(mask.unique().tolist())
    evaluated = next(
        evaluation_batches(
            data.everything(), preprocessing=HOW, batch_size=90, errors={}, workers=0, needs=needs
        )
    )
    bright = (evaluated["image"][:, 0] > 128).to(torch.uint8)
    counted = evaluated["target/mask"] != UNCOUNTED
    agrees = (bright == evaluated["target/mask"])[counted].float().mean()
    assert agrees > 0.9  # but where filtering smooths an edge


def test_evaluation_draws_the_same_every_time() -> None:
    needs = Needs(draws={"mask": Draw(4, hide_two)})
    masks = [
        next(
            evaluation_batches(
                patterns(), preprocessing=HOW, batch_size=40, errors={}, workers=0, needs=needs
            )
        )["mask"]
        for _ in range(2)
    ]
    assert torch.equal(*masks)
    assert len(masks[0].unique(dim=0)) > 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"views": ()}, "views=\\(\\): a batch needs one view"),
        ({"targets": ("depth",)}, "targets='depth': give some of value, mask"),
        ({"targets": ("mask",), "views": TWO_VIEWS}, "targets='mask' with 2 views"),
        ({"mixing": True, "views": TWO_VIEWS}, "mixing=True with several views of an image: pairs"),
        ({"mixing": True, "sources": {"a": 0.5}}, "mixing=True with several sources: pairs of"),
        ({"targets": ("value",), "sources": {"a": 0.5}}, "targets=value with further sources"),
        ({"sources": {"a": 0.5, "b": 0.5}}, "give shares above 0 that leave some of the batch"),
        ({"sources": {"a": 0.0}}, "give shares above 0"),
        ({"draws": {"valid": Draw(2)}}, "a draw called 'valid', which batches have"),
        ({"draws": {"image/0": Draw(2)}}, "a draw called 'image/0', which batches have"),
    ],
)
def test_needs_that_can_not_be_met_are_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Needs(**fields)


@pytest.mark.parametrize("size", [(8,), (8, 0), 8, (8.0, 8.0)])
def test_a_view_has_a_height_and_a_width(size: Any) -> None:
    with pytest.raises(RequestError, match=r"of a view: give \(height, width\)"):
        View(size)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_a_draw_has_numbers(count: Any) -> None:
    with pytest.raises(RequestError, match=f"count={count} of a draw: give a whole number"):
        Draw(count)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda drawn: drawn.tolist(), "the draw 'mask' made list, not an array of numbers"),
        (lambda drawn: drawn.astype(str), "not an array of numbers"),
        (lambda drawn: drawn[:-1], r"made \(11, 4\) for 12 examples: the first axis must be"),
        (lambda drawn: drawn.mean(), "not an array of numbers"),
    ],
)
def test_what_is_drawn_is_an_array_with_a_row_for_each_example(make: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        loaded(Needs(draws={"mask": Draw(4, make)}), (0, 1))


@pytest.mark.parametrize(
    ("needs", "what"),
    [(Needs(views=TWO_VIEWS), "several views"), (Needs(sources={"a": 0.5}), "several sources")],
)
def test_mixing_is_of_one_view_of_one_source(needs: Needs, what: str) -> None:
    with pytest.raises(RequestError, match=f"mix pairs of images of one kind, .* {what}"):
        TrainingBatches(
            patterns(), HOW, AugmentSettings(mixup=0.2), seed=0, batch_size=8, needs=needs
        )


@pytest.mark.parametrize("where", ["run", "view"])
def test_what_moves_pixels_is_refused_beside_masks(where: str) -> None:
    """A mask that does not follow its image is wrong in silence."""
    moving = AugmentSettings(randaugment=2)
    settings, view = (moving, View()) if where == "run" else (AugmentSettings(), View(None, moving))
    needs = Needs(label=False, targets=("mask",), views=(view,))
    with pytest.raises(RequestError, match="augment.randaugment=2 moves pixels, which masks would"):
        TrainingBatches(patterns(), HOW, settings, seed=0, batch_size=8, needs=needs)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_the_rows_of_all_processes_can_be_put_in_the_order_of_one(world_size: int) -> None:
    """Source by source, also where a process has no share of a step."""
    needs, unlabelled = Needs(sources={"unlabelled": 0.5}), patterns()

    def rows(rank: int, world_size: int) -> tuple[list[tuple[int, ...]], TrainingBatches]:
        batches = TrainingBatches(
            patterns(), HOW, AugmentSettings(), seed=0, batch_size=6, rank=rank,
            world_size=world_size, workers=0, needs=needs, extra={"unlabelled": unlabelled},
        )  # fmt: skip
        found = []
        for step in batches.steps(6, 7):
            for batch in step.micro_batches:
                columns = (batch[name].tolist() for name in ("source", "index", "valid"))
                found += list(zip(*columns, strict=True))
        return found, batches

    wanted, _ = rows(0, 1)
    together = [row for rank in range(world_size) for row in rows(rank, world_size)[0]]
    order = rows(0, world_size)[1].order_of_rows(6)
    ordered = together if order is None else [together[position] for position in order]
    assert [row for row in ordered if row[2]] == wanted
    assert (order is None) == (world_size == 1)


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("wide", "value", "target 'wide' of example 0: give a finite number"),
        (float("nan"), "value", "target nan of example 0: give a finite number"),
        (np.zeros((2, 2)), "value", "give a finite number, or several in a row"),
        (np.zeros((8, 8)), "mask", "the mask of example 0 is of type float64"),
        (np.zeros(8, np.uint8), "mask", r"shape \(8,\): give \(H, W\) of whole numbers"),
        (np.full((8, 8), 300), "mask", "values from 300 to 300: give 0..255"),
    ],
)
def test_targets_that_are_none_are_told(target: Any, kind: str, said: str) -> None:
    images, _ = pattern_images(12)
    data = opened(Pairs(images, [target] * 12), label=False, targets=(kind,))
    with pytest.raises(DataError, match=said):
        data.fingerprint()


def test_files_have_no_targets_yet(tmp_path: Any) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RequestError, match="gives no targets of kind 'value': give a sized object"):
        open_dataset(str(tmp_path), label=False, targets=("value",))


def test_other_targets_are_other_data() -> None:
    images, labels = pattern_images(12)
    prints = {
        opened(Pairs(images, values), label=False, targets=("value",)).fingerprint()
        for values in (labels / 4, labels / 5)
    }
    assert len(prints) == 2
