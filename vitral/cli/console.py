"""Output of verbs: tables on standard output, progress on standard error."""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

TABLE_WIDTH = 140
"""Minimum number of terminal columns for a table; below, each row is a paragraph."""
Row = tuple[str, ...]


def print_table(
    headings: Sequence[str],
    rows: Sequence[Row],
    *,
    tell: Callable[[Row], str],
    right: Collection[str] = (),
) -> None:
    """Print rows; on a narrow terminal each as a paragraph below its first cell.

    Args:
        headings: of the columns. The first is a name to copy, which is never wrapped.
        rows: with one cell per column.
        tell: returns the paragraph of a row.
        right: headings of right-aligned columns.
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
        # All columns but the name wrap.
        table.add_column(heading, justify="right" if is_right else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows progress, called with the numbers of items done and in total."""
    from vitral.training.context import ProgressView

    view = ProgressView()
    view.start(title, total=1)
    try:
        yield lambda done, total: view.update(done, total, title=title)
    finally:
        view.finish()
