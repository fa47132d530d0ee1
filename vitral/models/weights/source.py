"""Reading of weights at a path: unwrapped tensors by plain names, and the files beside them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing
from vitral.errors import ModelFileError
from vitral.models.weights.archive import read_archive, read_json

# Names of weights in a folder, the one to use first.
WEIGHT_NAMES = (
    "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "model.bin",
    "model.pth", "model.pt", "model.npz",
)  # fmt: skip
INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
OWN_KEY = "vitral"
"""Key of the model's own description in the header of safetensors that Vitral writes."""


@dataclass(frozen=True)
class WeightFile:
    """Weights as stored on disk, with the statements about them."""

    path: str
    """For messages."""
    tensors: dict[str, Tensor]
    """By their plain names, without wrappers and common prefixes; float32."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """The caller's statements about the weights: `num_heads`, `image_size`, ..."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """`config.json` beside the weights."""
    processor: Mapping[str, Any] = field(default_factory=dict)
    """`preprocessor_config.json` beside the weights (Hugging Face)."""
    own: Mapping[str, Any] | None = None
    """The description in the header that Vitral writes."""
    assumed: list[str] = field(default_factory=list)
    """Assumptions made about what the weights do not determine, for the user to see."""

    def assume(self, what: str) -> None:
        """Record an assumption, once."""
        if what not in self.assumed:
            self.assumed.append(what)


def read_source(path: Path, *, stated: Mapping[str, Any]) -> WeightFile:
    """Read a weight file, or a folder that holds one.

    Raises:
        ModelFileError: there are no weights, or they can't be read.
    """
    if path.is_file():
        folder = path.parent if path.name in WEIGHT_NAMES else None
        return _read_files([path], stated=stated, folder=folder, shown=path)
    return _read_files(_weights_of(path), stated=stated, folder=path, shown=path)


def _weights_of(folder: Path) -> list[Path]:
    """Return the files of a folder that hold the weights: one, or shards by their index."""
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
    for name in INDEX_NAMES:
        if (folder / name).is_file():
            return [folder / shard for shard in shard_names(folder / name)]
    loose = sorted(p for p in folder.iterdir() if p.suffix in (".npz", ".safetensors", ".pth"))
    if len(loose) == 1:
        return loose
    raise ModelFileError(
        f"{folder} holds no model: it has no model folder in model/ and none of "
        + ", ".join(WEIGHT_NAMES)
        + (f"; give one of {', '.join(p.name for p in loose)}" if loose else "")
    )


def shard_names(index: Path) -> list[str]:
    """Return the files that an index names, which lie beside it.

    Raises:
        ModelFileError: it names none, or files elsewhere.
    """
    weight_map = read_json(index).get("weight_map")
    names = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else set()
    if not names or any(Path(name).name != name for name in names):
        raise ModelFileError(f"{index} names no files of its folder")
    return sorted(names)


def _read_files(
    paths: list[Path], *, stated: Mapping[str, Any], folder: Path | None, shown: Path
) -> WeightFile:
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    tree: dict[str, Any] = {}
    for path in paths:
        part, own_header = read_archive(path)
        tree |= part
        header |= own_header
    tensors = unwrap(tree, path=shown)
    configs = {
        name: read_json(folder / f"{name}.json")
        for name in ("config", "preprocessor_config")
        if folder and (folder / f"{name}.json").is_file()
    }
    return WeightFile(
        path=str(shown),
        tensors=tensors,
        stated=stated,
        config=configs.get("config", {}),
        processor=configs.get("preprocessor_config", {}),
        own=_own_description(header),
    )


def _own_description(header: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        described = json.loads(header.get(OWN_KEY, "null"))
    except ValueError:
        return None
    return described if isinstance(described, dict) and "model" in described else None


# Keys under which training scripts store a model's state, in order of preference: a teacher before
# its student.
WRAPPERS = ("state_dict", "model", "teacher", "model_state", "model_state_dict", "module", "net")
# Prefixes of all names: torch's wrappers, the official code's and timm's trees. A part of a larger
# network, such as DINO's, has `backbone.`.
PREFIXES = (
    "module.", "_orig_mod.", "model.", "backbone.", "teacher.", "encoder_q.",
    "opt/target/", "params/", "target/",
)  # fmt: skip
# Optimizer state that flax's training scripts store with the weights, in one tree of names.
_OPTIMIZER = re.compile(r"(opt/(?!target/)|opt_state/|optimizer/|target_opt/)")
# The image tower of an image-text model, which is read here; the text tower has as many names.
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
    weights = {name: tensor for name, tensor in tensors.items() if not _OPTIMIZER.match(name)}
    return {name: _as_float32(tensor) for name, tensor in _strip(weights, path=path).items()}


def _find_state(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Open wrappers recursively."""
    for wrapper in WRAPPERS:
        if isinstance(tree.get(wrapper), Mapping):
            return _find_state(tree[wrapper])
    return tree


def _strip(tensors: Mapping[str, Tensor], *, path: Path) -> dict[str, Tensor]:
    """Remove prefixes that most names have; names without them stay unchanged.

    Raises:
        ModelFileError: two tensors would get one name.
    """
    names = dict(tensors)
    while True:
        for prefix in (*PREFIXES, TOWER):
            prefixed = [name for name in names if name.startswith(prefix)]
            wanted = 0 if prefix == TOWER else len(names) / 2
            if len(prefixed) > wanted and not _is_layer(prefixed, prefix):
                stripped = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
                if len(stripped) < len(names):
                    twice = next(n for n in prefixed if n.removeprefix(prefix) in names)
                    raise ModelFileError(
                        f"{path} holds both {twice} and {twice.removeprefix(prefix)}: which one is "
                        "the model's can't be told; save one model in a file"
                    )
                names = stripped
                break
        else:
            return names


def _is_layer(names: list[str], prefix: str) -> bool:
    """Return whether a supposed prefix is a part of the model: a list of layers."""
    return any(re.match(r"\d+[./]", name.removeprefix(prefix)) for name in names)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class Loaded:
    """A model as stored on disk."""

    config: ModelConfig
    """Its architecture."""
    preprocessing: Preprocessing
    """How its images must be prepared."""
    tensors: dict[str, Tensor]
    """By Vitral's names."""
    format: str
    """The format that it is written in."""
    classes: tuple[str, ...] | None = None
    """The names of its outputs."""
    output: str = "softmax"
    """How its logits become probabilities."""
    reference: Mapping[str, Tensor] | None = None
    """`images` and the `logits` that they gave."""
    assumed: tuple[str, ...] = ()
    """Assumptions made about what the files do not state."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """`data`, `command` and `licence`, as far as they are known."""
    left_over: tuple[str, ...] = ()
    """Names in the file of tensors that belong to no trunk, such as a decoder's."""
    unexpected: tuple[str, ...] = ()
    """Names in the file of tensors that should be in the model but are not."""


@dataclass(frozen=True)
class LoadReport:
    """What a load used, resized, created and left over, by Vitral's names unless left over."""

    path: str
    """Where the weights came from."""
    format: str
    """The format that they were in."""
    used: tuple[str, ...]
    """Taken from the file unchanged."""
    resized: tuple[str, ...] = ()
    """Fitted to another resolution or number of channels."""
    new: tuple[str, ...] = ()
    """Not from the file: a fresh head, or what was missing and allowed to be."""
    left_over: tuple[str, ...] = ()
    """Names in the file of tensors that the model does not have."""
    assumed: tuple[str, ...] = ()
    """Assumptions made about what the files do not state, such as a number of heads."""
    notes: tuple[str, ...] = ()
    """Other notes, such as "no classifier"."""

    def __str__(self) -> str:
        """Return a summary in one line, and a line for each note."""
        counts = [f"{len(self.used)} tensors used"]
        for names, what in (
            (self.resized, "resized"), (self.new, "new"), (self.left_over, "left over"),
        ):  # fmt: skip
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            counts.append(f"{len(names)} {what}" + (f" ({shown})" if names else ""))
        lines = [f"{self.path} ({self.format}): {', '.join(counts)}"]
        return "\n".join(
            [*lines, *(f"assumed: {assumption}" for assumption in self.assumed), *self.notes]
        )
