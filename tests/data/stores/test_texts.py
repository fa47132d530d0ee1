import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.stores.texts import Texts

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(TEXTS, TEXTS)
def test_texts_come_back_one_by_one(first, second):
    both = Texts.joined([Texts.of(first), Texts.of(second)])
    assert list(both) == first + second
    assert both[:] == first + second
    assert both[::-2] == (first + second)[::-2]
    assert len(both) == len(first) + len(second)


def test_names_that_are_no_valid_text_come_back():
    assert list(Texts.of(["caf\udce9.png", ""])) == ["caf\udce9.png", ""]


def test_texts_end_at_their_end():
    texts = Texts.of(["a", "b"])
    assert texts[-1] == "b"
    for number in (2, -3):
        with pytest.raises(IndexError):
            texts[number]
