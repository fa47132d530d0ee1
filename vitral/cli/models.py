"""`vitral models`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitral.cli.options import Option, parse_options
from vitral.cli.tables import print_table

if TYPE_CHECKING:
    from vitral.spec.catalogue import CatalogueEntry

DESCRIPTION = "List the models that can be built by name, and the public weights that are known."
OPTIONS = (
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


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("models", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.spec.catalogue import search_catalogue

    text = " ".join([asked.search or "", *asked.words]).strip()
    models, weights = _models(text), search_catalogue(text)
    _check_found(text, models, weights)
    if asked.json:
        print(json.dumps(_record(models, weights), ensure_ascii=False))
    elif asked.search is None and not asked.words:
        print(_overview(models, weights))
    else:
        _show(models, weights)
    return 0


def _models(text: str) -> tuple[str, ...]:
    """Return the common names in which every word of a text occurs."""
    from vitral.spec.catalogue import fold
    from vitral.spec.variants import COMMON_NAMES

    words = [fold(word) for word in text.split()]
    return tuple(name for name in COMMON_NAMES if all(word in fold(name) for word in words))


def _check_found(text: str, models: tuple[str, ...], weights: "tuple[CatalogueEntry, ...]") -> None:
    """Refuse a search that finds nothing, with the name nearest to what was sought."""
    from vitral.errors import RequestError, nearest
    from vitral.spec.catalogue import read_catalogue

    if models or weights:
        return
    entries = read_catalogue()
    known = {entry.model for entry in entries} | {entry.name for entry in entries}
    hint = nearest(text, sorted(known | {name.rpartition("/")[2] for name in known}))
    if not hint.startswith(": did you mean"):
        hint = ": search for a model (B/16), a family (augreg, bit, deit, dino, mae) or a licence"
    raise RequestError(f"no model and no public weights have all the words of {text!r}{hint}")


def _record(models: tuple[str, ...], weights: "tuple[CatalogueEntry, ...]") -> dict[str, list[Any]]:
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
