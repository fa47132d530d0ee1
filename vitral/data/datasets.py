"""Data sets by name."""

import os
from pathlib import Path
from typing import Any

from vitral.data.sources.shards import is_pattern
from vitral.errors import RequestError, nearest

# 10,000 training and 2,000 test images of Fashion-MNIST (arXiv 1708.07747), MIT licence.
BUILTIN = {"fashion-mnist": Path(__file__).parent / "builtin" / "fashion_mnist.npz"}
DEFAULT_NAME = "fashion-mnist"


def find_source(data: Any) -> Any:
    """Return the file behind a built-in set's name; anything else as it is.

    Raises:
        RequestError: text that is neither a path nor a name.
    """
    if not isinstance(data, str | os.PathLike):
        return data
    folded = str(data).lower().replace("_", "-")
    if Path(data).exists():
        return data
    if folded in BUILTIN:
        return BUILTIN[folded]
    if not any(sign in str(data) for sign in "./\\"):
        raise RequestError(
            f"there is no folder, file or data set {str(data)!r}{nearest(folded, BUILTIN)}"
        )
    return data


def data_name(data: Any) -> str:
    """Return a short name for a data set, for run folders and titles."""
    if not isinstance(data, str | os.PathLike):
        return type(data).__name__
    folded = str(data).lower().replace("_", "-")
    if folded in BUILTIN:
        return folded
    path = Path(data)
    named = path.resolve().parent if is_pattern(str(data)) and not path.exists() else path.resolve()
    return named.name.split(".")[0] or "data"
