"""Every figure of an inspection, as PNG and SVG, from its arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vitral.figures.inspection.depth import draw_by_depth
from vitral.figures.inspection.filters import draw_filters
from vitral.figures.inspection.inspected import Inspected
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


def remove_figures(folder: Path) -> None:
    """Remove from a folder what an inspection before has written there, and nothing else."""
    for name in (*OF_ONE, *OF_SEVERAL):
        for ending in ENDINGS:
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
    for path in folder.glob("beside-*.npz"):
        path.unlink()


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
