"""Where examples are: class folders, split folders, archives, CSV lists, arrays, objects.

A source only lists: which files may be examples, with which class and split, and which are left out
and why. What is in the files is the survey's to say.
"""

import os
from pathlib import Path
from typing import Any

from vitral.data.sources.arrays import list_npz, list_object
from vitral.data.sources.folders import list_folder
from vitral.data.sources.listing import READ_HINT, Listing
from vitral.data.sources.lists import list_csv
from vitral.errors import RequestError


def list_source(data: Any) -> Listing:
    """List the examples of a path, or of a sized object with [i] -> (image, label).

    Raises:
        RequestError: nothing is there, or it is of no form that is read.
        DataError: its contents can't be used.
    """
    if not isinstance(data, str | os.PathLike):
        return list_object(data)
    path = Path(data)
    if not path.exists():
        raise RequestError(f"there is nothing at {path}: {READ_HINT}")
    if path.is_dir():
        return list_folder(path)
    if path.suffix.lower() == ".csv":
        return list_csv(path)
    if path.suffix.lower() == ".npz":
        return list_npz(path)
    raise RequestError(f"{path} is of no form that is read: {READ_HINT}")
