"""Published figures of the paper that are comparable to rows of results, and its VTAB means."""

from typing import Any

from vitral.config.paper_results import VTAB, VTAB_GROUPS, PaperRow, paper_rows, read_paper_results
from vitral.files.results import ResultRow

PRETRAINING_TITLES = {
    "imagenet": "ImageNet", "imagenet21k": "ImageNet-21k", "jft300m": "JFT-300M",
}  # fmt: skip
# Names that a setting of the paper may have in a row.
_SETTING_NAMES = {"image_size": ("image_size", "size")}


def comparable_paper_rows(row: ResultRow) -> list[PaperRow]:
    """Return published figures of the same model, task and kind of protocol, most similar first.

    There is at most one for each pre-training, and only that of the row if the row states it. Only
    test accuracy is compared; a score with another number of shots is another task.
    """
    if row.metric != "accuracy" or row.split != "test":
        return []
    found = [
        paper
        for paper in paper_rows(row.model, row.data, pretraining=row.pretraining or None)
        if paper.metric == "accuracy"
        and not paper.variant
        and _kind(paper.protocol) == _kind(row.protocol)
        and "shots" not in other_settings(row, paper)
    ]
    found.sort(key=lambda paper: _unlikeness(row, paper))
    by_pretraining: dict[str, PaperRow] = {}
    for paper in found:
        by_pretraining.setdefault(paper.pretraining, paper)
    return list(by_pretraining.values())


def paper_cell(row: ResultRow) -> str:
    """Return these figures as text, such as `84.0 % (Table 5, ImageNet-21k)`, and differences."""
    return "; ".join(_describe(row, paper) for paper in comparable_paper_rows(row))


def other_settings(row: ResultRow, paper: PaperRow) -> dict[str, float]:
    """Return the settings of a published figure that differ from those of a row."""
    stated = flat_settings(row.settings)
    return {
        name: value
        for name, value in paper.settings.items()
        if (values := _values(stated, _SETTING_NAMES.get(name, (name,)))) and value not in values
    }


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as a flat dictionary with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        flat |= flat_settings(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _kind(protocol: str) -> str:
    """Return the family of a protocol; `evaluate` of a fine-tuned model counts as `finetune`."""
    kind = protocol.split("/", maxsplit=1)[0]
    return "finetune" if kind == "evaluate" else kind


def _unlikeness(row: ResultRow, paper: PaperRow) -> tuple[bool, int]:
    return paper.protocol != row.protocol, len(other_settings(row, paper))


def _values(stated: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    found = [value for name, value in stated.items() if name.rpartition(".")[2] in names]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]


def _describe(row: ResultRow, paper: PaperRow) -> str:
    about = "about " if paper.approximate else ""
    differing = [f"{name}={value:g}" for name, value in other_settings(row, paper).items()]
    facts = [paper.source, PRETRAINING_TITLES.get(paper.pretraining, ""), *differing]
    return f"{about}{paper.value:.1f} % ({', '.join(filter(None, facts))})"


def describe_paper_means() -> list[str]:
    """Return a line for each row of Table 9: natural, specialized, structured, overall."""
    means: dict[tuple[str, str], dict[str, float]] = {}
    for row in read_paper_results():
        if row.source == "Table 9" and row.task.startswith(VTAB):
            task = row.task.removeprefix(f"{VTAB}-")
            means.setdefault((row.model, row.pretraining), {})[task] = row.value
    return [
        f"Table 9   {model}, {PRETRAINING_TITLES[data]}: "
        + ", ".join(f"{group} {by_task[group]:.1f} %" for group in VTAB_GROUPS)
        + f", overall {by_task[VTAB]:.1f} %"
        for (model, data), by_task in means.items()
    ]
