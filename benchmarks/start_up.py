"""Time of `vitral --help` beside that of an empty Python, as whole processes.

python benchmarks/start_up.py [--rounds 15]
"""

import subprocess
import sys

import torch
from interleave import compare, options, record


def main() -> None:
    """Measure and record."""
    asked = options(__doc__).parse_args()

    def run(*tokens: str) -> None:
        subprocess.run([sys.executable, *tokens], check=True, capture_output=True)

    measured = compare(
        lambda: run("-m", "vitral", "--help"),
        lambda: run("-c", "pass"),
        rounds=asked.rounds,
        device=torch.device("cpu"),
    )
    rows = [{"what": "vitral --help (ours) beside python -c pass", **measured}]
    record("start_up", rows, asked=asked)


if __name__ == "__main__":
    main()
