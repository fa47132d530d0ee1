import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import ModelFileError
from vitral.models.weights import mapping
from vitral.models.weights.mapping import Entry, Layout, read_entries, write_entries

# Each layout with the shapes of theirs and of ours.
LAYOUTS: dict[str, tuple[Layout, list[tuple[int, ...]], tuple[int, ...]]] = {
    "same": (mapping.SAME, [(2, 3)], (2, 3)),
    "dense": (mapping.FLAX_DENSE, [(2, 3)], (3, 2)),
    "convolution": (mapping.FLAX_CONV, [(5, 4, 3, 2)], (2, 3, 5, 4)),
    "group norm": (mapping.FLAX_GROUP_NORM, [(1, 1, 1, 6)], (6,)),
    "vector": (mapping.VECTOR, [(6,)], (6,)),
    "convolution as a head": (mapping.FLAX_CONV_HEAD, [(1, 1, 4, 3)], (3, 4)),
    "torch's convolution as a head": (mapping.TORCH_CONV_HEAD, [(3, 4, 1, 1)], (3, 4)),
    "stacked": (mapping.STACKED, [(2, 6)] * 3, (6, 6)),
    "kernels of queries, keys, values": (mapping.flax_qkv_kernels(3), [(6, 3, 2)] * 3, (18, 6)),
    "biases of queries, keys, values": (mapping.flax_qkv_biases(3), [(3, 2)] * 3, (18,)),
    "out": (mapping.flax_out_kernel(3), [(3, 2, 6)], (6, 6)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_undone_by_writing(name: str) -> None:
    layout, theirs, ours = LAYOUTS[name]
    parts = [torch.randn(shape) for shape in theirs]
    read = layout.read(parts)
    assert read.shape == ours
    assert all(torch.equal(a, b) for a, b in zip(layout.write(read), parts, strict=True))


def test_the_layouts_keep_what_each_number_means() -> None:
    kernel = torch.randn(5, 4, 3, 2)
    assert mapping.FLAX_CONV.read([kernel])[1, 2, 3, 0] == kernel[3, 0, 2, 1]
    query, key, value = torch.randn(3, 6, 3, 2)
    qkv = mapping.flax_qkv_kernels(3).read([query, key, value])
    assert qkv[6 + 2 * 1 + 1, 4] == key[4, 1, 1]
    out = torch.randn(3, 2, 6)
    assert mapping.flax_out_kernel(3).read([out])[5, 2 * 2 + 1] == out[2, 1, 5]


@given(st.permutations(["a", "b", "c", "d"]))
def test_what_no_entry_asks_for_is_left_over_in_order(names: list[str]) -> None:
    tensors = {name: torch.zeros(1) for name in names}
    found, left = read_entries(tensors, [Entry("x", ("b",), mapping.SAME)], path="f")
    assert list(found) == ["x"]
    assert left == ["a", "c", "d"]


def test_an_entry_of_which_a_part_is_missing_is_not_read() -> None:
    entry = Entry("qkv", ("q", "k", "v"), mapping.STACKED)
    found, left = read_entries({"q": torch.zeros(1), "k": torch.zeros(1)}, [entry], path="f")
    assert (found, left) == ({}, ["k", "q"])


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (mapping.FLAX_CONV, (3, 2)), (mapping.FLAX_DENSE, (3,)), (mapping.flax_out_kernel(2), (3,)),
        (mapping.FLAX_CONV_HEAD, (3,)),
    ],
)  # fmt: skip
def test_a_shape_that_no_layout_can_read_is_told_with_its_name(
    layout: Layout, shape: tuple[int, ...]
) -> None:
    shown = r"\(" + ", ".join(map(str, shape))
    with pytest.raises(
        ModelFileError, match=rf"f.npz: head/kernel has a shape that can't be right, {shown}"
    ):
        read_entries(
            {"head/kernel": torch.zeros(shape)},
            [Entry("head", ("head/kernel",), layout)],
            path="f.npz",
        )


def test_what_is_written_lies_in_one_piece() -> None:
    written = write_entries({"w": torch.randn(3, 4)}, [Entry("w", ("kernel",), mapping.FLAX_DENSE)])
    assert written["kernel"].is_contiguous()
