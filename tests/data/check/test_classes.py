import pytest

from vitral.errors import RequestError


def test_a_class_without_training_images_is_found(problems_of, split_tree, fill, pictures):
    root, _ = split_tree
    fill(root, pictures(["test/c/1.png", "val/c/1.png"]))
    found = problems_of(root)
    assert found["not_trained"] == [("'c' of the validation split",), ("'c' of the test split",)]


def test_a_class_without_test_images_is_found(problems_of, split_tree, fill, pictures):
    root, _ = split_tree
    fill(root, pictures([f"train/c/{n}.png" for n in range(6)] + ["val/c/0.png"]))
    assert problems_of(root) == {"not_tested": [("'c', none in the test split",)]}


def test_a_class_of_damaged_images_is_empty(problems_of, split_tree, fill):
    root, _ = split_tree
    fill(root, {f"train/c/{n}.png": b"" for n in range(3)})
    found = problems_of(root)
    assert found["empty_class"] == [("'c'",)]
    assert len(found["unreadable"]) == 3


def test_few_images_are_found(problems_of, split_tree, fill, pictures):
    root, _ = split_tree
    names = [f"{split}/c/{n}.png" for split in ("train", "val", "test") for n in range(4)]
    fill(root, pictures(names))
    assert problems_of(root) == {"few_images": [("'c': 4",)]}


def test_imbalance_is_found(problems_of, split_tree, fill, pictures):
    root, _ = split_tree
    fill(root, pictures([f"train/b/more-{n}.png" for n in range(55)]))
    assert problems_of(root) == {"imbalance": [("'a': 6 of 61",)]}


def test_one_class_is_no_choice(problems_of, fill, pictures, tmp_path):
    fill(tmp_path / "one", pictures([f"a/{n}.png" for n in range(40)]))
    assert problems_of(tmp_path / "one")["one_class"] == [("'a'",)]


def listed(root, fill, pictures, *, group="", count=12):
    """A list of two declared splits; `group` names each row's group."""
    names = [f"p{n // 2}-{n}.png" for n in range(count)]
    fill(root, pictures(names))
    rows = [
        f"{name},{'ab'[n % 2]},{('test', 'train', 'train')[n % 3]}{f',p{n // 2}' if group else ''}"
        for n, name in enumerate(names)
    ]
    (root / "list.csv").write_text("\n".join([f"path,label,split{group}", *rows]))
    return root / "list.csv"


TORN = [
    ("p0-0.png", "p0-1.png", "'p0' in test, train"),
    ("p1-2.png", "p1-3.png", "'p1' in train, test"),
]


def test_groups_of_a_column_that_are_torn_apart_are_found(problems_of, fill, pictures, tmp_path):
    found = problems_of(listed(tmp_path / "photos", fill, pictures, group=",group"))
    assert found["groups"][:2] == TORN


def test_groups_of_a_pattern_that_are_torn_apart_are_found(problems_of, fill, pictures, tmp_path):
    path = listed(tmp_path / "photos", fill, pictures)
    assert "groups" not in problems_of(path)
    found = problems_of(path, group_pattern=r"^(p\d+)-")
    assert found["groups"][:2] == TORN


def test_groups_stay_together_where_the_source_has_no_splits(problems_of, fill, pictures, tmp_path):
    names = [f"{kind}/p{n // 4}-{n}.png" for kind in "ab" for n in range(80)]
    root = fill(tmp_path / "photos", pictures(names))
    assert "groups" not in problems_of(root, group_pattern=r"/(p\d+)-")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"group_pattern='\(' is no regular expression"),
        ("patient", "group_pattern='patient' fits no file's name, such as 'p0-0.png'"),
    ],
)
def test_a_bad_pattern_is_an_error(problems_of, fill, pictures, tmp_path, pattern, message):
    path = listed(tmp_path / "photos", fill, pictures)
    with pytest.raises(RequestError, match=message):
        problems_of(path, group_pattern=pattern)
