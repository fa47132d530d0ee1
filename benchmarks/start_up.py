"""Compare the time of `vitral --help` with an empty Python, as whole processes.

python benchmarks/start_up.py [--rounds 15]
"""

import subprocess
import sys

import torch
from interleave import compare, options, record


def main() -> None:
    """Measure and record."""
    args = options(__doc__).parse_args()

    def run(*tokens: str) -> None:
        subprocess.run([sys.executable, *tokens], check=True, capture_output=True)

    measured = compare(
        lambda: run("-m", "vitral", "--help"),
        lambda: run("-c", "pass"),
        rounds=args.rounds,
        device=torch.device("cpu"),
    )
    rows = [{"what": "vitral --help (ours) beside python -c pass", **measured}]
    record("start_up", rows, args=args)


if __name__ == "__main__":
    main()
