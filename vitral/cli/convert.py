"""`vitral convert`."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitral.cli.options import Option, parse_options

if TYPE_CHECKING:
    from vitral.models.model import Model

DESCRIPTION = (
    "Write a model in another format, at another resolution or with other channels; without "
    "OUTPUT: say what it is."
)
OPTIONS = (
    Option(
        "model",
        "a run folder, a model folder, anyone's file of weights, or hf://owner/name",
        metavar="MODEL",
        required=True,
    ),
    Option(
        "output",
        "a folder; official: an .npz; the others also a .safetensors file",
        metavar="OUTPUT",
    ),
    Option(
        "--format",
        "vitral, official, timm, huggingface or torchvision",
        metavar="NAME",
        default="vitral",
    ),
    Option("--image-size", "a number, or height,width: resize positions", metavar="N"),
    Option(
        "--set",
        "a field of the model that shall differ, such as activation=gelu or num_heads=6",
        metavar="FIELD=VALUE",
        repeat=True,
    ),
    Option("--from-format", "read it as this format, where content does not tell", metavar="NAME"),
    Option("--loose", "load what fits, though tensors are missing or left over"),
    Option(
        "--check",
        "compare logits: with those that lie beside the weights, and of what was written with "
        "those of the model",
    ),
    Option("--json", "print one JSON object"),
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("convert", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.errors import ModelFileError
    from vitral.models.weights.folder import reference_of
    from vitral.models.weights.load import load_model
    from vitral.models.weights.save import save_model

    fields = _fields(asked.set or [], asked.image_size)
    model = load_model(asked.model, format=asked.from_format, strict=not asked.loose, **fields)
    print(model.load_report, file=sys.stderr)
    checks = {}
    if asked.check and (model.reference is not None or not asked.output):
        checks[asked.model] = model.verify()
    if asked.output:
        save_model(model, asked.output, format=asked.format)
        if asked.check:
            # A bare file does not tell the size of its images.
            size = model.config.image_size
            stated: dict[str, Any] = {} if asked.format == "vitral" else {"stored_image_size": size}
            written = load_model(asked.output, format=asked.format, image_size=size, **stated)
            checks[asked.output] = written.verify(against=reference_of(model))
    record = _record(model, asked.output, asked.format)
    record["checks"] = {name: vars(found) for name, found in checks.items()}
    if asked.json:
        print(json.dumps(record, ensure_ascii=False))
    else:
        print("\n".join([*_lines(record), *(f"{name}: {f}" for name, f in checks.items())]))
    wrong = [f"{name}: {found}" for name, found in checks.items() if not found.agrees]
    if wrong:
        raise ModelFileError("; ".join(wrong))
    return 0


def _fields(assignments: list[str], image_size: str | None) -> dict[str, Any]:
    """Read the fields that shall differ as the settings of a model."""
    from vitral.spec.settings import parse_assignments, parse_settings

    prefixed = [text if text.startswith("model.") else f"model.{text}" for text in assignments]
    settings = parse_assignments(prefixed)
    if image_size is not None:
        settings |= parse_settings({"model.image_size": image_size})
    return {path.removeprefix("model."): value for path, value in settings.items()}


def _record(model: "Model", output: str | None, format: str) -> dict[str, Any]:
    import dataclasses

    assert model.load_report is not None
    return {
        "model": dataclasses.asdict(model.config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "load": dataclasses.asdict(model.load_report),
        "output": output,
        "format": format if output else None,
    }


def _lines(record: dict[str, Any]) -> list[str]:
    from vitral.spec.preprocessing import describe_preprocessing, preprocessing_from

    model = record["model"]
    height, width = model["image_size"]
    lines = [
        f"{model['name']}: {record['parameters']:,} parameters, images of {height} x {width} in "
        f"{model['in_channels']} channels, {model['num_classes']} classes",
        f"preprocessing: {describe_preprocessing(preprocessing_from(record['preprocessing']))}",
    ]
    conventions = {
        name: model[name]
        for name in ("activation", "norm_eps", "position_resize", "standardization")
        if name in model
    }
    lines.append("conventions: " + ", ".join(f"{name} {v}" for name, v in conventions.items()))
    if record["output"]:
        lines.append(f"written to {record['output']} ({record['format']})")
    return lines
