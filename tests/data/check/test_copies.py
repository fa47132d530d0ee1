import io

import pytest
from PIL import Image

from vitral.data.check.checked import open_checked
from vitral.data.check.copies import found_in


def similar(content):
    """The same picture in another file: smaller, compressed."""
    image = Image.open(io.BytesIO(content)).resize((80, 80), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


@pytest.fixture
def photo(stress):
    return stress["pillow/hopper.jpg"]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("train/a/copy.jpg", "copies"),
        ("test/a/copy.jpg", "across_splits"),
        ("train/b/copy.jpg", "other_class"),
        ("val/b/copy.jpg", "other_class"),
    ],
)
@pytest.mark.parametrize("is_near", [False, True])
def test_a_copy_is_found_and_named_by_its_worst(
    problems_of, split_tree, fill, photo, place, kind, is_near
):
    root, _ = split_tree
    kind = {"copies": "near_copies"}.get(kind, f"near_{kind}") if is_near else kind
    fill(root, {"train/a/photo.jpg": photo, place: similar(photo) if is_near else photo})
    found = problems_of(root)
    assert list(found) == [kind]
    ((first, second, detail),) = found[kind]
    assert {first, second} == {"train/a/photo.jpg", place}
    assert detail.count(";") == 1


def test_each_copy_is_told_once(problems_of, split_tree, fill, photo):
    root, _ = split_tree
    fill(root, {f"train/a/{n}-copy.jpg": photo for n in range(4)})
    assert len(problems_of(root)["copies"]) == 3


def test_images_that_other_data_has_are_found_exactly_or_nearly(
    problems_of, split_tree, fill, photo, tmp_path
):
    root, contents = split_tree
    fill(root, {"train/a/photo.jpg": photo})
    fill(
        tmp_path / "other",
        {
            "x/same.png": contents["train/b/3.png"],
            "x/again.png": contents["train/b/3.png"],
            "y/near.jpg": similar(photo),
            "y/else.png": contents["test/a/0.png"][:200],  # damaged: not compared
        },
    )
    found = problems_of(root, against=tmp_path / "other")
    assert found["also_there"] == [
        ("train/a/photo.jpg", "y/near.jpg", "looks the same"),
        ("train/b/3.png", "x/again.png", "the same content"),
    ]


def test_nothing_is_found_in_other_data(split_tree, fill, pictures, tmp_path):
    root, _ = split_tree
    other = fill(tmp_path / "other", pictures([f"{c}/{n}.png" for c in "ab" for n in range(5)]))
    assert found_in(open_checked(root), open_checked(other)) == {}
