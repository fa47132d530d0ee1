"""Groups from the names of files: what belongs to one patient, place or film."""

import re
from dataclasses import replace

from vitral.data.sources.listing import Listing
from vitral.errors import RequestError


def group_by_pattern(listing: Listing, pattern: str | None) -> Listing:
    """Return a listing whose groups are what a pattern finds in the names of its files.

    Args:
        listing: of any source.
        pattern: a regular expression; a file's group is what its first parentheses match, or all
            that it matches; a file that it does not fit is a group of its own. None: no change.

    Raises:
        RequestError: it is no regular expression, or fits no name.
    """
    if pattern is None:
        return listing
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"group_pattern={pattern!r} is no regular expression: {error}") from None
    names = listing.store.names
    matches = [expression.search(name) for name in names]
    if names and not any(matches):
        raise RequestError(
            f"group_pattern={pattern!r} fits no file's name, such as {names[0]!r}: give one that "
            "finds a file's group in its name"
        )
    groups = [
        name if match is None else match[1 if expression.groups else 0] or name
        for name, match in zip(names, matches, strict=True)
    ]
    return replace(listing, groups=groups)
