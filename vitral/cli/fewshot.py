"""`vitral fewshot`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitral.cli.frozen import POSITIONALS, SHARED_OPTIONS, score, shared_facts, show
from vitral.cli.options import Option, parse_options

if TYPE_CHECKING:
    from vitral.evaluate.frozen_rows import FrozenResult

DESCRIPTION = "Score a model's features after few images of each class, by least squares."
OPTIONS = (
    *POSITIONALS,
    Option(
        "--shots",
        "images a class, such as 1,5; left out: of 1,5,10,25 those that every class has",
        metavar="N,N",
    ),
    Option("--seeds", "draws of these images", metavar="N", type=int, default=3),
    Option(
        "--l2",
        "strength of the penalty, or sweep: chosen on images that are neither learnt from nor "
        "scored",
        metavar="X",
        default="1024",
    ),
    *SHARED_OPTIONS,
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("fewshot", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.evaluate.frozen_fewshot import SWEEP, score_fewshot

    shots, l2 = _shots(asked.shots), _l2(asked.l2, SWEEP)
    result = score(
        asked,
        lambda model, task: score_fewshot(
            model, task, shots=shots, num_seeds=asked.seeds, l2=l2, controls=asked.controls == "on"
        ),
        with_validation=l2 == SWEEP,
    )
    return show(asked, result, _facts(result))


def _shots(text: str | None) -> list[int] | None:
    from vitral.errors import RequestError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--shots {text}: give whole numbers, such as 1,5,10,25") from None


def _l2(text: str, sweep: str) -> float | str:
    from vitral.errors import RequestError

    if text == sweep:
        return sweep
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"--l2 {text}: give a number, or {sweep}") from None


def _facts(result: "FrozenResult") -> dict[str, Any]:
    singles = [row for row in result.rows if isinstance(row.seed, int)]
    means = [row for row in result.rows if isinstance(row.seed, tuple)]
    varying = ("shots", "chosen")
    settings = {k: v for k, v in singles[0].settings.items() if k not in varying}
    return {
        "results": [
            {
                "shots": row.settings["shots"],
                "seed": row.seed,
                "accuracy": row.value,
                "accuracy_interval": row.interval,
                **row.settings.get("chosen", {}),
                "controls": row.controls,
            }
            for row in singles
        ],
        "means": [
            {
                "shots": row.settings["shots"],
                "seeds": row.seed,
                "accuracy": row.value,
                "accuracy_interval": row.interval,
                "controls": row.controls,
            }
            for row in means
        ],
        "protocol": {"name": "fewshot", **settings, **shared_facts(result, singles[0])},
    }
