"""Many texts, such as millions of names, in one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Texts(Sequence[str]):
    """Many texts as their bytes, each made a string when it is asked for."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        """Hold the bytes (B,) uint8 of all texts, and where each one ends (N,) int64."""
        self.content, self.ends = content, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """Put texts into one array; file names may be no valid text."""
        parts = [text.encode(errors="surrogateescape") for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """Put several behind one another."""
        firsts = np.cumsum([0, *(len(part.content) for part in parts)])
        ends = [part.ends + first for part, first in zip(parts, firsts, strict=False)]
        return cls(np.concatenate([part.content for part in parts]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        first = int(self.ends[number - 1]) if number else 0
        content = self.content[first : int(self.ends[number])].tobytes()
        return content.decode(errors="surrogateescape")
