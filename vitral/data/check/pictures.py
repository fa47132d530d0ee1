"""The pictures of the files that a check complains about, small enough for a page."""

import numpy as np

from vitral.data.check.check import Check
from vitral.data.check.checked import read_pixels
from vitral.data.check.problems import NOTE
from vitral.data.levels import choose_levels, to_eight_bit_range
from vitral.data.resize import resize
from vitral.spec.preprocessing import default_preprocessing

SIDE = 192
"""Pixels of the longer side, at most."""
MAX_PICTURED = 24
"""Occurrences of each kind of problem that are pictured."""


def pictures_of(check: Check) -> dict[str, np.ndarray]:
    """Return by name the pictures (h, w, C) uint8 of files with problems that can be read."""
    place = {name: number for number, name in enumerate(check.data.listing.store.names)}
    wanted = dict.fromkeys(
        name
        for problem in check.problems
        if problem.weight != NOTE
        for item in problem.items[:MAX_PICTURED]
        for name in item.files
        if name in place
    )
    pictures: dict[str, np.ndarray] = {}
    for name in wanted:
        pixels = read_pixels(check.data.listing.store, place[name], channels=check.data.channels)
        if pixels is not None:
            pictures[name] = _small(pixels)
    return pictures


def _small(pixels: np.ndarray) -> np.ndarray:
    lowest, highest = float(pixels.min()), float(pixels.max())
    whole = pixels.dtype.kind != "f"
    levels = choose_levels(lowest, max(highest, lowest + 1), whole=whole)
    shown = np.rint(to_eight_bit_range(pixels, levels)).astype(np.uint8)
    height, width = shown.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    how = default_preprocessing(size, channels=shown.shape[2])
    return resize(shown, size, how).astype(np.uint8)
