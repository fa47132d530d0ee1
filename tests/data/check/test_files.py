"""Each kind of problem of a file, planted and found."""

import io

import numpy as np
import pytest
from PIL import Image

from vitral.data.check import files
from vitral.data.images import open_images
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings


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
    ((file, said),) = found[kind]
    assert file == f"train/a/{name}"
    assert detail in said


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
    data = open_images(tmp_path / "photos")
    pack(data, tmp_path / "packed", PackSettings(resize=20), name="photos")
    assert "wrong_extension" not in problems_of(tmp_path / "packed")
