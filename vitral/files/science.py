"""Files of MATLAB and HDF5, by scipy and h5py, which are an extra."""

import importlib
import io
from types import ModuleType
from typing import Any

from vitral.errors import DataError, RequestError


def read_mat(content: bytes, *, where: str) -> dict[str, Any]:
    """Return the variables of a MATLAB file, of version 5.

    Raises:
        DataError: it is damaged.
        RequestError: scipy is not installed.
    """
    matlab = import_science("scipy.io")
    try:
        variables: dict[str, Any] = matlab.loadmat(io.BytesIO(content), squeeze_me=True)
    except Exception as error:  # scipy raises what its parser happens to meet
        raise DataError(f"{where} can't be read as a MATLAB file: {error!r}") from None
    return variables


def import_science(name: str) -> ModuleType:
    """Import scipy.io or h5py.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        library = name.partition(".")[0]
        raise RequestError(
            f"this data set's files need {library}: pip install 'vitral[vtab]'"
        ) from None
