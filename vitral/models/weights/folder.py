"""Vitral's self-describing model folder: weights, config and reference outputs."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitral.config.checks import check_choice
from vitral.config.model import config_from
from vitral.config.preprocessing import Preprocessing, preprocessing_from
from vitral.errors import ModelFileError, RequestError
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.models.build import build_model
from vitral.models.model import OUTPUTS, Model
from vitral.models.weights.source import Loaded
from vitral.version import __version__

FORMAT_VERSION = 1
_log = logging.getLogger("vitral")
WEIGHTS_NAME, CONFIG_NAME, REFERENCE_NAME = (
    "model.safetensors",
    "config.json",
    "reference.safetensors",
)
NUM_REFERENCE_IMAGES = 2


def write_model_files(
    model: nn.Module,
    folder: Path,
    *,
    preprocessing: Preprocessing,
    classes: tuple[str, ...] | None,
    state: dict[str, Tensor] | None = None,
    provenance: dict[str, Any] | None = None,
    with_reference: bool = True,
) -> None:
    """Write the files of a model into an existing folder.

    Args:
        model: a `Model`, or the caller's own module, of which only the weights are stored.
        folder: exists.
        preprocessing: of its images.
        classes: the names of its outputs.
        state: the weights, if not the model's current ones (an average, say).
        provenance: the `data`, `command` and `licence` for `config.json`.
        with_reference: whether the reference images are run, in float32 on the CPU, and stored
            with their logits; this makes a copy of the model.
    """
    state = model.state_dict() if state is None else state
    tensors = independent_copies(state)
    save_file(tensors, folder / WEIGHTS_NAME)
    provenance = provenance or {}
    about: dict[str, Any] = {"module": type(model).__name__}
    output = None
    if isinstance(model, Model):
        about, output = dataclasses.asdict(model.config), model.output
    config = {
        "format_version": FORMAT_VERSION,
        "model": about,
        "classes": list(classes) if classes else None,
        "preprocessing": dataclasses.asdict(preprocessing),
        "data": provenance.get("data"),
        "output": output,
        "command": provenance.get("command"),
        "vitral_version": __version__,
        "licence": provenance.get("licence"),
        "pretrained": provenance.get("pretrained"),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    if isinstance(model, Model) and with_reference:
        save_file(reference_of(model, state), folder / REFERENCE_NAME)


def independent_copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU that share no memory, as safetensors requires."""
    return {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in state.items()
    }


def save_model_folder(model: Model, path: Path) -> None:
    """Write a model folder atomically.

    Raises:
        RequestError: something else is at that path.
    """
    if path.suffix in (".npz", ".safetensors", ".pth", ".pt", ".bin"):
        raise RequestError(
            f"{path} is the name of a file, a model of ours is a folder: choose a name without "
            "such an ending, or another format"
        )
    if path.exists() and not is_own_folder(path):
        raise RequestError(f"{path} exists and is no model folder: choose another path")
    if path.exists():
        _log.warning("%s: the model that was there is replaced", path)
    with atomic.new_folder(path) as folder:
        write_model_files(
            model,
            folder,
            preprocessing=model.preprocessing,
            classes=model.classes,
            provenance=model.provenance,
        )


def is_own_folder(folder: Path) -> bool:
    """Return whether a folder is a model folder that Vitral wrote, which states its format."""
    try:
        return "format_version" in json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def find_model_folder(path: Path) -> Path | None:
    """Return Vitral's model folder at or in a folder, the newest one of a run; or None."""
    checkpoints = sorted((path / RunFile.CHECKPOINTS).glob("step-*"), reverse=True)
    candidates = (
        path,
        path / RunFile.MODEL,
        *(checkpoint / RunFile.MODEL for checkpoint in checkpoints),
    )
    return next((folder for folder in candidates if is_own_folder(folder)), None)


def read_model_folder(folder: Path, *, output: str | None = None) -> Loaded:
    """Read a model folder.

    Args:
        folder: written by Vitral.
        output: how logits become probabilities, if the caller states it.

    Raises:
        ModelFileError: a file is missing, unreadable or describes something else.
    """
    config = read_config(folder)
    if "module" in config["model"]:
        raise ModelFileError(
            f"{folder} holds the weights of your own module {config['model']['module']!r}: build "
            f"it and load {folder / WEIGHTS_NAME} into it"
        )
    try:
        tensors = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{folder / WEIGHTS_NAME} can't be read: {error}") from None
    try:
        model_config = config_from(config["model"])
        preprocessing = preprocessing_from(config["preprocessing"])
        classes = tuple(config["classes"]) if config["classes"] else None
        output = output or read_output(config, path=folder / CONFIG_NAME)
    except (RequestError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelFileError(f"{folder / CONFIG_NAME} describes no model: {error}") from None
    if classes and len(classes) != model_config.num_classes:
        raise ModelFileError(
            f"{folder / CONFIG_NAME} names {len(classes)} classes, its model has "
            f"{model_config.num_classes}"
        )
    with torch.device("meta"):
        wanted = build_model(model_config).state_dict()
    return Loaded(
        config=model_config,
        preprocessing=preprocessing,
        tensors={name: tensor for name, tensor in tensors.items() if name in wanted},
        format="vitral",
        classes=classes,
        output=output,
        provenance={
            name: config.get(name) for name in ("data", "command", "licence", "pretrained")
        },
        reference=read_reference(folder) if (folder / REFERENCE_NAME).exists() else None,
        unexpected=tuple(sorted(set(tensors) - set(wanted))),
    )


def read_output(described: Mapping[str, Any], *, path: Path) -> str:
    """Return how a model's logits become probabilities, from Vitral's description of it.

    Older descriptions have `objective` instead: the name of the training objective.

    Raises:
        RequestError: an unknown value.
    """
    if described.get("output"):
        check_choice(OUTPUTS, output=described["output"])
        return str(described["output"])
    trained_by = described.get("objective") or "softmax"
    if trained_by in OUTPUTS:
        return str(trained_by)
    _log.warning(
        "%s: trained by objective=%r, so it is not known how its logits become probabilities: "
        'taken for softmax; load_model(..., output="sigmoid") states otherwise',
        path,
        trained_by,
    )
    return "softmax"


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's `config.json`.

    Raises:
        ModelFileError: it can't be read, or is of a later format.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        version = int(config["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{folder / CONFIG_NAME} can't be read: {error!r}") from None
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{folder} has format {version}, this Vitral reads up to {FORMAT_VERSION}: update "
            "Vitral"
        )
    for key in ("model", "preprocessing", "classes"):
        if key not in config:
            raise ModelFileError(f"{folder / CONFIG_NAME} does not state {key!r}")
    return config


def read_reference(folder: Path) -> dict[str, Tensor]:
    """Return the reference `images` (N, C, H, W) and their `logits` (N, K), computed in float32.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    path = folder / REFERENCE_NAME
    try:
        reference = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} can't be read: {error}") from None
    missing = {"images", "logits"} - set(reference)
    if missing:
        raise ModelFileError(f"{path} holds no {sorted(missing)[0]}: it is damaged")
    return reference


@torch.no_grad()
def reference_of(model: Model, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return a few `images` (N, C, H, W), always the same, and the `logits` that they give.

    Args:
        model: not changed.
        state: weights to use instead of the model's own.
    """
    state = model.state_dict() if state is None else state
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_REFERENCE_IMAGES, model.config.in_channels, *model.config.image_hw)
    images = torch.rand(shape, generator=generator) * 2 - 1
    with torch.device("meta"):
        twin = build_model(model.config)
    twin.load_state_dict({n: _on_cpu(t) for n, t in state.items()}, assign=True)
    return {"images": images, "logits": twin.eval()(images).contiguous()}


def _on_cpu(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor
