"""The paper's means over VTAB's tasks, for a model that the paper does not score."""

from vitral.figures.paper_beside import PRETRAINING_TITLES
from vitral.spec.paper_results import VTAB, VTAB_GROUPS, read_paper_results


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
