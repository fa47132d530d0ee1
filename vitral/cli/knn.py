"""`vitral knn`."""

from collections.abc import Sequence
from typing import Any

from vitral.cli.frozen import POSITIONALS, SHARED_OPTIONS, score, show, summary_of
from vitral.cli.options import Option, parse_options

DESCRIPTION = "Score a model's features by the votes of the nearest training images."
OPTIONS = (
    *POSITIONALS,
    Option("--k", "neighbours that vote; left out: 20", metavar="N", type=int),
    Option(
        "--temperature",
        "the smaller, the more the nearest count; left out: 0.07",
        metavar="X",
        type=float,
    ),
    Option("--choose", "choose both, by leaving training images out in turn"),
    *SHARED_OPTIONS,
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("knn", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.evaluate.frozen_knn import Vote, score_knn

    given: dict[str, Any] = {
        name: value
        for name, value in (("k", asked.k), ("temperature", asked.temperature))
        if value is not None
    }
    result = score(
        asked,
        lambda model, task: score_knn(
            model,
            task,
            vote=Vote(**given) if given else None,
            choose=asked.choose,
            controls=asked.controls == "on",
        ),
        with_validation=False,
    )
    return show(asked, result, summary_of(result))
