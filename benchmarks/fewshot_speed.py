"""Compare few-shot least squares with scikit-learn's Ridge on the same features.

python benchmarks/fewshot_speed.py [--rounds 15] [--cases 3]

From float32 features to predictions: both standardise by the support set, and solve in float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
import torch
from interleave import compare, options, record
from sklearn.linear_model import Ridge

from vitral.evaluate.ridge import CONSTANT_FEATURE, L2, STD_OFFSET, fewshot

CASES = [(100, 5, 768, 5_000), (1_000, 1, 2_048, 5_000), (1_000, 10, 1_024, 50_000)]
"""Classes, shots, dimensions, test rows; the quickest first."""
MIN_AGREEMENT = 0.9999
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def features(classes: int, shots: int, width: int, rows: int) -> Arrays:
    """Return the support and test rows of classes that overlap."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, width)).astype(np.float32)
    parts: list[np.ndarray] = []
    for labels in (np.repeat(np.arange(classes), shots), generator.integers(0, classes, rows)):
        noise = generator.standard_normal((len(labels), width), dtype=np.float32)
        parts += [centres[labels] + 4 * noise, labels]
    return parts[0], parts[1], parts[2], parts[3]


def ridge(arrays: Arrays, classes: int) -> Callable[[], np.ndarray]:
    """Return the same protocol implemented with scikit-learn."""

    def predict() -> np.ndarray:
        support, labels, test, _ = (array.astype(np.float64) for array in arrays)
        mean, std = support.mean(axis=0), support.std(axis=0) + STD_OFFSET
        rows, test_rows = (
            np.column_stack([(part - mean) / std, np.full(len(part), CONSTANT_FEATURE)])
            for part in (support, test)
        )
        targets = 2.0 * np.eye(classes)[labels.astype(int)] - 1
        model = Ridge(alpha=L2, fit_intercept=False).fit(rows, targets)
        return model.predict(test_rows).argmax(axis=1)

    return predict


def main() -> None:
    """Measure and record."""
    parser = options(__doc__)
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many, quickest first")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for classes, shots, width, test_rows in CASES[: args.cases]:
        arrays = features(classes, shots, width, test_rows)
        theirs = ridge(arrays, classes)

        def ours(arrays: Arrays = arrays) -> np.ndarray:
            return fewshot(*arrays).predictions

        agreement = float((ours() == theirs()).mean())
        assert agreement >= MIN_AGREEMENT, f"predictions agree on {agreement} of the rows only"
        measured = compare(ours, theirs, rounds=args.rounds, device=torch.device("cpu"))
        facts = {"classes": classes, "shots": shots, "width": width, "test_rows": test_rows}
        rows.append({**facts, "agreement": agreement, **measured})
    record("fewshot_speed", rows, args=args, sklearn=sklearn.__version__)


if __name__ == "__main__":
    main()
