import io
import json

import numpy as np
import pytest
from PIL import Image

from vitral.data.check import check as files
from vitral.data.check.check import check, find_shared_files
from vitral.data.check.checked import checked_of, open_checked
from vitral.data.check.problems import ERROR, KINDS, NOTE, WARNING
from vitral.data.dataset import open_dataset
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings
from vitral.errors import DataError, RequestError


def test_good_data_is_called_good(split_tree):
    found = check(open_checked(split_tree[0]))
    assert found.is_good
    assert found.verdict == "good: nothing to complain about"
    record = found.record(name="photos")
    assert json.loads(json.dumps(record)) == record
    assert (record["num_files"], record["num_images"]) == (20, 20)
    assert list(record["splits"].items()) == [("train", 12), ("validation", 4), ("test", 4)]


def test_warnings_are_usable(split_tree, fill):
    root, contents = split_tree
    fill(root, {"train/a/again.png": contents["train/a/0.png"]})
    found = check(open_checked(root))
    assert found.is_good
    assert found.verdict == "usable: one kind of problem should be looked at"
    (problem,) = found.problems
    assert problem.sentence == "1 image is a copy within its split: they count twice"


def test_errors_are_bad(split_tree, fill):
    root, contents = split_tree
    again = {f"test/a/{n}-again.png": contents[f"train/a/{n}.png"] for n in range(2)}
    fill(root, {"train/a/bad.png": b""} | again)
    found = check(open_checked(root))
    assert not found.is_good
    assert found.verdict == "bad: 2 kinds of problems would make training or score wrong"
    assert found.problems[1].sentence.startswith("2 images of one split are copies of another")


def test_a_check_of_open_data_finds_the_same(split_tree, fill):
    root, contents = split_tree
    fill(root, {"test/a/again.png": contents["train/a/0.png"], "train/a/bad.png": b""})
    quick, full = (
        check(data).problems for data in (checked_of(open_dataset(root)), open_checked(root))
    )
    assert quick == full


def test_a_check_reads_all_files_however_many(split_tree, monkeypatch):
    monkeypatch.setattr("vitral.data.scan.MAX_FILES_READ", 3)
    assert all(file_info.digest for file_info in open_checked(split_tree[0]).file_infos)


def test_nothing_is_no_data(tmp_path, fill):
    fill(tmp_path / "photos", {"a/notes.txt": b"mine"})
    with pytest.raises(DataError, match="has no images"):
        open_checked(tmp_path / "photos")


def test_every_kind_has_a_weight_and_words():
    assert {kind.weight for kind in KINDS.values()} == {ERROR, WARNING, NOTE}
    assert all(kind.one for kind in KINDS.values())


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
    assert find_shared_files(open_checked(root), open_checked(other)) == {}


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def image(picture):
    return picture(777, size=(24, 20))


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif.tobytes())


PLANTED = {
    "unreadable": ("x.jpg", lambda im: encoded(im, "JPEG")[:300], "runcated"),
    "not_read_yet": ("x.jpg", lambda im: b"\0\0\0\x18ftypheic" + bytes(40), "HEIC is not read yet"),
    "wrong_extension": ("x.png", lambda im: encoded(im, "JPEG"), "JPEG"),
    "turned": ("x.jpg", turned, ""),
    "cmyk": ("x.jpg", lambda im: encoded(im.convert("CMYK"), "JPEG"), ""),
    "palette": ("x.png", lambda im: encoded(im.convert("P"), "PNG"), ""),
    "alpha": ("x.png", lambda im: encoded(im.convert("RGBA"), "PNG"), ""),
    "deep": (
        "x.png",
        lambda im: encoded(Image.fromarray(np.asarray(im.convert("L"), np.uint16) * 257), "PNG"),
        "uint16, ",
    ),
    "animated": (
        "x.gif",
        lambda im: encoded(im, "GIF", save_all=True, append_images=[im.rotate(180)]),
        "2 frames",
    ),
    "tiny": ("x.png", lambda im: encoded(im.resize((15, 99)), "PNG"), "99 x 15"),
    "flat": ("x.png", lambda im: encoded(Image.new("RGB", (20, 24), "red"), "PNG"), ""),
    "left_out": ("notes.txt", lambda im: b"mine", "not an image"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_problem_is_found(problems_of, split_tree, fill, image, kind):
    root, _ = split_tree
    name, make, detail = PLANTED[kind]
    fill(root, {f"train/a/{name}": make(image)})
    found = problems_of(root)
    ((file, found_detail),) = found[kind]
    assert file == f"train/a/{name}"
    assert detail in found_detail


def test_a_single_other_pixel_is_something(problems_of, split_tree, fill):
    root, _ = split_tree
    image = Image.new("RGB", (2000, 1000), (90, 90, 90))
    image.putpixel((1, 1), (91, 90, 90))
    fill(root, {"train/a/x.png": encoded(image, "PNG")})
    assert "flat" not in problems_of(root)


def test_a_huge_image_is_found(problems_of, split_tree, fill, image, monkeypatch):
    monkeypatch.setattr(files, "MANY_PIXELS", 10_000)
    root, _ = split_tree
    fill(root, {"train/a/x.png": encoded(image.resize((100, 101)), "PNG")})
    assert problems_of(root)["huge"] == [("train/a/x.png", "101 x 100")]


def test_an_empty_folder_is_told(problems_of, split_tree):
    root, _ = split_tree
    (root / "train" / "c").mkdir()
    assert problems_of(root)["left_out"] == [("train/c", "an empty folder")]


def test_nothing_is_wrong_with_good_data(problems_of, split_tree):
    root, _ = split_tree
    assert problems_of(root) == {}


def test_the_stress_images_are_each_used_or_told(problems_of, stress, fill, tmp_path):
    contents = {f"{'ab'[n % 2]}/{n}-{name.split('/')[-1]}": content
                for n, (name, content) in enumerate(stress.items())}  # fmt: skip
    found = problems_of(fill(tmp_path / "stress", contents))
    bad = {item[0] for kind in ("unreadable", "not_read_yet", "left_out") for item in found[kind]}
    assert 8 <= len(bad) <= 24
    for kind in ("turned", "cmyk", "palette", "alpha", "deep", "animated", "tiny"):
        assert found[kind], kind


def test_a_pack_keeps_names_whose_endings_say_nothing(problems_of, fill, picture, encode, tmp_path):
    names = {
        f"{kind}/{n}.png": encode(picture(n, size=(40, 50))) for kind in "ab" for n in range(9)
    }
    fill(tmp_path / "photos", names)
    data = open_dataset(tmp_path / "photos")
    pack(data, tmp_path / "packed", PackSettings(resize=20), name="photos")
    assert "wrong_extension" not in problems_of(tmp_path / "packed")
