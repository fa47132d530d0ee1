"""Occlusion sensitivity: the class's probability with parts of the image blanked."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection.arrays import pair
from vitral.models.model import Model

CONVOLUTION_CELLS = 14
"""Cells along the shorter side if the model has no patches: 16 pixels each at 224."""


@torch.no_grad()
def occlusion_sensitivity(
    model: Model,
    images: Float[Tensor, "N C H W"],
    classes: Sequence[int],
    *,
    cell: int | tuple[int, int] | None = None,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "N rows columns"]:
    """Return by how much a class's probability falls when a part of the image is blanked.

    A blanked part has the image's mean colour.

    Args:
        model: a classifier.
        images: as the model's `preprocessing` returns them, on the model's device.
        classes: the target class of each image.
        cell: pixels of a part, or (height, width); the last ones, right and bottom, may be
            smaller. None: a ViT's patches; for other models a fourteenth of the shorter side.
        batch_size: number of blanked images per forward pass.
        progress: called with the number of blanked images done and the total.

    Returns:
        (N, rows, columns) of the cells, float32: probability before minus probability after. Above
        0 the part speaks for the class, below 0 against it.

    Raises:
        RequestError: no classifier, a class that it does not have, or a cell that does not fit.

    Source: Zeiler and Fergus (arXiv 1311.2901), section 4.2.
    """
    _check(model, images, classes)
    (height, width), grid = cells(model) if cell is None else _cells_of(images, pair(cell))
    target = torch.as_tensor(list(classes), device=images.device)
    count = grid[0] * grid[1]
    fill = images.mean(dim=(2, 3), keepdim=True)
    before = _probability(model, images, target)
    fall = torch.empty(len(images), count)
    total = len(images) * count
    for start in range(0, total, batch_size):
        numbers = range(start, min(start + batch_size, total))
        image_indices = [number // count for number in numbers]
        blanked = images[image_indices]
        for position, number in enumerate(numbers):
            row, column = divmod(number % count, grid[1])
            rows = slice(row * height, (row + 1) * height)
            columns = slice(column * width, (column + 1) * width)
            blanked[position, :, rows, columns] = fill[image_indices[position]]
        after = _probability(model, blanked, target[image_indices])
        fall.view(-1)[start : numbers.stop] = (before[image_indices] - after).cpu()
        if progress:
            progress(numbers.stop, total)
    return fall.unflatten(1, grid)


def cells(model: Model) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the default cells of occlusion: their (height, width) and the (rows, columns)."""
    layout = model.layout()
    if layout.has_tokens:
        return layout.stride, layout.grid
    sides = model.config.image_hw
    cell = max(1, round(min(sides) / CONVOLUTION_CELLS))
    return (cell, cell), (-(-sides[0] // cell), -(-sides[1] // cell))


def _cells_of(images: Tensor, cell: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    (height, width), sides = cell, images.shape[2:]
    if not (0 < height <= sides[0] and 0 < width <= sides[1]):
        raise RequestError(
            f"cell={height} x {width} pixels does not fit images of {sides[0]} x {sides[1]}: use a "
            "smaller one, of 1 or more"
        )
    return cell, (-(-sides[0] // height), -(-sides[1] // width))


def _probability(model: Model, images: Tensor, classes: Tensor) -> Tensor:
    shares = model.probabilities(model(images).float())
    return shares.gather(1, classes[:, None])[:, 0]


def _check(model: Model, images: Tensor, classes: Sequence[int]) -> None:
    count = model.config.num_classes
    if not count:
        raise RequestError(f"{model.config.name} has no head: occlusion follows a class")
    if len(classes) != len(images):
        raise RequestError(f"{len(classes)} classes for {len(images)} images: give one an image")
    for label in classes:
        if not 0 <= label < count:
            raise RequestError(f"there is no class {label}: the model has {count}, from 0 on")
