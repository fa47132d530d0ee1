"""Problems of single files."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from vitral.data.check.checked import CheckedData
from vitral.data.check.problems import MANY_PIXELS, SMALL_SIDE, Item
from vitral.data.finding import Finding
from vitral.data.kinds import SUFFIXES

_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def file_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give the problems of each file by kind, and what the source leaves out."""
    for number, finding in enumerate(data.findings):
        name = data.name(number)
        for kind, detail in _problems(finding, name):
            # A pack keeps the names of its source, whose kind it may have changed.
            is_own_name = kind != "wrong_extension" or data.listing.findings is None
            # Models of grey and alpha, or of RGBA, see transparency.
            is_put_on_white = kind != "alpha" or data.channels in (1, 3)
            if is_own_name and is_put_on_white:
                yield kind, Item((name,), detail)
    for skipped in data.listing.skipped:
        yield "left_out", Item((skipped.name,), skipped.reason)


def _problems(finding: Finding, name: str) -> Iterator[tuple[str, str]]:
    if finding.problem:
        yield "unreadable" if finding.damaged else "not_read_yet", finding.problem
        return
    if not finding.height:
        return  # not looked into
    size = f"{finding.height} x {finding.width}"
    if finding.is_flat:
        yield "flat", ""
    if min(finding.height, finding.width) < SMALL_SIDE:
        yield "tiny", size
    if finding.height * finding.width > MANY_PIXELS:
        yield "huge", size
    said = _KIND_OF_SUFFIX.get(PurePosixPath(name).suffix.lower())
    if said and finding.format not in (said, "array"):
        yield "wrong_extension", finding.format
    if finding.turned:
        yield "turned", ""
    if finding.mode == "CMYK":
        yield "cmyk", ""
    if finding.mode in ("P", "PA"):
        yield "palette", ""
    if finding.mode in ("RGBA", "LA", "PA"):
        yield "alpha", ""
    if finding.is_deep:
        yield "deep", f"{finding.depth}, {finding.lowest:g} to {finding.highest:g}"
    if finding.num_frames > 1:
        yield "animated", f"{finding.num_frames} frames"
