from pathlib import Path

import pytest

from vitral.files.layout import cache_dir


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
