import re

import numpy as np

from vitral.figures.check_page import check_page


def record(**additional):
    items = [{"files": [f"<a>/{n}.png", f"b/{n}.png"], "detail": "test, a & b"} for n in range(30)]
    return {
        "name": "photos <1>",
        "source": "/photos",
        "num_files": 70,
        "num_images": 60,
        "splits": {"train": 50, "test": 10},
        "verdict": "bad: one kind of problem would make training or score wrong",
        "problems": [
            {"kind": "across_splits", "weight": "error", "what": "30 images", "items": items},
            {"kind": "alpha", "weight": "note", "what": "1 image", "items": [
                {"files": ["c.png"], "detail": ""}]},
        ],
    } | additional  # fmt: skip


NAMES = [f"{folder}/{n}.png" for folder in ("<a>", "b") for n in range(30)]
PICTURES = {name: np.full((5, 7, 3), 9, np.uint8) for name in NAMES}


def test_each_problem_has_its_pictures_and_names():
    page = check_page(record(), PICTURES)
    assert page.count("data:image/png;base64") == 2 * 24
    assert "Would make training or score wrong" in page
    assert "Should be looked at" not in page
    assert "Verdict: bad: one kind of problem" in page
    assert "60 (50 train, 10 test)" in page


def test_names_are_escaped():
    page = check_page(record(), PICTURES)
    assert "&lt;a&gt;/29.png" in page
    assert "<a>" not in page
    assert "photos &lt;1&gt;" in page


def test_what_is_pictured_whole_is_not_listed_again():
    few = record()
    few["problems"][0]["items"] = few["problems"][0]["items"][:3]
    page = check_page(few, PICTURES)
    assert page.count("&lt;a&gt;/2.png") == 2  # below the picture, and for who can't see it
    assert "1 occurrence" in page  # of what has no picture


def test_a_long_list_is_cut_and_says_so():
    long = record()
    long["problems"][0]["items"] *= 10
    page = check_page(long, {})
    assert "300 occurrences, the first 200" in page
    assert len(re.findall("<tr>", page)) == 200 + 1 + 2


def test_folds_are_a_table():
    page = check_page(record(folds={"cat": [3, 4], "dog": [5, 6]}), {})
    assert "Fold 1" in page
    assert "cat" in page
