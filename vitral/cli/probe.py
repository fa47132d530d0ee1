"""`vitral probe`."""

from collections.abc import Sequence

from vitral.cli.frozen import POSITIONALS, SHARED_OPTIONS, score, show, summary_of
from vitral.cli.options import parse_options

DESCRIPTION = "Score a model's features by logistic regression on all training images."
OPTIONS = (*POSITIONALS, *SHARED_OPTIONS)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("probe", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.evaluate.frozen_probe import score_probe

    result = score(
        asked,
        lambda model, task: score_probe(model, task, controls=asked.controls == "on"),
        with_validation=True,
    )
    return show(asked, result, summary_of(result))
