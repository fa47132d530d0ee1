"""Where a run happens: the processes that share it, their device, and what a person sees of it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from vitral.data.datasets.names import is_published
from vitral.data.images import ImageData, open_images
from vitral.runtime.device import choose_device
from vitral.runtime.ranks import Ranks, process_group, ranks_from_environment
from vitral.spec.run import DataSettings
from vitral.train.fewshot import fewshot_sources
from vitral.train.progress import ProgressView


@dataclass(frozen=True)
class Site:
    """Processes, device and view of one run or of several, one after the other."""

    ranks: Ranks
    device: torch.device
    view: ProgressView


@contextmanager
def training_site(device: str = "auto", *, quiet: bool = False) -> Iterator[Site]:
    """Join the processes that a launcher started, if any; the caller's random state stays as it is.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        quiet: say nothing on standard error.
    """
    ranks = ranks_from_environment()
    chosen = choose_device(device, local_rank=ranks.local_rank)
    with (
        process_group(ranks, device=chosen) as joined,
        torch.random.fork_rng([chosen] if chosen.type == "cuda" else []),
    ):
        yield Site(joined, chosen, ProgressView(quiet=quiet or not joined.is_first))


def open_training_data(
    data: Any,
    site: Site,
    *,
    settings: Mapping[str, Any],
    channels: int | None,
    label: bool = True,
    targets: Sequence[str] = (),
) -> ImageData:
    """Open the data, the first process before the others, which find its survey in the cache.

    Args:
        data: a path, a name, or a sized object with [i] -> (image, label).
        site: whose view shows the progress.
        settings: of a run, by path; those of `data.*` count.
        channels: of the model; None: those of arrays, 3 for files.
        label: whether classes are read.
        targets: kinds of target to read beside them.
    """
    fields = {
        path.removeprefix("data."): value
        for path, value in settings.items()
        if path.startswith("data.")
    }
    sources = fewshot_sources(settings.get("evaluation.fewshot", ""))
    if not is_published(data) and any(map(is_published, sources)):
        fields.pop("directory", None)  # it is theirs
    data_settings = DataSettings(**fields | {"source": source_text(data)})

    def open_it() -> ImageData:
        site.view.start("looking at the images", total=1)

        def report(done: int, total: int) -> None:
            site.view.update(done, total, title="looking at the images")

        try:
            return open_images(
                data,
                channels=channels,
                settings=data_settings,
                report_progress=report,
                label=label,
                targets=targets,
            )
        finally:
            site.view.finish()

    opened: list[ImageData] = []
    site.ranks.on_first(lambda: opened.append(open_it()))
    with site.ranks.patient():
        return opened[0] if opened else open_it()


def source_text(data: Any) -> str:
    """Return what stands for the data in settings and messages."""
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    return f"{type(data).__name__} of {len(data)}"
