"""The window at the head of a report: a strip of stained glass, each run with its own."""

import random
import zlib

from vitral.figures.page import Html, element

COLORS = (
    ("#1b3f9c", "#2450b8", "#3f72d8", "#7fa6ee"),
    ("#7d1530", "#b4233f", "#d5455a"),
    ("#b86f00", "#e09a12", "#f3bf4b", "#f8dd94"),
    ("#0e5f47", "#14805e", "#3aa880"),
    ("#4b2a86", "#6f45b5", "#a384dc"),
)
WEIGHTS = (5, 2, 3, 2, 2)
COLUMNS, ROWS = 40, 3
WIDTH, HEIGHT = 1600, 96


def draw_window(seed: str) -> Html:
    """Draw the strip as an SVG element; the text decides how it looks."""
    draw = random.Random(zlib.crc32(seed.encode("utf-8", "backslashreplace")))
    corners = {
        (column, row): _corner(column, row, draw)
        for column in range(COLUMNS + 1)
        for row in range(ROWS + 1)
    }
    panes = []
    for column in range(COLUMNS):
        for row in range(ROWS):
            square = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
            points = [corners[corner] for corner in square]
            for pane in _cut(points, draw):
                shades = draw.choices(COLORS, WEIGHTS)[0]
                outline = " ".join(f"{x:.0f},{y:.0f}" for x, y in pane)
                panes.append(element("polygon", points=outline, fill=draw.choice(shades)))
    return element(
        "svg",
        *panes,
        class_="window",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="xMidYMid slice",
        aria_hidden="true",
    )


def _corner(column: int, row: int, draw: random.Random) -> tuple[float, float]:
    """Place a corner near its grid point; those on the rim stay on it."""
    x, y = column * WIDTH / COLUMNS, row * HEIGHT / ROWS
    dx, dy = draw.uniform(-13, 13), draw.uniform(-10, 10)
    return (x + dx if 0 < column < COLUMNS else x, y + dy if 0 < row < ROWS else y)


def _cut(points: list[tuple[float, float]], draw: random.Random) -> list[list[tuple[float, float]]]:
    """Leave a pane whole, or cut it along one of its diagonals."""
    a, b, c, d = points
    whole = [[a, b, c, d]]
    return draw.choice([whole, [[a, b, c], [a, c, d]], [[a, b, d], [b, c, d]]])
