"""What loading did with each tensor."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadReport:
    """What a load used, resized, made new and left over; names of our tensors, but left over."""

    path: str
    """Where the weights came from."""
    format: str
    """The format that they were in."""
    used: tuple[str, ...]
    """Taken from the file as they are."""
    resized: tuple[str, ...] = ()
    """Fitted to another resolution or number of channels."""
    new: tuple[str, ...] = ()
    """Not from the file: a fresh head, or what was missing and allowed to be."""
    left_over: tuple[str, ...] = ()
    """Of the file's own names: what the model has no place for."""
    assumed: tuple[str, ...] = ()
    """What the files do not tell and was taken for granted, such as a number of heads."""
    notes: tuple[str, ...] = ()
    """What else there is to know, such as "no classifier"."""

    def __str__(self) -> str:
        """Say it in a line, and a line for each note."""
        counts = [f"{len(self.used)} tensors used"]
        for names, what in (
            (self.resized, "resized"), (self.new, "new"), (self.left_over, "left over"),
        ):  # fmt: skip
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            counts.append(f"{len(names)} {what}" + (f" ({shown})" if names else ""))
        lines = [f"{self.path} ({self.format}): {', '.join(counts)}"]
        return "\n".join([*lines, *(f"assumed: {own}" for own in self.assumed), *self.notes])
