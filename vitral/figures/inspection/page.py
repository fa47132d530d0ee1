"""inspect.html: an interactive page that shows the attention of a clicked patch."""

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from vitral.figures.html import Html, document, element, inline_image, join, paragraph, section
from vitral.figures.inspection.inspected import Inspected
from vitral.figures.pictures import draw_window, to_picture, to_png

SCRIPT, STYLE = (Path(__file__).with_name(f"page.{ending}") for ending in ("js", "css"))
PICTURE_PIXELS = 448
CAPTIONS = {
    "filters": "What the first layer looks for: principal components of its filters, the strongest "
    "first (Figure 7, left). Each is spread over the whole range by itself.",
    "positions": "How alike the position embeddings are: the tile of a patch shows its similarity "
    "to all patches (Figures 7, centre, and 10).",
    "distance": "How far each head looks, by depth: a dot a head (Figures 7, right, and 11). What "
    "a patch gives to prefix tokens counts as distance 0.",
    "entropy": "How spread each head's attention is, by depth: 0 is one token, the logarithm of "
    "their number all of them.",
    "rollout": "Which patches reach the answer, through all layers (Figures 6 and 14): lit as in "
    "the paper, and as heat.",
    "heads": "Where each head looks from what the classifier reads: in the last layer, or the "
    "pool's probe.",
    "occlusion": "What the answer depends on: the fall of the class's probability when a part is "
    "blanked with the image's mean colour.",
    "features": "The patches' features as colours: their first three principal components over all "
    "images here. Equal colours are alike features.",
}
VIEWS = {
    "attention/means": ("attention", "attention"),
    "attention/rollouts": ("rollout", "rollout"),
    "features/similarity": ("alike", "alike features"),
    "occlusion/fall": ("occlusion", "occlusion"),
    "features/colors": ("colors", "feature colours"),
}
READERS = {"gap": "the mean over patches", "map": "the pool's probe"}
"""The input of the classifier, by the model's pool; else the class token."""


def inspect_page(model: Inspected, figures: Sequence[str], folder: Path) -> str:
    """Render the page.

    Args:
        model: its measurements.
        figures: names of the figures in the folder, which the page shows too.
        folder: with the PNG files of the figures.
    """
    drawn = [
        section(
            f"figure-{name}",
            name.capitalize(),
            paragraph(CAPTIONS[name]),
            inline_image((folder / f"{name}.png").read_bytes(), alt=name, class_="plot"),
        )
        for name in figures
    ]
    return document(
        f"Inside {model.title}",
        element("div", draw_window(model.title), class_="glass"),
        element("header", element("h1", element("span", "Inside "), model.title)),
        element("main", _explorer(model), *drawn),
        element("footer", "Drawn by vitral inspect. The arrays behind everything: inspect.npz."),
        *_data(model),
        script=SCRIPT.read_text(encoding="utf-8"),
        style=STYLE.read_text(encoding="utf-8"),
    )


def _explorer(model: Inspected) -> Html:
    """Render the interactive part, which the script fills."""
    views = [(key, label) for needed, (key, label) in VIEWS.items() if needed in model]
    choices = [
        element(
            "label",
            element("input", type="radio", name="view", value=key),
            element("kbd", number),
            label,
        )
        for number, (key, label) in enumerate(views, start=1)
    ]
    board = element(
        "div",
        element(
            "canvas",
            id="board",
            tabindex=0,
            role="application",
            aria_label="The image. Arrow keys move the chosen patch.",
            aria_describedby="readout",
        ),
        element("p", id="readout", aria_live="polite"),
        element("div", id="readers", class_="buttons", role="group", aria_label="what looks"),
        class_="board",
    )
    side = element(
        "div",
        element("fieldset", element("legend", "Show"), *choices, id="views"),
        element(
            "div",
            element("output", id="step-name", for_="step"),
            element("input", type="range", id="step", min=0, step=1, aria_label="layer"),
            id="steps",
        ),
        element("div", id="heads", role="group", aria_label="heads"),
        element("div", id="answers"),
        class_="side",
    )
    return section(
        "look",
        "Look",
        element("noscript", paragraph("This part needs JavaScript; the figures below do not.")),
        element("div", id="gallery", class_="buttons", role="group", aria_label="images"),
        element("div", board, side, id="explorer"),
        paragraph("Click a patch, or move with the arrow keys. ", *_keys(model), class_="keys"),
        *(paragraph(text, class_="small") for text in _notes(model)),
    )


def _keys(model: Inspected) -> Iterator[Html]:
    views = sum(needed in model for needed in VIEWS)
    rows = [(" ".join(map(str, range(1, views + 1))), "what is shown")]
    if "attention/means" in model:
        rows += [("[ ]", "layer"), ("h H", "head"), ("0", "what the classifier reads")]
    if model.num_images > 1:
        rows += [("n p", "image")]
    for keys, what in rows:
        names = join([element("kbd", key) for key in keys.split()], " ")
        yield element("span", names, f" {what}")


def _notes(model: Inspected) -> Iterator[str]:
    about = model.about
    steps, means, heads = (len(about[n]) for n in ("steps", "kept_steps", "kept_heads"))
    if means and means < steps:
        yield f"{means} of {steps} steps of attention are here, so that the page opens quickly."
    if heads < means:
        yield f"Single heads are here of {heads} of {steps} steps; --layers names others."
    if about["credit"]:
        yield about["credit"]
    if not means:
        yield (
            f"{model.title} has no attention over all patches: what is shown are its features and "
            "occlusion."
        )


def _data(model: Inspected) -> Iterator[Html]:
    """Yield the data for the script: facts as JSON, and a block of numbers per image."""
    for number in range(model.num_images):
        parts = dict(_numbers(model, number))
        header = {name: list(array.shape) for name, array in parts.items()}
        packed = zlib.compress(b"".join(array.tobytes() for array in parts.values()), 6)
        yield _block(f"numbers-{number}", {"parts": header, "data": _base64(packed)})
    yield _block("facts", _facts(model))


def _facts(model: Inspected) -> dict[str, Any]:
    about, size = model.about, model["images/pictures"].shape[1:3]
    scale = PICTURE_PIXELS / max(size)
    facts: dict[str, Any] = {
        "steps": about["steps"],
        "kept_steps": about["kept_steps"],
        "kept_heads": about["kept_heads"],
        "num_heads": about.get("num_heads", 0),
        "num_prefix_tokens": about.get("num_prefix_tokens", 0),
        "has_class_token": about.get("has_class_token", False),
        "reader": READERS.get(about.get("pool", ""), "the class token"),
        "grids": {"patches": list(model["features/colors"].shape[1:3])},
        "covered": {"patches": model.covered("patches")},
        "width": round(scale * size[1]),
        "height": round(scale * size[0]),
        "heat": _colors("inferno"),
        "diverging": _colors("RdBu_r"),
        "images": [_image(model, number) for number in range(model.num_images)],
    }
    if "occlusion/fall" in model:
        facts["grids"]["occlusion"] = list(model["occlusion/fall"].shape[1:])
        facts["covered"]["occlusion"] = model.covered("occlusion")
    return facts


def _image(model: Inspected, number: int) -> dict[str, Any]:
    picture = to_picture(model["images/pictures"][number], size=PICTURE_PIXELS)
    image: dict[str, Any] = {
        "name": Path(str(model["images/names"][number])).name,
        "picture": f"data:image/png;base64,{_base64(to_png(picture))}",
        "answers": [],
    }
    if "images/top_classes" in model:
        classes, shares = model["images/top_classes"], model["images/top_probabilities"]
        image["answers"] = [
            [str(name), round(float(share), 5)]
            for name, share in zip(classes[number], shares[number], strict=True)
        ]
    if "occlusion/fall" in model:
        image["occluded_class"] = str(model["occlusion/classes"][number])
        falls = model["occlusion/fall"][number].astype(np.float64)
        image["occlusion"] = np.round(falls, 6).ravel().tolist()
    return image


def _numbers(model: Inspected, number: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield an image's arrays, with attention quantised as in `_levels`."""
    for name in ("means", "heads", "rollout"):
        if f"attention/{name}" in model:
            largest, levels = _levels(model[f"attention/{name}"][number])
            yield f"{name}/largest", largest
            yield f"{name}/levels", levels
    for name in ("rollouts", "of_pool"):
        if f"attention/{name}" in model:
            yield name, model[f"attention/{name}"][number].astype("<f4")
    similarity = model["features/similarity"][number].astype(np.float32)
    yield "alike", np.round(127 * np.clip(similarity, -1, 1)).astype(np.int8)
    yield "colors", np.round(255 * model["features/colors"][number]).astype(np.uint8)


def _levels(weights: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return each row's maximum (..., L), and the square roots of shares of it in 0..255."""
    weights = weights.astype(np.float32)
    largest = weights.max(axis=-1)
    shares = weights / np.maximum(largest, 1e-30)[..., None]
    return largest.astype("<f4"), np.round(255 * np.sqrt(shares)).astype(np.uint8)


def _colors(name: str, count: int = 64) -> list[list[int]]:
    levels = mpl.colormaps[name](np.linspace(0, 1, count))[:, :3]
    colors: list[list[int]] = np.round(255 * levels).astype(int).tolist()
    return colors


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _block(name: str, content: Any) -> Html:
    """Embed data in the page as JSON, escaped so that no tag can end the block."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    return element("script", Html(text), type="application/json", id=name)
