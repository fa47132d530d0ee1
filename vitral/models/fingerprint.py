"""A hash of a model's weights, by which equal ones are known again."""

import hashlib
from collections.abc import Iterator

import torch
from torch import nn


def weights_hash(model: nn.Module) -> str:
    """Return 32 hex digits of SHA-256 over names, shapes, types and values of the state dict."""
    whole = hashlib.sha256()
    for number, part in enumerate(weights_parts(model)):
        whole.update(b"\0" + part if number else part)
    return whole.hexdigest()[:32]


def weights_parts(model: nn.Module) -> Iterator[bytes]:
    """Give, for each tensor of the state dict, what it is as text and its values as bytes."""
    for name, tensor in model.state_dict().items():
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        yield bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
