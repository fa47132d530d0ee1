"""The `.npz` of the paper's authors (google-research/vision_transformer), for plain ViT."""

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.errors import ModelFileError, RequestError
from vitral.models.vit import ViT
from vitral.spec.names import VARIANTS
from vitral.spec.preprocessing import Preprocessing
from vitral.spec.vit import ViTConfig

Arrays = Mapping[str, np.ndarray]

# What the official evaluation does: a squash without antialias, values in [-1, 1]
# (input_pipeline.py).
OFFICIAL_PREPROCESSING: dict[str, Any] = {"resize": "squash", "antialias": False}
_PREFIXES = ("opt/target/", "params/")
# What numpy and zipfile raise on damaged files; the last two on damage that looks like encryption
# or an unknown way of compression.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError,
)  # fmt: skip
_NEW_NAMES = {
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
}


def read_official(path: Path) -> ViT:
    """Build a ViT from an official file.

    Args:
        path: the `.npz`, with the names of 2020 or of later code, with or without a prefix.

    Raises:
        ModelFileError: not such a file, a tensor is missing, left over or of another shape.
    """
    arrays = _plain_names(_read_arrays(path), path=path)
    try:
        config = infer_config(arrays, path=path)
        tensors = convert_arrays(arrays, config=config, path=path)
    except (RequestError, ValueError, IndexError) as error:
        raise ModelFileError(f"{path}: the shapes of its tensors make no ViT: {error}") from None
    preprocessing = Preprocessing(
        size=config.image_hw,
        channels=config.in_channels,
        mean=(0.5,) * config.in_channels,
        std=(0.5,) * config.in_channels,
        **OFFICIAL_PREPROCESSING,
    )
    with torch.device("meta"):
        model = ViT(config, preprocessing=preprocessing)
    _check_tensors(model, tensors, path=path)
    model.load_state_dict(tensors, assign=True)
    return model


def infer_config(arrays: Arrays, *, path: Path) -> ViTConfig:
    """Read the architecture off the shapes.

    Raises:
        ModelFileError: a tensor that every ViT has is missing, or the patches are no square.
    """
    try:
        height, width, channels, embed_dim = arrays["embedding/kernel"].shape
        query = arrays["Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"]
        mlp = arrays["Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"]
        num_positions = arrays["Transformer/posembed_input/pos_embedding"].shape[1]
    except KeyError as error:
        raise ModelFileError(f"{path} is not an official ViT: it has no {error.args[0]}") from None
    has_token = "cls" in arrays
    side = round((num_positions - has_token) ** 0.5)
    if side * side + has_token != num_positions:
        raise ModelFileError(
            f"{path} has positions for {num_positions - has_token} patches, which is no square: "
            "official files hold models of square images only"
        )
    depth = len({key.split("/")[1] for key in arrays if "/encoderblock_" in key})
    head, representation = arrays.get("head/bias"), arrays.get("pre_logits/bias")
    shape = {
        "embed_dim": embed_dim,
        "depth": depth,
        "mlp_dim": mlp.shape[1],
        "num_heads": query.shape[1],
    }
    return ViTConfig(
        name=_name_of(shape, patch_size=(height, width)),
        **shape,
        patch_size=(height, width),
        image_size=(side * height, side * width),
        in_channels=channels,
        num_classes=0 if head is None else len(head),
        representation_size=0 if representation is None else len(representation),
        pool="token" if has_token else "gap",
    )


def convert_arrays(arrays: Arrays, *, config: ViTConfig, path: Path) -> dict[str, Tensor]:
    """Name and lay out the official arrays as our ViT does.

    Raises:
        ModelFileError: an array is missing, or one that no ViT has.
    """
    left = dict(arrays)

    def take(key: str) -> np.ndarray:
        if key not in left:
            raise ModelFileError(f"{path} lacks the tensor {key}: it is damaged or not whole")
        return left.pop(key)

    def dense(key: str) -> dict[str, np.ndarray]:
        return {"weight": take(f"{key}/kernel").T, "bias": take(f"{key}/bias")}

    def norm(key: str) -> dict[str, np.ndarray]:
        return {"weight": take(f"{key}/scale"), "bias": take(f"{key}/bias")}

    parts: dict[str, dict[str, np.ndarray]] = {
        "embedding": {
            "weight": take("embedding/kernel").transpose(3, 2, 0, 1),
            "bias": take("embedding/bias"),
        },
        "position": {"table": take("Transformer/posembed_input/pos_embedding")},
        "norm": norm("Transformer/encoder_norm"),
    }
    for index in range(config.depth):
        ours, theirs = f"blocks.{index}", f"Transformer/encoderblock_{index}"
        attention = f"{theirs}/MultiHeadDotProductAttention_0"
        names = ("query", "key", "value")
        qkv = [take(f"{attention}/{name}/kernel").reshape(config.embed_dim, -1).T for name in names]
        qkv_bias = [take(f"{attention}/{name}/bias").reshape(-1) for name in names]
        parts[f"{ours}.attention.qkv"] = {
            "weight": np.concatenate(qkv),
            "bias": np.concatenate(qkv_bias),
        }
        parts[f"{ours}.attention.out"] = {
            "weight": take(f"{attention}/out/kernel").reshape(-1, config.embed_dim).T,
            "bias": take(f"{attention}/out/bias"),
        }
        parts[f"{ours}.norm1"] = norm(f"{theirs}/LayerNorm_0")
        parts[f"{ours}.norm2"] = norm(f"{theirs}/LayerNorm_1")
        parts[f"{ours}.mlp.hidden"] = dense(f"{theirs}/MlpBlock_0/Dense_0")
        parts[f"{ours}.mlp.out"] = dense(f"{theirs}/MlpBlock_0/Dense_1")
    if config.representation_size:
        parts["pre_logits"] = dense("pre_logits")
    if config.num_classes:
        parts["head"] = dense("head")
    tensors = {
        f"{part}.{name}": array for part, ours in parts.items() for name, array in ours.items()
    }
    if config.pool == "token":
        tensors["cls_token"] = take("cls")
    if left:
        raise ModelFileError(f"{path} has tensors that no plain ViT has, such as {min(left)}")
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except _UNREADABLE as error:
        raise ModelFileError(f"{path} can't be read as .npz: {error}") from None
    other = [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]
    if other:
        raise ModelFileError(f"{path} is no official .npz: it holds {other[0]}, which is no array")
    return arrays


def _plain_names(arrays: Arrays, *, path: Path) -> dict[str, np.ndarray]:
    """Drop a prefix that all keys share and use the later names of a block's parts."""
    for prefix in _PREFIXES:
        if any(key.startswith(prefix) for key in arrays):
            arrays = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    wrong = [key for key, array in arrays.items() if array.dtype.kind != "f"]
    if wrong:
        raise ModelFileError(
            f"{path}: tensor {wrong[0]} is of type {arrays[wrong[0]].dtype}, not of float numbers"
        )
    pattern = re.compile("|".join(_NEW_NAMES))
    return {
        pattern.sub(lambda match: _NEW_NAMES[match[0]], key): array.astype(np.float32, copy=False)
        for key, array in arrays.items()
    }


def _check_tensors(model: ViT, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    for name, wanted in model.state_dict().items():
        if tensors[name].shape != wanted.shape:
            raise ModelFileError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, "
                f"the model needs {tuple(wanted.shape)}"
            )


def _name_of(shape: dict[str, int], *, patch_size: tuple[int, int]) -> str:
    patch = (
        str(patch_size[0]) if patch_size[0] == patch_size[1] else f"{patch_size[0]}x{patch_size[1]}"
    )
    for letter, variant in VARIANTS.items():
        if vars(variant) == shape:
            return f"ViT-{letter}/{patch}"
    return f"ViT-{shape['embed_dim']}x{shape['depth']}/{patch}"
