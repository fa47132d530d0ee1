"""Published results of the paper and of the authors' released models, for comparison.

The table is `paper_results.csv` beside this file, one row per figure as printed. Sources: ViT paper
(arXiv 2010.11929v2), Tables 2 and 5 to 9, Figure 13, Section 4.6, Appendix D.9; BiT (arXiv
1912.11370), Table 2, and its README; the README of google-research/vision_transformer (AugReg's
models too).
"""

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from vitral.config.catalogue import fold
from vitral.config.names import parse_model_name
from vitral.errors import RequestError, nearest

AVERAGE_FIVE = ("imagenet", "cifar10", "cifar100", "pets", "flowers102")
"""The sets of Figure 5's average; ImageNet ReaL is not among them."""
VTAB = "vtab"
VTAB_GROUPS = {
    "natural": ("caltech101", "cifar100", "dtd", "flowers102", "pets", "sun397", "svhn"),
    "specialized": ("camelyon", "eurosat", "resisc45", "retinopathy"),
    "structured": (
        "clevr-count", "clevr-dist", "dmlab", "kitti-dist", "dsprites-loc", "dsprites-ori",
        "smallnorb-azim", "smallnorb-elev",
    ),
}  # fmt: skip
_PRETRAINING = {"imagenet1k": "imagenet", "imagenet2012": "imagenet", "ilsvrc2012": "imagenet"}


@dataclass(frozen=True)
class PaperRow:
    """One published figure."""

    source: str
    """`Table 5`: of the ViT paper where no other work is named."""
    model: str
    """In Vitral's spelling, such as `R50x1+ViT-B/16`; Noisy Student is `EfficientNet-L2`."""
    variant: str
    """How the model differs from the one of that name, such as `position=none`."""
    pretraining: str
    """`imagenet`, `imagenet21k` or `jft300m`; empty: the source does not state it."""
    epochs: float | None
    """Of pre-training; None: not stated."""
    optimizer: str
    """Of pre-training: `adam`, `sgd`, or empty: not stated."""
    protocol: str
    """`finetune/paper`, `fewshot`, `vtab`, ...; costs have `pretraining` and `inference`."""
    settings: dict[str, float]
    """Of the protocol, as far as the source states them: `image_size`, `shots`, `dropout`."""
    task: str
    """A data set's name, a task of VTAB (then the protocol is `vtab`), `vtab` or `vtab-natural`
    for a mean over tasks, `average-5`; of costs the protocol again."""
    metric: str
    """`accuracy`, or a cost: `exaflops`, `tpuv3_core_days`, `images_per_second`."""
    value: float
    """Accuracy in percent, costs in their unit."""
    std: float | None
    """Standard deviation over runs, in the unit of `value`."""
    approximate: bool
    """Read off a figure."""
    note: str


@functools.cache
def read_paper_results() -> tuple[PaperRow, ...]:
    """Return every row, in the order of the table."""
    table = (
        resources.files("vitral.config").joinpath("paper_results.csv").read_text(encoding="utf-8")
    )
    return tuple(_row(fields) for fields in csv.DictReader(table.splitlines()))


def paper_rows(
    model: str, task: str, *, protocol: str | None = None, pretraining: str | None = None
) -> list[PaperRow]:
    """Return the published figures of a model on a task, if any.

    Args:
        model: in any spelling that `create_model` accepts.
        task: a data set's name in any case and with any separators; `vtab-dtd` and
            `vtab-dtd-1000` are VTAB's task, `vtab` its mean, `average-5` Figure 5's.
        protocol: `finetune/paper`, or `finetune` for all kinds of it.
        pretraining: as in `PaperRow`, or as the catalogue writes it; of several data sets
            the first counts.
    """
    wanted_task, only_vtab = _task(task)
    wanted_data = pretraining_name(pretraining) if pretraining else None
    return [
        row
        for row in _rows_by_model().get(canonical_model(model), [])
        if fold(row.task) == wanted_task
        and (not only_vtab or row.protocol == VTAB)
        and (protocol is None or is_kind_of(row.protocol, protocol))
        and wanted_data in (None, row.pretraining)
    ]


def is_kind_of(protocol: str, wanted: str) -> bool:
    """Return whether a protocol is the wanted one, or a kind of it (`finetune/paper`)."""
    name, base = protocol.lower(), wanted.lower()
    return name == base or name.startswith(f"{base}/")


@functools.cache
def canonical_model(name: str) -> str:
    """Return the canonical spelling of a model's name; of an unknown one, letters and digits."""
    try:
        return str(parse_model_name(name)["name"])
    except RequestError:
        return fold(name)


def pretraining_name(text: str) -> str:
    """Return the first data set's short name: `ImageNet-21k, then ImageNet-1k` -> `imagenet21k`."""
    name = fold(text.split(",", maxsplit=1)[0])
    return _PRETRAINING.get(name, name)


def vtab_means(values: Mapping[str, float]) -> dict[str, float]:
    """Return the means of VTAB's groups of tasks, and `overall`, the plain mean over its 19 tasks.

    A group is left out unless all of its tasks have values.

    Args:
        values: by task, named `dtd` or `vtab-dtd`; in any unit.

    Raises:
        RequestError: a task that VTAB does not have, or one given twice.

    Source: ViT paper, Section 4.1; VTAB, arXiv 1910.04867.
    """
    tasks = {fold(task): task for group in VTAB_GROUPS.values() for task in group}
    found: dict[str, float] = {}
    for name, value in values.items():
        task = tasks.get(_task(name)[0])
        if task is None:
            raise RequestError(f"VTAB has no task {name!r}{nearest(name, tasks.values())}")
        if task in found:
            raise RequestError(f"{name!r} is VTAB's task {task} a second time: give it once")
        found[task] = value
    groups = VTAB_GROUPS | {"overall": tuple(tasks.values())}
    return {
        group: _mean([found[task] for task in members])
        for group, members in groups.items()
        if set(members) <= set(found)
    }


def average_five(values: Mapping[str, float]) -> tuple[str, float]:
    """Return the name and the value of a mean; it is `Average-5` over exactly the paper's five.

    Args:
        values: by data set; in any unit.

    Raises:
        RequestError: there are none.

    Source: ViT paper, Figure 5 and Table 7.
    """
    if not values:
        raise RequestError("a mean over no data set: give one value or more")
    five = {fold(name) for name in AVERAGE_FIVE}
    names = [fold(name) for name in values]
    is_five = set(names) == five and len(names) == len(five)
    name = "Average-5" if is_five else f"mean of {', '.join(values)}"
    return name, _mean(list(values.values()))


@functools.cache
def _rows_by_model() -> dict[str, list[PaperRow]]:
    rows: dict[str, list[PaperRow]] = {}
    for row in read_paper_results():
        rows.setdefault(canonical_model(row.model), []).append(row)
    return rows


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _task(name: str) -> tuple[str, bool]:
    """Return a task's folded name, and whether it can only be one of VTAB's."""
    folded = fold(name)
    short = folded.removeprefix(VTAB).removesuffix("1000")
    known = {fold(task) for group in VTAB_GROUPS.values() for task in group}
    return (short, True) if folded.startswith(VTAB) and short in known else (folded, False)


def _row(fields: dict[str, str]) -> PaperRow:
    settings = [item.split("=") for item in fields["settings"].split(";") if item]
    return PaperRow(
        source=fields["source"], model=fields["model"], variant=fields["variant"],
        pretraining=fields["pretraining"], epochs=_number(fields["epochs"]),
        optimizer=fields["optimizer"], protocol=fields["protocol"],
        settings={name: float(value) for name, value in settings},
        task=fields["task"], metric=fields["metric"], value=float(fields["value"]),
        std=_number(fields["std"]), approximate=fields["approximate"] == "yes",
        note=fields["note"],
    )  # fmt: skip


def _number(text: str) -> float | None:
    return float(text) if text else None
