"""Where Vitral keeps its files."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return `$VITRAL_CACHE_DIR`, else `vitral` in the user's cache folder; it may not exist."""
    chosen = os.environ.get("VITRAL_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitral"
