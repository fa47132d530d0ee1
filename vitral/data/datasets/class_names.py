"""Names of classes in order, of sets whose files only number them."""

import functools
import json
from pathlib import Path


def class_names(name: str) -> tuple[str, ...]:
    """Return the names of a data set's classes, in order."""
    return tuple(_all_names()[name])


@functools.cache
def _all_names() -> dict[str, list[str]]:
    path = Path(__file__).with_name("class_names.json")
    names: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return names
