import re
from pathlib import Path

import pytest

from vitral.errors import RequestError
from vitral.files.layout import cache_dir, check_file_names


@pytest.mark.parametrize(
    ("set_variables", "expected"),
    [
        ({"VITRAL_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/users"}, "/own"),
        ({"XDG_CACHE_HOME": "/users"}, "/users/vitral"),
        ({"XDG_CACHE_HOME": "", "VITRAL_CACHE_DIR": ""}, "/home/ana/.cache/vitral"),
        ({}, "/home/ana/.cache/vitral"),
    ],
)
def test_the_cache_is_where_the_user_or_the_system_says(
    monkeypatch: pytest.MonkeyPatch, set_variables: dict[str, str], expected: str
) -> None:
    for name in ("VITRAL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ana")
    for name, value in set_variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/b"], "parts has 'a/b': give names of letters and digits, which become folders"),
        ([""], "parts has ''"),
        (["Aux"], "parts has 'Aux', a device on Windows: give another name"),
        (["com1"], "parts has 'com1', a device on Windows"),
        (["decoder", "Decoder"], "'decoder' and 'Decoder', which are one file on macOS and Windo"),
    ],
)
def test_names_that_some_system_has_no_file_for_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        check_file_names(names, what="parts")


def test_other_names_are_files_everywhere() -> None:
    check_file_names(["decoder", "head-2", "décodeur", "com"], what="parts")
