"""Writing of a model in any supported format."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitral.config.preprocessing import describe_preprocessing
from vitral.errors import RequestError, nearest
from vitral.files import atomic
from vitral.models.model import Model
from vitral.models.weights.folder import independent_copies, save_model_folder
from vitral.models.weights.formats.table import FORMATS, Format
from vitral.models.weights.mapping import write_entries
from vitral.models.weights.source import OWN_KEY, WEIGHT_NAMES, WeightFile

WRITABLE = ("vitral", *dict.fromkeys(kind.NAME for kind in FORMATS if kind.SUFFIX))
_log = logging.getLogger("vitral")


def save_model(model: Model, path: str | Path, *, format: str = "vitral") -> None:
    """Write a model atomically.

    Args:
        model: written with its classes and preprocessing, where the format can store them.
        path: "vitral": a folder that does not exist, or a model folder, which is replaced;
            "official": a file; the others: a `.safetensors` file, or a folder that does not exist,
            which also gets the files that the other library reads beside the weights.
        format: "vitral", "official", "timm", "huggingface" or "torchvision".

    Raises:
        RequestError: an unknown format, one that can't store such a model, or something else is at
            that path.
    """
    path = Path(path)
    if format not in WRITABLE:
        raise RequestError(f"format={format!r} can't be written{nearest(format, WRITABLE)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"{path.parent} can't be made ({error.strerror}): choose another path"
        ) from None
    if format == "vitral":
        save_model_folder(model, path)
        return
    kind = _find(model, format)
    for caution in [*kind.cautions(model.config), *_lost(model, kind)]:
        _log.warning("%s: %s", path, caution)
    if path.exists():
        raise RequestError(f"{path} exists: choose another path")
    tensors = write_entries(independent_copies(model.state_dict()), kind.entries(model.config))
    if path.suffix == kind.SUFFIX:
        with atomic.new_file(path) as file:
            _write(tensors, file, model)
        return
    if kind.NAME == "official":
        raise RequestError(f"{path}: an official file ends with .npz: give such a name")
    with atomic.new_folder(path) as folder:
        _write(tensors, folder / WEIGHT_NAMES[0], model)
        for name, content in kind.side_files(model).items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")


def _lost(model: Model, kind: Format) -> list[str]:
    """Return warnings of what a format can't store, for whoever reads the file."""
    usual = kind.preprocessing(WeightFile(path="", tensors={}), model.config)
    losses = {
        "its classes' names": model.classes is not None,
        "that its outputs are sigmoids": model.output == "sigmoid",
        f"its preprocessing ({describe_preprocessing(model.preprocessing)})": (
            model.preprocessing != usual
        ),
    }
    lost = [what for what, holds in losses.items() if holds]
    if not lost or kind.NAME not in ("official", "torchvision"):
        return []
    return [f"an {kind.NAME} file has no place for {', '.join(lost)}: keep them beside it"]


def _find(model: Model, format: str) -> Format:
    """Return the module of a format that can store the model."""
    reasons = []
    for kind in FORMATS:
        if format == kind.NAME:
            reason = kind.refusal(model.config)
            if reason is None:
                return kind
            reasons.append(reason)
    # A refusal for a field of the model is more helpful than one for another kind of model.
    reason = next((reason for reason in reasons if reason.startswith("has ")), reasons[0])
    raise RequestError(
        f"{model.config.name} can't be written as {format}: it {reason}, for which that format "
        "has no place; use format=vitral"
    )


def _write(tensors: dict[str, Tensor], path: Path, model: Model) -> None:
    if path.suffix == ".npz":
        with path.open("wb") as file:
            arrays: dict[str, Any] = {n: tensor.float().numpy() for n, tensor in tensors.items()}
            np.savez(file, **arrays)
        return
    described: dict[str, Any] = {
        "model": dataclasses.asdict(model.config),
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "classes": list(model.classes) if model.classes else None,
        "output": model.output,
    }
    plain = {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
    save_file(plain, path, metadata={"format": "pt", OWN_KEY: json.dumps(described)})
