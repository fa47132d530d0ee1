"""Reads and writes the arrays of `vitral inspect`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vitral.errors import RequestError
from vitral.files.atomic import new_file

ARRAYS_NAME = "inspect.npz"


@dataclass(frozen=True, eq=False)
class Inspected:
    """Measurements of one model."""

    arrays: Mapping[str, np.ndarray]
    """By name, as listed in docs/inspect.md; those that the model does not have are absent."""

    @cached_property
    def about(self) -> dict[str, Any]:
        """Facts about the inspection: model, grid, layers."""
        about: dict[str, Any] = json.loads(str(self.arrays["about"]))
        return about

    @property
    def title(self) -> str:
        """The model's name."""
        return str(self.about["model"])

    def title_among(self, others: "Sequence[Inspected]") -> str:
        """Return the model's name, with its source if several models have that name."""
        same = [other for other in others if other.title == self.title]
        return f"{self.title}\n{self.about['source']}" if len(same) > 1 else self.title

    def covered(self, name: str) -> tuple[float, float]:
        """Return the share of the pictures' height and width that a map's grid covers.

        Patches that do not tile an image leave out its right and bottom edge; cells of occlusion
        may extend beyond it.

        Args:
            name: "patches", of attention and features, or "occlusion".
        """
        height, width = self["images/pictures"].shape[1:3]
        if name == "occlusion":
            rows, columns = self["occlusion/fall"].shape[1:]
            down, across = self["occlusion/cell"].tolist()
        elif "grid" in self.about:
            rows, columns = self.about["grid"]
            down, across = self.about["patch_pixels"]
        else:
            return (1.0, 1.0)
        return (rows * down / height, columns * across / width)

    @property
    def num_images(self) -> int:
        """Number of images that were measured one by one."""
        return len(self.arrays["images/names"]) if "images/names" in self.arrays else 0

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


def write_inspected(folder: Path, model: Inspected, *, name: str = ARRAYS_NAME) -> None:
    """Write the arrays into a folder, where `read_inspected` finds them."""
    with new_file(folder / name) as path, path.open("wb") as file:
        np.savez(file, **model.arrays)  # type: ignore[arg-type]


def compared_paths(folder: Path) -> list[Path]:
    """Return the files of the compared models, in order."""
    numbers = {path: path.stem.removeprefix("beside-") for path in folder.glob("beside-*.npz")}
    found = [path for path, number in numbers.items() if number.isdecimal()]
    return sorted(found, key=lambda path: int(numbers[path]))


def read_inspected(path: Path) -> Inspected:
    """Read a file of `vitral inspect`, or the one in its folder.

    Raises:
        RequestError: it does not exist or can't be read.
    """
    file = path / ARRAYS_NAME if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            archive = np.load(opened, allow_pickle=False)
            is_one = isinstance(archive, np.ndarray)
            arrays = {} if is_one else {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise RequestError(f"{file} can't be read: {error}") from None
    if "about" not in arrays:
        raise RequestError(f"{file} was not written by `vitral inspect`")
    return Inspected(arrays)
