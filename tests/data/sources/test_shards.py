import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.listings import skipped, splits, used

from vitral.data.sources.find import list_source
from vitral.data.sources.shards import expand_pattern, list_shards
from vitral.errors import DataError

SHARD = {"0.png": None, "0.cls": b"cat", "1.a.png": None, "1.cls": b" dog\n"}


def filled(members, content=b"\x89PNG"):
    return {name: content if stated is None else stated for name, stated in members.items()}


def shards(root, pack, **members):
    paths = []
    for name, files in members.items():
        paths.append(pack(root / f"{name.replace('_', '-')}.tar", filled(files)))
    return paths


def test_files_of_one_key_are_an_example(tmp_path, pack):
    listing = list_shards(shards(tmp_path, pack, s_0=SHARD, s_1=SHARD), source="s")
    assert used(listing) == {
        "s-0.tar/0.png": "cat", "s-0.tar/1.a.png": "dog",
        "s-1.tar/0.png": "cat", "s-1.tar/1.a.png": "dog",
    }  # fmt: skip
    assert skipped(listing) == {}
    assert set(listing.splits) == {None}


def test_the_key_holds_the_folders(tmp_path, pack):
    members = {"a/0.png": None, "a/0.cls": b"cat", "b.c/0.png": None, "b.c/0.cls": b"dog"}
    listing = list_shards(shards(tmp_path, pack, s=members), source="s")
    assert used(listing) == {"s.tar/a/0.png": "cat", "s.tar/b.c/0.png": "dog"}


def test_what_belongs_to_no_example_is_listed(tmp_path, pack):
    members = SHARD | {"0.json": b"{}", "2.png": None, "3.cls": b"cat"}
    listing = list_shards(shards(tmp_path, pack, s=members), source="s")
    assert skipped(listing) == {"s.tar/0.json": "not an image", "s.tar/2.png": "no .cls beside it"}


def test_numbers_become_the_names_of_the_class_list(tmp_path, pack):
    numbered = {"0.png": None, "0.cls": b"1", "1.png": None, "1.cls": b"0"}
    paths = shards(tmp_path, pack, s=numbered)
    assert set(used(list_shards(paths, source="s")).values()) == {"0", "1"}
    (tmp_path / "classes.txt").write_text("owl\nwren\n\n")
    listing = list_shards(paths, source="s")
    assert list(used(listing).values()) == ["wren", "owl"]
    assert listing.classes == ("owl", "wren")


@pytest.mark.parametrize(
    ("classes", "message"),
    [("owl\n", "0.cls says class 1, classes.txt has 1"), ("a\nb\na\n", "names a class twice")],
)
def test_a_class_list_that_does_not_fit_is_an_error(tmp_path, pack, classes, message):
    paths = shards(tmp_path, pack, s={"0.png": None, "0.cls": b"1"})
    (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(DataError, match=message):
        list_shards(paths, source="s")


def test_the_split_is_what_the_name_begins_with(tmp_path, pack):
    listing = list_shards(shards(tmp_path, pack, train_0=SHARD, Val_0=SHARD), source="s")
    assert splits(listing) == {
        "train-0.tar/0.png": "train", "train-0.tar/1.a.png": "train",
        "Val-0.tar/0.png": "validation", "Val-0.tar/1.a.png": "validation",
    }  # fmt: skip


def test_a_shard_without_a_split_beside_others_is_an_error(tmp_path, pack):
    with pytest.raises(DataError, match=r"the name of extra-0\.tar says no split"):
        list_shards(shards(tmp_path, pack, train_0=SHARD, extra_0=SHARD), source="s")


def test_a_folder_of_archives_and_class_folders_is_no_folder_of_shards(tmp_path, fill, pack):
    shards(tmp_path, pack, backup=SHARD)
    fill(tmp_path, ["cat/1.png", "dog/1.png"])
    listing = list_source(tmp_path)
    assert used(listing) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert skipped(listing) == {"backup.tar": "not in a class folder"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s-{0..2}.tar", ["s-0.tar", "s-1.tar", "s-2.tar"]),
        ("s-{000..001}.tar", ["s-000.tar", "s-001.tar"]),
        ("s-{9..11}.tar", ["s-9.tar", "s-10.tar", "s-11.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("*.tar", ["a.tar", "b.tar"]),
        ("{b,a,b}.tar", ["b.tar", "a.tar"]),
        ("[ab].t?r", ["a.tar", "b.tar"]),
    ],
)
def test_patterns_name_files_in_order(tmp_path, pattern, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert expand_pattern(str(tmp_path / pattern)) == [tmp_path / name for name in names]


@given(st.integers(0, 300), st.integers(0, 30))
def test_a_range_names_each_number_once_in_equal_width(first, more):
    from vitral.data.sources.shards import _expand_braces

    names = _expand_braces(f"{{{first:05}..{first + more:05}}}")
    assert names == [f"{number:05}" for number in range(first, first + more + 1)]
