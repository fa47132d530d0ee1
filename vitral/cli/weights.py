"""`vitral convert` and `vitral models`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitral.cli.console import print_table
from vitral.cli.options import Option, parse_options

if TYPE_CHECKING:
    from vitral.config.catalogue import CatalogueEntry
    from vitral.models.model import Model


CONVERT_DESCRIPTION = (
    "Write a model in another format, at another resolution or with other channels; without "
    "OUTPUT: say what it is."
)
CONVERT_OPTIONS = (
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


def convert(tokens: Sequence[str]) -> int:
    """Run `vitral convert` and return its exit status."""
    args = parse_options("convert", CONVERT_OPTIONS, tokens, description=CONVERT_DESCRIPTION)
    from vitral.errors import ModelFileError
    from vitral.models.weights.folder import reference_of
    from vitral.models.weights.load import load_model
    from vitral.models.weights.save import save_model

    fields = _fields(args.set or [], args.image_size)
    model = load_model(args.model, format=args.from_format, strict=not args.loose, **fields)
    print(model.load_report, file=sys.stderr)
    checks = {}
    if args.check and (model.reference is not None or not args.output):
        checks[args.model] = model.verify()
    if args.output:
        save_model(model, args.output, format=args.format)
        if args.check:
            # A bare file does not state the size of its images.
            size = model.config.image_size
            stated: dict[str, Any] = {} if args.format == "vitral" else {"stored_image_size": size}
            written = load_model(args.output, format=args.format, image_size=size, **stated)
            checks[args.output] = written.verify(against=reference_of(model))
    record = _convert_record(model, args.output, args.format)
    record["checks"] = {name: vars(found) for name, found in checks.items()}
    if args.json:
        print(json.dumps(record, ensure_ascii=False))
    else:
        print("\n".join([*_lines(record), *(f"{name}: {f}" for name, f in checks.items())]))
    wrong = [f"{name}: {found}" for name, found in checks.items() if not found.agrees]
    if wrong:
        raise ModelFileError("; ".join(wrong))
    return 0


def _fields(assignments: list[str], image_size: str | None) -> dict[str, Any]:
    """Parse the fields of a model that shall differ."""
    from vitral.config.settings import parse_assignments, parse_settings

    prefixed = [text if text.startswith("model.") else f"model.{text}" for text in assignments]
    settings = parse_assignments(prefixed)
    if image_size is not None:
        settings |= parse_settings({"model.image_size": image_size})
    return {path.removeprefix("model."): value for path, value in settings.items()}


def _convert_record(model: "Model", output: str | None, format: str) -> dict[str, Any]:
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
    from vitral.config.preprocessing import describe_preprocessing, preprocessing_from

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


MODELS_DESCRIPTION = (
    "List the models that can be built by name, and the public weights that are known."
)
MODELS_OPTIONS = (
    Option("words", "the same as --search", metavar="TEXT", repeat=True),
    Option(
        "--search",
        "only what has every one of these words, such as 'B/16 dinov2' or 'cc-by-nc'",
        metavar="TEXT",
    ),
    Option("--json", "print one JSON object, with every field of the weights"),
)
HEADINGS = (
    "name", "model", "parameters", "size", "training data", "top-1 (split, size)", "licence",
    "commercial use",
)  # fmt: skip


def models(tokens: Sequence[str]) -> int:
    """Run `vitral models` and return its exit status."""
    args = parse_options("models", MODELS_OPTIONS, tokens, description=MODELS_DESCRIPTION)
    from vitral.config.catalogue import search_catalogue

    text = " ".join([args.search or "", *args.words]).strip()
    models, weights = _models(text), search_catalogue(text)
    _check_found(text, models, weights)
    if args.json:
        print(json.dumps(_models_record(models, weights), ensure_ascii=False))
    elif args.search is None and not args.words:
        print(_overview(models, weights))
    else:
        _show(models, weights)
    return 0


def _models(text: str) -> tuple[str, ...]:
    """Return the common model names that contain every word of a text."""
    from vitral.config.catalogue import fold
    from vitral.config.variants import COMMON_NAMES

    words = [fold(word) for word in text.split()]
    return tuple(name for name in COMMON_NAMES if all(word in fold(name) for word in words))


def _check_found(text: str, models: tuple[str, ...], weights: "tuple[CatalogueEntry, ...]") -> None:
    """Refuse a search without results, with the nearest name as a suggestion."""
    from vitral.config.catalogue import read_catalogue
    from vitral.errors import RequestError, nearest

    if models or weights:
        return
    entries = read_catalogue()
    known = {entry.model for entry in entries} | {entry.name for entry in entries}
    hint = nearest(text, sorted(known | {name.rpartition("/")[2] for name in known}))
    if not hint.startswith(": did you mean"):
        hint = ": search for a model (B/16), a family (augreg, bit, deit, dino, mae) or a licence"
    raise RequestError(f"no model and no public weights have all the words of {text!r}{hint}")


def _models_record(
    models: tuple[str, ...], weights: "tuple[CatalogueEntry, ...]"
) -> dict[str, list[Any]]:
    return {"models": list(models), "weights": [dataclasses.asdict(entry) for entry in weights]}


def _overview(models: tuple[str, ...], weights: "tuple[CatalogueEntry, ...]") -> str:
    return (
        "Models that can be built by name, the ViTs with any patch size (ViT-B/7):\n"
        f"{_wrapped(models)}\n\n"
        f"{len(weights)} sets of public weights are known. `vitral models --search 'B/16 augreg'` "
        "lists those\nthat have all these words in name, model, training data, licence, format or "
        "notes."
    )


def _wrapped(names: tuple[str, ...]) -> str:
    import textwrap

    return textwrap.fill(
        ", ".join(names), width=88, initial_indent="  ", subsequent_indent="  ",
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip


def _show(models: tuple[str, ...], weights: "tuple[CatalogueEntry, ...]") -> None:
    if models:
        print(f"Can be built by name:\n{_wrapped(models)}\n")
    if not weights:
        print("No public weights are known for that.")
        return
    rows = [_row(entry) for entry in weights]
    print_table(HEADINGS, rows, tell=_paragraph, right=("parameters", "size"))
    print(
        "top-1 is what was published; --json has its source, and the origin, preprocessing and "
        "notes of each",
        file=sys.stderr,
    )


def _row(entry: "CatalogueEntry") -> tuple[str, ...]:
    top1 = "-"
    if entry.top1 is not None:
        top1 = f"{entry.top1:g} % ({entry.top1_split}, {entry.top1_resolution} px)"
    return (
        entry.name, entry.model, f"{entry.parameters / 1e6:.1f} M", f"{entry.image_size} px",
        entry.training_data, top1, entry.licence, entry.commercial,
    )  # fmt: skip


def _paragraph(row: tuple[str, ...]) -> str:
    _, *facts, top1, licence, commercial = row
    return f"{', '.join(facts)}; top-1: {top1}; {licence}, commercial use: {commercial}"
