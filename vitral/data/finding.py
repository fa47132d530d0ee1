"""What one file was found to be."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """What one file is."""

    digest: str = ""
    """SHA-256 of the content, hex, first 32 digits; empty when not read."""
    stamp: str = field(default="", compare=False)
    """The store's stamp when it was read: as long as that stands, so does the digest."""
    format: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    turned: bool = False
    num_frames: int = 1
    depth: str = "uint8"
    """The type of its values."""
    lowest: float = 0.0
    """Of its values."""
    highest: float = 0.0
    visual: str = ""
    """What it looks like, from `visual_hash`; empty where there is nothing to be seen."""
    is_flat: bool = False
    """Whether all its pixels are equal."""
    problem: str = ""
    """Why the image can't be used; empty when it can."""
    damaged: bool = False
    """Whether the problem is damage, not a kind of image that is not read yet."""

    @property
    def is_deep(self) -> bool:
        """Whether the values are of more than eight bits."""
        return self.depth != "uint8"
