import numpy as np
import pytest

from vitral.figures.html import Html, count, duration, element, interval, join, percent


def test_elements_escape_text_and_attributes_but_not_markup():
    inner = element("b", "a < b & c")
    assert inner == "<b>a &lt; b &amp; c</b>"
    assert element("p", inner, "<i>") == "<p><b>a &lt; b &amp; c</b>&lt;i&gt;</p>"
    assert element("p", class_='"><script>') == '<p class="&quot;&gt;&lt;script&gt;"></p>'


def test_markup_that_was_formatted_into_a_string_is_escaped():
    assert element("p", f"{element('b', 'x')}") == "<p>&lt;b&gt;x&lt;/b&gt;</p>"


def test_joining_leaves_out_none_and_escapes_the_separator():
    assert join(["a", None, Html("<br>")], "<") == "a&lt;<br>"


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.871, "87.1"), (1.0, "100.0"), (0.99996, "99.996"), (0.0, "0.0"), (0.0004, "0.04")],
)
def test_percentages_read_0_or_100_only_when_they_are(share, written):
    assert percent(share) == f"{written}\N{NO-BREAK SPACE}%"


def test_a_share_that_is_not_a_number_is_a_dash():
    assert percent(np.nan) == "\N{EN DASH}"


def test_intervals_name_their_unit_once():
    assert interval(0.855, 0.885) == "85.5 to 88.5\N{NO-BREAK SPACE}%"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (4.21, "4.2 s"),
        (59.99, "1 min 00 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 05 min"),
        (3599.9, "1 h 00 min"),
        (400_000, "4 days 15 h"),
    ],
)
def test_durations_are_written_in_their_two_largest_units(seconds, written):
    assert duration(seconds) == written


def test_counts_agree_with_their_noun():
    assert [count(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert count(2, "class") == "2 classes"
