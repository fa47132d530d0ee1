"""Load and save a model in any format that we know, told by content."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.errors import ModelFileError, RequestError
from vitral.models.position import resize_position_table
from vitral.models.vit import ViT
from vitral.models.weights.folder import (
    CONFIG_NAME,
    read_model_folder,
    save_model_folder,
)
from vitral.models.weights.official import read_official
from vitral.spec.vit import ViTConfig

FORMATS = ("vitral",)
# What may be changed on load without changing what the weights mean.
_CHANGEABLE = (
    "image_size",
    "num_classes",
    "representation_size",
    "dropout",
    "activation",
    "norm_eps",
)


def load_model(path: str | Path, **fields: Any) -> ViT:
    """Load a model from a run folder, a model folder or an official `.npz`.

    Args:
        path: what is there is told by content, not by name.
        fields: of ViTConfig that shall differ: `image_size` (the position table is interpolated),
            `num_classes` (a new head of zeros, 0: none), `representation_size=0` (drops
            `pre_logits`), `dropout`, `activation`, `norm_eps`.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        RequestError: nothing is at that path, or a field that can't be changed.
        ModelFileError: what is there can't be used as a model.
    """
    path = Path(path)
    for name in fields:
        if name not in _CHANGEABLE:
            raise RequestError(
                f"{name} can't be changed on load: change one of {', '.join(_CHANGEABLE)}"
            )
    if not path.exists():
        raise RequestError(
            f"there is nothing at {path}: give a run folder, a model folder or a file"
        )
    if path.is_dir():
        model, tensors = read_model_folder(find_model_folder(path))
    else:
        model = _read_file(path)
        tensors = model.state_dict()
    if fields.get("representation_size") not in (None, 0, model.config.representation_size):
        raise RequestError(
            f"representation_size={fields['representation_size']} needs weights that {path} does "
            "not have: use 0, which drops pre_logits"
        )
    config = dataclasses.replace(model.config, **fields)
    preprocessing = dataclasses.replace(model.preprocessing, size=config.image_hw)
    same_classes = config.num_classes == model.config.num_classes
    adapted = ViT(
        config,
        preprocessing=preprocessing,
        classes=model.classes if same_classes else None,
        objective=model.objective,
    )
    tensors = adapt_tensors(tensors, old=model.config, new=adapted)
    _check_complete(adapted, tensors, path=path)
    adapted.load_state_dict(tensors, assign=True)
    return adapted.eval()


def save_model(model: ViT, path: str | Path, *, format: str = "vitral") -> None:
    """Write a model.

    Args:
        model: keeps its classes and preprocessing.
        path: a folder that does not exist, or a model folder, which is replaced.
        format: "vitral".

    Raises:
        RequestError: an unknown format, or something else is at that path.
    """
    if format not in FORMATS:
        raise RequestError(f"format={format!r} can't be written: use {', '.join(FORMATS)}")
    save_model_folder(model, Path(path))


def find_model_folder(path: Path) -> Path:
    """Return the model folder that a folder is or has: of a run, finished or not, the newest.

    Raises:
        ModelFileError: there is none.
    """
    checkpoints = sorted((path / "checkpoints").glob("step-*"), reverse=True)
    candidates = (path, path / "model", *(checkpoint / "model" for checkpoint in checkpoints))
    for candidate in candidates:
        if (candidate / CONFIG_NAME).is_file():
            return candidate
    raise ModelFileError(f"{path} holds no model: it has no {CONFIG_NAME}, here or in model/")


def adapt_tensors(tensors: dict[str, Tensor], *, old: ViTConfig, new: ViT) -> dict[str, Tensor]:
    """Fit tensors to a config that differs in image size or head."""
    adapted = dict(tensors)
    table = adapted.get("position.table")
    if table is not None and old.grid != new.config.grid:
        adapted["position.table"] = resize_position_table(
            table,
            old_grid=old.grid,
            new_grid=new.config.grid,
            num_prefix_tokens=old.num_prefix_tokens,
        )
    if old.representation_size and not new.config.representation_size:
        adapted = {n: t for n, t in adapted.items() if not n.startswith("pre_logits.")}
    if (old.num_classes, old.feature_dim) != (new.config.num_classes, new.config.feature_dim):
        fresh = {n: t for n, t in new.state_dict().items() if n.startswith("head.")}
        adapted = {n: t for n, t in adapted.items() if not n.startswith("head.")} | fresh
    return adapted


def _read_file(path: Path) -> ViT:
    with path.open("rb") as file:
        begins_as_zip = file.read(4) == b"PK\x03\x04"
    if begins_as_zip:
        return read_official(path)
    raise ModelFileError(
        f"{path} is no model file that is read here: give a folder or an official .npz"
    )


def _check_complete(model: ViT, tensors: dict[str, Tensor], *, path: Path) -> None:
    wanted = model.state_dict()
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing:
        raise ModelFileError(
            f"{path} lacks {len(missing)} tensors of the model, such as {missing[0]}"
        )
    if extra:
        raise ModelFileError(f"{path} has {len(extra)} tensors too many, such as {extra[0]}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ModelFileError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the model needs "
                f"{tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ModelFileError(f"{path}: {name} holds values that are not finite")
