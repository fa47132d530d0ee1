"""How far a long piece of work of a verb is, on standard error."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to be called with the number of things done and of all."""
    from vitral.train.progress import ProgressView

    view = ProgressView()
    view.start(title, total=1)
    try:
        yield lambda done, total: view.update(done, total, title=title)
    finally:
        view.finish()
