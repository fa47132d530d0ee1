"""From what a file holds to the tensors of one model: wrappers opened, prefixes taken off."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.errors import ModelFileError

# Where training scripts keep a model's state, the one to use first: a teacher before its student.
WRAPPERS = ("state_dict", "model", "teacher", "model_state", "model_state_dict", "module", "net")
# What stands before every name: torch's wrappers, the official code's and timm's trees. A part of a
# larger network, such as DINO's, has `backbone.`.
PREFIXES = (
    "module.", "_orig_mod.", "model.", "backbone.", "teacher.", "encoder_q.",
    "opt/target/", "params/", "target/",
)  # fmt: skip
# What flax's training scripts keep beside the weights, in one tree of names.
_OPTIMIZER = re.compile(r"(opt/(?!target/)|opt_state/|optimizer/|target_opt/)")
# Of a model of images and texts, the part that is read here; the texts' has as many names.
TOWER = "img/"


def unwrap(tree: Mapping[str, Any], *, path: Path) -> dict[str, Tensor]:
    """Return the tensors of the model that a file holds, by their plain names, in float32.

    Raises:
        ModelFileError: it holds no model, such as an optimizer's state alone.
    """
    inner = _find_state(tree)
    tensors = {
        str(name): value.detach() for name, value in inner.items() if isinstance(value, Tensor)
    }
    if not tensors:
        keys = ", ".join(sorted(map(str, tree))[:6]) or "nothing"
        raise ModelFileError(
            f"{path} holds no model: it has {keys}. Give the file that holds the weights"
        )
    own = {name: tensor for name, tensor in tensors.items() if not _OPTIMIZER.match(name)}
    return {name: _as_float32(tensor) for name, tensor in _strip(own, path=path).items()}


def _find_state(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Open wrappers until tensors lie there."""
    for wrapper in WRAPPERS:
        if isinstance(tree.get(wrapper), Mapping):
            return _find_state(tree[wrapper])
    return tree


def _strip(tensors: Mapping[str, Tensor], *, path: Path) -> dict[str, Tensor]:
    """Take off prefixes; what does not share a prefix that most names have is kept as it is.

    Raises:
        ModelFileError: two tensors would get one name.
    """
    names = dict(tensors)
    while True:
        for prefix in (*PREFIXES, TOWER):
            own = [name for name in names if name.startswith(prefix)]
            wanted = 0 if prefix == TOWER else len(names) / 2
            if len(own) > wanted and not _is_layer(own, prefix):
                stripped = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
                if len(stripped) < len(names):
                    twice = next(n for n in own if n.removeprefix(prefix) in names)
                    raise ModelFileError(
                        f"{path} holds both {twice} and {twice.removeprefix(prefix)}: which one is "
                        "the model's can't be told; save one model in a file"
                    )
                names = stripped
                break
        else:
            return names


def _is_layer(own: list[str], prefix: str) -> bool:
    """Say whether what looks like a prefix is a part of the model: a list of layers."""
    return any(re.match(r"\d+[./]", name.removeprefix(prefix)) for name in own)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
