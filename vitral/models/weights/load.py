"""Loading of a model in any supported format, recognised by content."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.config.catalogue import find_entry
from vitral.config.checks import as_pair, check_choice
from vitral.config.model import FAMILIES, ModelConfig, config_from
from vitral.config.preprocessing import channels_preprocessing, preprocessing_from
from vitral.errors import ModelFileError, RequestError, nearest
from vitral.models.build import build_model
from vitral.models.model import OUTPUTS, Model, note_uncovered_pixels
from vitral.models.weights.adapt import fit_tensors, keeps_head
from vitral.models.weights.folder import (
    WEIGHTS_NAME,
    find_model_folder,
    read_model_folder,
    read_output,
)
from vitral.models.weights.formats.table import FORMATS, Format
from vitral.models.weights.hub import fetch, find_address
from vitral.models.weights.mapping import read_entries
from vitral.models.weights.source import Loaded, LoadReport, WeightFile, read_source

# Fields that may be changed on load without changing what the weights mean.
CHANGEABLE = (
    "image_size", "in_channels", "num_classes", "representation_size", "dropout", "drop_path",
    "activation", "norm_eps", "position_resize", "standardization", "standardization_eps",
    "pool_padding",
)  # fmt: skip
# Fields that a bare file may not determine; a model folder states them.
STATED = ("num_heads", "stored_image_size", "output")
_NO_FIELDS = ("stored_image_size", "output")
"""Statements about the weights that are no fields of the config."""


def load_model(
    path: str | Path, *, format: str | None = None, strict: bool = True, **fields: Any
) -> Model:
    """Load a model from a run folder, a model folder or a weight file of a supported format.

    Args:
        path: recognised by content, not by name: a folder of Vitral, Hugging Face or timm, an
            official `.npz`, safetensors or a torch checkpoint. Weights on the Hub are fetched by
            its client: `hf://owner/name[@revision][/path]`, `timm/NAME`, or a name of the
            catalogue.
        format: format to read it as, such as "timm", where the content is ambiguous.
        strict: whether a tensor of the trunk that is missing or left over is an error; otherwise
            missing tensors are initialised, and the report says so.
        fields: config fields to change: `image_size` (position tables are interpolated),
            `in_channels` (the stem is adapted), `num_classes` (a new head of zeros, 0: none),
            `representation_size=0` (drops `pre_logits` and the head), `dropout`, `drop_path`,
            `activation`, `norm_eps` and other conventions. For what a file does not state also
            `num_heads`, `stored_image_size`, the size that its positions are for, and `output`,
            "softmax" or "sigmoid": how its logits become probabilities.

    Returns:
        The model in evaluation mode, on the CPU; its `load_report` says what was done.

    Raises:
        RequestError: nothing is at that path, it can't be fetched, or a field can't be changed.
        ModelFileError: the files can't be used as a model.
    """
    for name in fields:
        if name not in CHANGEABLE + STATED:
            hint = nearest(name, CHANGEABLE + STATED)
            if any(name in family.__dataclass_fields__ for family in FAMILIES.values()):
                hint = ": it is what the weights are for; create_model builds another model"
            raise RequestError(f"{name} can't be changed on load{hint}")
    for name in ("image_size", "stored_image_size"):
        if fields.get(name) is not None:
            as_pair(fields[name], name=name)
    if fields.get("output") is not None:
        check_choice(OUTPUTS, output=fields["output"])
    entry = find_entry(str(path))
    origin = find_address(path)
    path = fetch(origin) if origin else Path(path)
    if not path.exists():
        raise RequestError(
            f"there is nothing at {path}: give a run folder, a model folder, a file or "
            "hf://owner/name"
        )
    folder = None
    if format in (None, "vitral"):
        folder = find_model_folder(path.parent if path.name == WEIGHTS_NAME else path)
    if folder is None and format == "vitral":
        raise ModelFileError(f"{path} is no model folder that Vitral wrote: leave format out")
    if folder is None:
        loaded = _read_foreign(path, format=format, stated=fields)
    else:
        loaded = read_model_folder(folder, output=fields.get("output"))
    if entry and not loaded.provenance.get("licence"):
        loaded.provenance["licence"] = entry.licence
    fields = {name: value for name, value in fields.items() if name not in _NO_FIELDS}
    config = _changed(loaded.config, fields, path=path)
    return _build(loaded, config, path=path, shown=str(origin or path), strict=strict)


def change_model(model: Model, **fields: Any) -> Model:
    """Return a loaded model with config fields changed, as `load_model` would have loaded it.

    Args:
        model: not changed; the new model shares its tensors where they fit.
        fields: as for `load_model`, such as `num_classes` and `image_size`.

    Raises:
        RequestError: a field can't be changed.
    """
    loaded = Loaded(
        config=model.config,
        tensors=dict(model.state_dict()),
        preprocessing=model.preprocessing,
        classes=model.classes,
        output=model.output,
        format="vitral",
        provenance=model.provenance,
        reference=model.reference,
    )
    shown = model.load_report.path if model.load_report else model.config.name
    config = _changed(model.config, fields, path=Path(shown))
    return _build(loaded, config, path=Path(shown), shown=shown, strict=True)


def _read_foreign(path: Path, *, format: str | None, stated: Mapping[str, Any]) -> Loaded:
    source = read_source(path, stated=stated)
    kind = _recognise(source, format=format)
    source = dataclasses.replace(source, tensors=kind.canonical(source))
    about: dict[str, Any] = {}
    try:
        if source.own is not None:
            about["config"] = config_from(source.own["model"])
            about["preprocessing"] = preprocessing_from(source.own["preprocessing"])
            about["classes"] = tuple(source.own["classes"]) if source.own.get("classes") else None
            about["output"] = stated.get("output") or read_output(source.own, path=path)
        else:
            about["config"] = kind.infer(source)
            about["preprocessing"] = kind.preprocessing(source, about["config"])
            about["classes"] = kind.classes(source)
            about["output"] = stated.get("output") or _output(source)
    except (
        RequestError, ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError,
    ) as error:  # fmt: skip
        raise ModelFileError(f"{path}: its tensors make no model: {error}") from None
    entries = kind.entries(about["config"])
    tensors, left = read_entries(source.tensors, entries, path=source.path)
    spare = tuple(name for name in left if kind.is_spare(name))
    return Loaded(
        tensors=tensors,
        format=kind.NAME,
        assumed=tuple(source.assumed),
        provenance={"licence": _licence(source)},
        left_over=spare,
        unexpected=tuple(name for name in left if name not in spare),
        **about,
    )


def _output(source: WeightFile) -> str:
    """Return how logits become probabilities, as Hugging Face's `config.json` states it."""
    several = source.config.get("problem_type") == "multi_label_classification"
    return "sigmoid" if several else "softmax"


def _licence(source: WeightFile) -> str | None:
    """Return the licence that timm's `config.json` states."""
    stated = source.config.get("pretrained_cfg")
    licence = stated.get("license") if isinstance(stated, Mapping) else None
    return str(licence) if licence else None


def _recognise(source: WeightFile, *, format: str | None) -> Format:
    known = [kind for kind in FORMATS if format in (None, kind.NAME)]
    if not known:
        names = dict.fromkeys(kind.NAME for kind in FORMATS)
        raise RequestError(f"format={format!r} can't be read{nearest(str(format), names)}")
    for kind in known:
        if kind.recognises(source):
            return kind
    some = ", ".join(sorted(source.tensors)[:3])
    raise ModelFileError(
        f"{source.path} holds tensors of no format that is known, such as {some}: known are "
        f"{', '.join(dict.fromkeys(kind.NAME for kind in known))}"
    )


def _changed(config: ModelConfig, fields: Mapping[str, Any], *, path: Path) -> ModelConfig:
    """Return the config with the caller's changes."""
    if fields.get("num_heads") not in (None, getattr(config, "num_heads", None)):
        raise RequestError(
            f"num_heads={fields['num_heads']} can't be changed: {path} states its own"
        )
    known = type(config).__dataclass_fields__
    without = sorted(set(fields) - set(known))
    if without:
        raise RequestError(
            f"{without[0]} has no effect on {config.name}, which has no such field: leave it out"
        )
    if fields.get("representation_size") not in (
        None,
        0,
        getattr(config, "representation_size", 0),
    ):
        raise RequestError(
            f"representation_size={fields['representation_size']} needs weights that {path} does "
            "not have: use 0, which drops pre_logits"
        )
    gated = {"swiglu"} & {fields.get("activation"), getattr(config, "activation", None)}
    if gated and fields.get("activation") not in (None, getattr(config, "activation", None)):
        raise RequestError(
            f"activation={fields['activation']!r} has other tensors than {config.activation!r}: "  # type: ignore[union-attr]
            "only gelu and gelu_tanh can be exchanged"
        )
    if fields.get("in_channels") not in (None, config.in_channels):
        config = config.with_channels(fields["in_channels"])
    return dataclasses.replace(config, **fields)


def _build(loaded: Loaded, config: ModelConfig, *, path: Path, shown: str, strict: bool) -> Model:
    """Build the model, with the tensors fitted to its config and a report."""
    is_same = config == loaded.config
    preprocessing = dataclasses.replace(loaded.preprocessing, size=config.image_hw)
    if config.in_channels != loaded.config.in_channels:
        preprocessing = channels_preprocessing(loaded.preprocessing, config.in_channels)
        preprocessing = dataclasses.replace(preprocessing, size=config.image_hw)
    with torch.device("meta"):
        model = build_model(
            config,
            preprocessing=preprocessing,
            classes=loaded.classes if config.num_classes == loaded.config.num_classes else None,
            output=loaded.output,
        )
        stored = model if is_same else build_model(loaded.config)
    _check_tensors(stored, loaded.tensors, path=path)
    fitting = fit_tensors(
        loaded.tensors, old=loaded.config, new=config, preprocessing=loaded.preprocessing
    )
    new = [name for name in model.state_dict() if name not in fitting.tensors]
    fresh = () if keeps_head(loaded.config, config) else ("head.",)
    missing = [name for name in new if not name.startswith(fresh)]
    if strict:
        _check_complete(missing, loaded.unexpected, path=path)
    tensors = fitting.tensors | _fresh(config, new, has_trunk=bool(missing))
    model.load_state_dict(tensors, assign=True)
    model.load_report = LoadReport(
        path=shown,
        format=loaded.format,
        used=tuple(n for n in fitting.tensors if n not in fitting.resized),
        resized=tuple(fitting.resized),
        new=tuple(new),
        left_over=(*loaded.left_over, *loaded.unexpected, *fitting.dropped),
        assumed=loaded.assumed,
        notes=_notes(model),
    )
    model.provenance = dict(loaded.provenance)
    note_uncovered_pixels(model)
    model.reference = loaded.reference if is_same else None
    return model.eval()


def _fresh(config: ModelConfig, names: list[str], *, has_trunk: bool) -> dict[str, Tensor]:
    """Return fresh tensors: a head of zeros, or those of a new model."""
    if has_trunk:
        state = build_model(config).state_dict()
        return {name: state[name] for name in names}
    shapes = {"head.weight": (config.num_classes, config.feature_dim)}
    return {name: torch.zeros(shapes.get(name, (config.num_classes,))) for name in names}


def _notes(model: Model) -> tuple[str, ...]:
    if model.config.num_classes and not model.is_classifier:
        return (
            f"no classifier: the head of {model.config.num_classes} classes is all zeros, a place "
            "to begin fine-tuning from",
        )
    return ()


def _check_complete(missing: list[str], unexpected: tuple[str, ...], *, path: Path) -> None:
    for names, what in ((missing, "lacks"), (unexpected, "has too many:")):
        if names:
            raise ModelFileError(
                f"{path} {what} {len(names)} tensors of the model, such as {names[0]}: it is "
                "damaged or another model; strict=False loads what fits"
            )


def _check_tensors(model: Model, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    wanted = model.state_dict()
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            raise ModelFileError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, the model needs "
                f"{tuple(wanted[name].shape)}"
            )
        if name in wanted and tensor.is_floating_point() != wanted[name].is_floating_point():
            raise ModelFileError(
                f"{path}: {name} is of type {tensor.dtype}, the model needs {wanted[name].dtype}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelFileError(f"{path}: {name} holds values that are not finite")
