"""Every figure of an inspection, as PNG and SVG, from its arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vitral.errors import RequestError
from vitral.figures.inspection.depth import draw_by_depth
from vitral.figures.inspection.filters import draw_filters
from vitral.figures.inspection.inspected import (
    ARRAYS_NAME,
    Inspected,
    beside_paths,
    read_inspected,
)
from vitral.figures.inspection.overlays import (
    draw_features,
    draw_heads,
    draw_occlusion,
    draw_rollouts,
)
from vitral.figures.inspection.positions import draw_positions
from vitral.figures.plots import save_figure

# Each figure with the array that it needs.
OF_ONE: dict[str, tuple[str, Callable[[Inspected], Figure]]] = {
    "rollout": ("attention/rollouts", draw_rollouts),
    "heads": ("attention/of_pool", draw_heads),
    "occlusion": ("occlusion/fall", draw_occlusion),
    "features": ("features/colors", draw_features),
    "filters": ("filters/components", draw_filters),
}
OF_SEVERAL: dict[str, tuple[str, Callable[[Sequence[Inspected]], Figure]]] = {
    "positions": ("positions/similarity", draw_positions),
    "distance": ("reach/distances", lambda models: draw_by_depth(models, "distances")),
    "entropy": ("reach/entropies", lambda models: draw_by_depth(models, "entropies")),
}
ENDINGS = ("png", "svg")
PAGE_NAME = "inspect.html"


def check_folder(folder: Path) -> None:
    """Make sure that nothing of anyone else's would be replaced in a folder.

    Raises:
        RequestError: it is a file, or holds a file of a name that is written, but no inspection.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file: name a folder")
    if (folder / ARRAYS_NAME).exists():
        read_inspected(folder)
        return
    for path in [*_written(folder), folder / PAGE_NAME]:
        if path.exists():
            raise RequestError(
                f"{path} was not written by `vitral inspect`, which would replace it: name another "
                "folder"
            )


def remove_figures(folder: Path) -> None:
    """Remove from a folder the figures and models beside it of an inspection before."""
    for path in _written(folder):
        path.unlink(missing_ok=True)


def _written(folder: Path) -> list[Path]:
    names = [f"{name}.{ending}" for name in (*OF_ONE, *OF_SEVERAL) for ending in ENDINGS]
    return [*(folder / name for name in names), *beside_paths(folder)]


def draw_folder(folder: Path) -> list[str]:
    """Draw all figures of the arrays in a folder, those of models beside it too.

    Returns:
        The names of the figures.

    Raises:
        RequestError: there are no arrays of `vitral inspect`.
    """
    beside = [read_inspected(path) for path in beside_paths(folder)]
    return draw_figures(read_inspected(folder), folder, beside=beside)


def draw_figures(model: Inspected, folder: Path, *, beside: Sequence[Inspected] = ()) -> list[str]:
    """Draw all figures that a model's arrays allow.

    Args:
        model: what was measured.
        folder: gets NAME.png and NAME.svg of each.
        beside: other models, drawn beside it where they have been measured too.

    Returns:
        The names of the figures.
    """
    drawn = []
    for name, (needed, draw) in OF_ONE.items():
        if needed in model:
            _save(draw(model), folder, name)
            drawn.append(name)
    for name, (needed, draw_several) in OF_SEVERAL.items():
        having = [own for own in (model, *beside) if needed in own]
        if having:
            _save(draw_several(having), folder, name)
            drawn.append(name)
    return drawn


def _save(figure: Figure, folder: Path, name: str) -> None:
    for ending in ENDINGS:
        save_figure(figure, folder / f"{name}.{ending}")
