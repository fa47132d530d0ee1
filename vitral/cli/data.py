"""`vitral data ACTION`: finds the action and runs it."""

import importlib
from collections.abc import Sequence

from vitral.errors import RequestError, nearest

ACTIONS = {
    "info": ("vitral.cli.data_info", "say what a source of images holds"),
    "check": ("vitral.cli.data_check", "find what is wrong with images, labels and splits"),
    "pack": ("vitral.cli.data_pack", "write shards: tars with an index, smaller images if wanted"),
}


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status.

    Raises:
        RequestError: an unknown action.
    """
    if not tokens or tokens[0] in ("-h", "--help", "help"):
        known = "\n".join(f"  vitral data {name:<6} {what}" for name, (_, what) in ACTIONS.items())
        print(f"usage: vitral data ACTION DATA\n\n{known}")
        return 0
    if tokens[0] not in ACTIONS:
        raise RequestError(f"vitral data has no action {tokens[0]!r}{nearest(tokens[0], ACTIONS)}")
    status: int = importlib.import_module(ACTIONS[tokens[0]][0]).run(tokens[1:])
    return status
