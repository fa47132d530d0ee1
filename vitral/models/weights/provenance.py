"""Where weights come from, and a hash that identifies equal ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from vitral.config.catalogue import find_entry

if TYPE_CHECKING:
    from vitral.models.model import Model


def training_data_of(model: Model, path: str) -> str:
    """Return what weights were trained on, in order, from their folder or the catalogue.

    A fine-tuned model has both: `imagenet21k, then birds`.

    Args:
        model: loaded.
        path: what it was loaded from.

    Returns:
        Names of data sets; empty: not known.
    """
    provenance = model.provenance
    pretrained, data = provenance.get("pretrained"), provenance.get("data")
    stages = [
        pretrained.get("data") if isinstance(pretrained, Mapping) else None,
        data.get("name") if isinstance(data, Mapping) else None,
    ]
    if any(stages):
        return ", then ".join(str(stage) for stage in stages if stage)
    entry = find_entry(path)
    return entry.training_data if entry else ""


def weights_hash(model: nn.Module) -> str:
    """Return 32 hex digits of SHA-256 over names, shapes, types and values of the state dict."""
    whole = hashlib.sha256()
    for number, part in enumerate(weights_parts(model)):
        whole.update(b"\0" + part if number else part)
    return whole.hexdigest()[:32]


def weights_parts(model: nn.Module) -> Iterator[bytes]:
    """Yield, for each tensor of the state dict, its description and its values, as bytes."""
    for name, tensor in model.state_dict().items():
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        yield bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
