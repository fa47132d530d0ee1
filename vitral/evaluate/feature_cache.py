"""Features kept in a folder, found again by all that they depend on."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vitral.files.atomic import new_file
from vitral.models.fingerprint import weights_hash
from vitral.models.model import Model
from vitral.spec.preprocessing import Preprocessing
from vitral.version import __version__

_log = logging.getLogger("vitral")
_UNWRITABLE: set[Path] = set()
"""Folders of which it has been said that nothing can be kept there."""


@dataclass(frozen=True)
class Kept:
    """What is kept of an extraction: all but the labels."""

    values: np.ndarray
    """(N, D) float32."""
    indices: np.ndarray
    """(N,) int64."""
    errors: dict[int, str]

    def digest(self) -> str:
        """Return a hash of everything, by which damage is noticed."""
        whole = hashlib.sha256(f"{self.values.shape} {_errors_text(self.errors)}".encode())
        whole.update(np.ascontiguousarray(self.values).data)
        whole.update(np.ascontiguousarray(self.indices).data)
        return whole.hexdigest()


def feature_key(
    model: Model,
    digests: Sequence[str],
    *,
    preprocessing: Preprocessing,
    precision: torch.dtype,
    device: torch.device,
    first: np.ndarray,
) -> str:
    """Return a name for the features that a model gives for images, other where they may differ.

    The batch size is no part: it changes rounding alone.

    Args:
        model: counts with its weights and config.
        digests: of the images' contents, in order.
        preprocessing: all fields count.
        precision: of the matrix products.
        device: its kind counts.
        first: (D,), the features of the first image as they are computed now. They stand for what
            nothing else tells: code that was changed, other decoders, settings of torch.
    """
    facts = {
        "vitral": __version__,
        "torch": torch.__version__,
        "device": device.type,
        "precision": str(precision),
        "model": [type(model.config).__name__, asdict(model.config), weights_hash(model)],
        "preprocessing": asdict(preprocessing),
        "first": np.ascontiguousarray(first).tobytes().hex(),
        "images": list(digests),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def load_features(folder: Path, key: str) -> Kept | None:
    """Return what was kept under a key; None where there is nothing, or it is damaged."""
    try:
        with safe_open(_path(folder, key), framework="numpy") as file:
            facts = file.metadata()
            errors = {int(index): text for index, text in json.loads(facts["errors"]).items()}
            kept = Kept(file.get_tensor("values"), file.get_tensor("indices"), errors)
            return kept if kept.digest() == facts["digest"] else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
        return None


def save_features(folder: Path, key: str, kept: Kept) -> None:
    """Keep features; where that is not possible it is said, once for a folder."""
    facts = {"errors": _errors_text(kept.errors), "digest": kept.digest()}
    tensors = {"values": np.ascontiguousarray(kept.values), "indices": kept.indices}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(_path(folder, key)) as aside:
            save_file(tensors, aside, metadata=facts)
    except (OSError, SafetensorError) as error:
        if folder not in _UNWRITABLE:
            _UNWRITABLE.add(folder)
            _log.warning("note: features can't be kept in %s, so they are not: %s", folder, error)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _errors_text(errors: dict[int, str]) -> str:
    return json.dumps({str(index): errors[index] for index in sorted(errors)})
