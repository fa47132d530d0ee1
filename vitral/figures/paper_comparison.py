"""The paper's published figures, and its means over VTAB's tasks, beside one's own results."""

from typing import Any

from vitral.config.paper_results import VTAB, VTAB_GROUPS, PaperRow, paper_rows, read_paper_results
from vitral.files.results import ResultRow

PRETRAINING_TITLES = {
    "imagenet": "ImageNet", "imagenet21k": "ImageNet-21k", "jft300m": "JFT-300M",
}  # fmt: skip
# What a setting of the paper's may be called among those of a row.
_SETTING_NAMES = {"image_size": ("image_size", "size")}


def paper_beside(row: ResultRow) -> list[PaperRow]:
    """Return the figures of the same model, task and kind of protocol, the most alike first.

    There is at most one for each pre-training: that of the row where the row knows it. Only test
    accuracy is compared; a score after another number of shots is another task.
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
    """Return those figures as text: `84.0 % (Table 5, ImageNet-21k)`; what differs is named."""
    return "; ".join(_told(row, paper) for paper in paper_beside(row))


def other_settings(row: ResultRow, paper: PaperRow) -> dict[str, float]:
    """Return the settings of a published figure that a row states otherwise."""
    stated = flat_settings(row.settings)
    return {
        name: value
        for name, value in paper.settings.items()
        if (own := _values(stated, _SETTING_NAMES.get(name, (name,)))) and value not in own
    }


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        own = f"{prefix}{name}"
        flat |= flat_settings(value, f"{own}.") if isinstance(value, dict) else {own: value}
    return flat


def _kind(protocol: str) -> str:
    """Return what is done, however: the score of a tuned model is that of its fine-tuning."""
    kind = protocol.split("/", maxsplit=1)[0]
    return "finetune" if kind == "evaluate" else kind


def _unlikeness(row: ResultRow, paper: PaperRow) -> tuple[bool, int]:
    return paper.protocol != row.protocol, len(other_settings(row, paper))


def _values(stated: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    found = [value for name, value in stated.items() if name.rpartition(".")[2] in names]
    return [one for value in found for one in (value if isinstance(value, list) else [value])]


def _told(row: ResultRow, paper: PaperRow) -> str:
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
        + ", ".join(f"{group} {own[group]:.1f} %" for group in VTAB_GROUPS)
        + f", overall {own[VTAB]:.1f} %"
        for (model, data), own in means.items()
    ]
