"""`vitral inspect`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.console import progress
from vitral.cli.options import (
    FROM_FORMAT_OPTION,
    HEADLESS_MODEL_OPTION,
    PREPROCESSING_OPTION,
    Option,
    parse_options,
)
from vitral.errors import RequestError

if TYPE_CHECKING:
    from vitral.figures.inspection.inspected import Inspected
    from vitral.inspection.inspect import InspectSettings
    from vitral.predict.runner import ModelRunner

DESCRIPTION = (
    "Look inside a model: attention, rollout, occlusion, features, filters, positions, as a page "
    "to click through, as figures and as arrays."
)
OPTIONS = (
    HEADLESS_MODEL_OPTION,
    Option(
        "images",
        "files or folders; left out: four built-in photographs",
        metavar="IMAGES",
        repeat=True,
    ),
    Option("--output", "the folder; left out: runs/inspect-MODEL", metavar="DIR"),
    Option("--image-size", "pixels of the model's input, N or HxW", metavar="N"),
    Option(
        "--gallery",
        "images that are looked at one by one; further ones count for attention distance",
        metavar="N",
        type=int,
        default=8,
    ),
    Option(
        "--layers",
        "whose single heads the page shows, such as 0,5,-1; left out: all, or as many, evenly, as "
        "a page that opens quickly holds",
        metavar="N,N",
    ),
    Option(
        "--class",
        "the class that occlusion follows; left out: each image's most probable one",
        metavar="NAME",
    ),
    Option(
        "--occlusion",
        "on or off: a forward pass for each patch of each image",
        metavar="ON",
        choices=("on", "off"),
        default="on",
    ),
    Option(
        "--beside",
        "another model, drawn beside it in the figures of positions and depth; may be repeated",
        metavar="MODEL",
        repeat=True,
    ),
    Option("--top", "classes named with each image", metavar="N", type=int, default=5),
    Option("--batch-size", "blanked images at once", metavar="N", type=int, default=64),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME", default="auto"),
    FROM_FORMAT_OPTION,
    PREPROCESSING_OPTION,
    Option("--json", "print one JSON object"),
)

PHOTOS = Path(__file__).parents[1] / "data" / "builtin" / "photos"
CREDIT = (
    "Photographs, built in: an astronaut (NASA, public domain), a cat (Stefan van der Walt, CC0), "
    "a cup of coffee (Rachel Michetti, CC0), a rocket (SpaceX, public domain)."
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    args = parse_options("inspect", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.figures.inspection.draw import PAGE_NAME, check_folder, draw_folder, remove_figures
    from vitral.figures.inspection.inspected import write_inspected
    from vitral.figures.inspection.page import inspect_page
    from vitral.files.atomic import write_text
    from vitral.inspection.inspect import InspectSettings
    from vitral.predict.output import list_images

    settings = InspectSettings(
        source=args.model,
        credit="" if args.images else CREDIT,
        gallery=args.gallery,
        layers=_layers(args.layers),
        class_name=getattr(args, "class"),
        occlusion=args.occlusion == "on",
        top=args.top,
        batch_size=args.batch_size,
    )
    folder = Path(args.output) if args.output else Path("runs", f"inspect-{_stem(args.model)}")
    _check(args)
    check_folder(folder)
    images = list_images(args.images or [str(path) for path in sorted(PHOTOS.glob("*.jpg"))])
    models = {name: _prepare(name, args) for name in [args.model, *(args.beside or [])]}
    shown = _measure(models[args.model], images, settings)
    others = [
        _measure(models[name], images, InspectSettings(gallery=1, occlusion=False, source=name))
        for name in args.beside or []
    ]
    folder.mkdir(parents=True, exist_ok=True)
    remove_figures(folder)
    write_inspected(folder, shown)
    for number, inspected in enumerate(others, start=1):
        write_inspected(folder, inspected, name=f"beside-{number}.npz")
    figures = draw_folder(folder)
    page = folder / PAGE_NAME
    write_text(page, inspect_page(shown, figures, folder))
    if args.json:
        facts = {**shown.about, "output": str(folder), "page": str(page), "figures": figures}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        _print(shown, page, figures)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check option values before anything is computed.

    Raises:
        RequestError: one is invalid.
    """
    if min(args.gallery, args.top, args.batch_size) < 1:
        raise RequestError("--gallery, --top and --batch-size must be 1 or more")
    if args.occlusion == "off" and getattr(args, "class") is not None:
        raise RequestError("--class has no effect with --occlusion off: leave one of them out")


def _prepare(name: str, args: argparse.Namespace) -> "ModelRunner":
    """Load a model, and warn if its head does not distinguish classes."""
    from vitral.config.settings import parse_preprocessing, parse_settings
    from vitral.models.model import Model, check_classifier
    from vitral.predict.runner import open_runner

    size = {}
    if args.image_size is not None:
        settings = parse_settings({"model.image_size": args.image_size})
        size = {"image_size": settings["model.image_size"]}

    def check(model: Model, name: object) -> None:
        if model.config.num_classes:
            check_classifier(model, name)

    return open_runner(
        name,
        device=args.device,
        precision="float32",
        format=args.from_format,
        preprocessing=parse_preprocessing(args.set or []),
        check=check,
        **size,
    )


def _measure(
    runner: "ModelRunner", images: Sequence[str], settings: "InspectSettings"
) -> "Inspected":
    """Compute everything that is drawn of a model."""
    from vitral.figures.inspection.inspected import Inspected
    from vitral.inspection.inspect import inspect_model
    from vitral.predict.runner import image_examples

    with progress(f"looking inside {runner.model.config.name}") as update:
        arrays = inspect_model(
            runner.model,
            image_examples(images, channels=runner.model.config.in_channels),
            preprocessing=runner.preprocessing,
            device=runner.device,
            settings=settings,
            progress=update,
        )
    return Inspected(arrays)


def _layers(text: str | None) -> list[int] | None:
    """Parse `--layers`.

    Raises:
        RequestError: not a list of whole numbers.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(
            f"--layers {text}: give whole numbers from 0, joined by commas, such as 0,5,-1"
        ) from None


def _stem(model: str) -> str:
    """Return a folder name made from a model's path or name."""
    # For files include the folder, since many files have the same name.
    path = Path(model)
    parts = path.parts[-2:] if path.is_file() else path.absolute().parts[-1:]
    name = "-".join(parts)
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def _print(shown: "Inspected", page: Path, figures: Sequence[str]) -> None:
    if "images/top_classes" in shown:
        classes, shares = shown["images/top_classes"], shown["images/top_probabilities"]
        for name, best, share in zip(
            shown["images/names"], classes[:, 0], shares[:, 0], strict=True
        ):
            print(f"{Path(str(name)).name}: {best} {100 * share:.1f} %")
    print(f"figures (PNG, SVG): {', '.join(figures)}", file=sys.stderr)
    print(page)
