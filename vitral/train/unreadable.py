"""When a run stops because too many training images can't be read."""

from vitral.data.images import ImageData
from vitral.errors import DataError
from vitral.spec.run import RunConfig


def check_unreadable(data: ImageData, *, config: RunConfig, found_later: int = 0) -> None:
    """Stop a run on data with too many damaged training images.

    Raises:
        DataError: more than one, and more than the share `data.max_unreadable`.
    """
    damaged = data.problems("train")
    bad = len(damaged) + found_later
    total = len(data.splits["train"]) + len(damaged)
    if bad > 1 and bad > config.data.max_unreadable * total:
        example = f", such as {damaged[0].name} ({damaged[0].reason})" if damaged else ""
        raise DataError(
            f"{bad:,} of {total:,} training images can't be read{example}: repair or remove them, "
            "or "
            "raise data.max_unreadable"
        )
