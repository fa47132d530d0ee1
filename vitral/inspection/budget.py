"""What a page of attention holds: as much as still opens quickly."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from vitral.errors import RequestError
from vitral.inspection.attention import layer_names, num_heads, step_names
from vitral.inspection.look import Kept
from vitral.models.layout import Layout
from vitral.models.model import Model

ATTENTION_BUDGET = 32_000_000
"""Weights that are kept, over all images, averaged over heads and once more of heads."""
FEWEST_MAPS = 6
"""Maps of all tokens over all tokens that each image of the gallery shall have at least."""
_log = logging.getLogger("vitral")


def gallery_size(model: Model, wanted: int) -> int:
    """Return how many images are looked at one by one; fewer than wanted are said.

    A page holds for each of them its rollout, the similarity of its patches and the attention of
    some steps.
    """
    if not model.layout().has_tokens:
        return wanted
    length = _num_tokens(model.layout())
    count = max(1, min(wanted, ATTENTION_BUDGET // (FEWEST_MAPS * length**2)))
    if count < wanted:
        _log.warning(
            "the first %d of %d images are looked at one by one: %s tokens of each are as many as "
            "a page holds",
            count,
            wanted,
            f"{length:,}",
        )
    return count


def kept_steps(model: Model, *, num_images: int, layers: Sequence[int] | None) -> Kept:
    """Choose the steps whose attention is kept, so that a page of them opens quickly.

    Averaged over heads all steps are kept, or as many, evenly, as the budget allows; of heads those
    of the layers that are asked for, or again as many as fit.

    Raises:
        RequestError: a layer that does not exist.
    """
    if not model.layout().has_tokens:
        if layers:
            raise RequestError(
                f"{model.config.name} has no tokens whose attention could be stepped through: "
                "leave --layers out"
            )
        return Kept()
    steps = step_names(model)
    one = num_images * _num_tokens(model.layout()) ** 2
    means = _evenly(steps, max(1, ATTENTION_BUDGET // one))
    if layers is None:
        heads = _evenly(means, ATTENTION_BUDGET // (one * num_heads(model)))
        return Kept(means, heads)
    depth = len(layer_names(model))
    each = len(steps) // depth
    for layer in layers:
        if not -depth <= layer < depth:
            raise RequestError(
                f"there is no layer {layer}: {model.config.name} has {depth}, 0 to {depth - 1}"
            )
    wanted = {layer % depth for layer in layers}
    heads = [step for place, step in enumerate(steps) if place // each in wanted]
    return Kept([step for step in steps if step in means or step in heads], heads)


def _num_tokens(layout: Layout) -> int:
    return layout.num_prefix_tokens + math.prod(layout.grid)


def _evenly(steps: Sequence[str], count: int) -> list[str]:
    """Return `count` of the steps at most, spread evenly, the last one among them."""
    if count < 1:
        return []
    places = np.linspace(len(steps) - 1, 0, min(len(steps), count)).round().astype(int)
    return [steps[place] for place in sorted(set(places.tolist()))]
