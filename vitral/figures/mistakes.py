"""The most confident mistakes as pictures, with where the model looked."""

import numpy as np

from vitral.figures.page import (
    Html,
    count,
    element,
    folded,
    inline_image,
    join,
    missing,
    name_of,
    paragraph,
    percent,
    section,
)
from vitral.figures.pictures import overlay_attention, to_picture, to_png
from vitral.figures.run_folder import RunFolder

NUM_SHOWN, NUM_OPEN = 24, 12
"""Mistakes in the page, and those that need not be unfolded."""
NOTHING = "nothing"
"""What an image of no class is, where images may have any."""


def mistakes_section(run: RunFolder) -> Html:
    """Show the mistakes that the model was surest of, most confident first."""
    title = "The most confident mistakes"
    if not run.mistakes:
        absent = "This folder has no mistakes.npz, so there are no pictures to show."
        return section("mistakes", title, missing(absent))
    order = np.argsort(-run.mistakes["probabilities"], kind="stable")[:NUM_SHOWN].tolist()
    if not order:
        return section("mistakes", title, paragraph("There are none: every image is right."))
    cards = [_card(run, index) for index in order]
    looked = "attention" in run.mistakes
    how = (
        "Beside each picture: where the last block's attention went, from dark (least) to yellow "
        "(most), on a scale of its own. "
        if looked
        else ""
    )
    return section(
        "mistakes",
        title,
        paragraph(
            f"The {count(len(order), 'wrong answer')} that the model was surest of. {how}"
            "Look here for wrong labels, for images of two classes at once, and for what the "
            "model takes as a sign of a class."
        ),
        element("div", *cards[:NUM_OPEN], class_="cards"),
        folded(f"{len(cards) - NUM_OPEN} more", element("div", *cards[NUM_OPEN:], class_="cards"))
        if len(cards) > NUM_OPEN
        else None,
    )


def _card(run: RunFolder, index: int) -> Html:
    """Write one mistake: picture, attention, what it is and what it was taken for."""
    found = run.mistakes
    true, predicted = (str(found[key][index]) or NOTHING for key in ("labels", "predictions"))
    picture = to_picture(found["images"][index])
    alt = f"{true}, taken for {predicted}"
    pictures = [inline_image(to_png(picture), alt=alt)]
    if "attention" in found:
        heat = overlay_attention(picture, found["attention"][index])
        pictures.append(inline_image(to_png(heat), alt="The model's attention on this picture"))
    caption = element(
        "figcaption",
        element("div", element("span", "is "), element("b", name_of(true))),
        element(
            "div",
            element("span", "taken for "),
            element("b", name_of(predicted), class_="wrong"),
            element("span", f" {percent(float(found['probabilities'][index]))}"),
        ),
        element("div", name_of(found["names"][index]), class_="file"),
    )
    return element("figure", element("div", join(pictures), class_="pair"), caption)
