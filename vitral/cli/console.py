"""What verbs show: tables on standard output, progress on standard error."""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

TABLE_WIDTH = 140
"""Columns of a terminal from which on a table is easier to read than a paragraph a row."""
Row = tuple[str, ...]


def print_table(
    headings: Sequence[str],
    rows: Sequence[Row],
    *,
    tell: Callable[[Row], str],
    right: Collection[str] = (),
) -> None:
    """Print rows; to a narrow terminal each as a paragraph below its first cell.

    Args:
        headings: of the columns. The first is a name, which is there to be copied.
        rows: a cell a column.
        tell: gives the paragraph of a row.
        right: headings of columns whose cells end at the right.
    """
    if not sys.stdout.isatty():
        from vitral.figures.results_table import aligned

        print(aligned([headings, *rows]))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.width < TABLE_WIDTH:
        for row in rows:
            console.print(Text(row[0], style="bold"), soft_wrap=True)
            console.print(Padding(Text(tell(row)), (0, 0, 0, 2)))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        is_right = heading in right
        # What is beside the name wraps.
        table.add_column(heading, justify="right" if is_right else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to be called with the number of things done and of all."""
    from vitral.training.context import ProgressView

    view = ProgressView()
    view.start(title, total=1)
    try:
        yield lambda done, total: view.update(done, total, title=title)
    finally:
        view.finish()
