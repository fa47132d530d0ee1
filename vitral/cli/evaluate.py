"""`vitral evaluate`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vitral.cli.options import (
    DATA_DIR_OPTION,
    FROM_FORMAT_OPTION,
    MODEL_OPTION,
    PREPROCESSING_OPTION,
    RESULTS_OPTION,
    Option,
    parse_options,
)

DESCRIPTION = "Score a model on images, every one exactly once."
OPTIONS = (
    MODEL_OPTION,
    Option("data", "as for training", metavar="DATA", required=True),
    DATA_DIR_OPTION,
    Option(
        "--split",
        "train, validation or test; left out: test, or every image where there are no splits",
        metavar="NAME",
    ),
    Option("--batch-size", "images at once; changes no score", metavar="N", type=int, default=64),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME", default="auto"),
    Option("--precision", "float32 unless asked otherwise", metavar="NAME", default="float32"),
    Option("--output", "a CSV with a row an image", metavar="FILE"),
    FROM_FORMAT_OPTION,
    RESULTS_OPTION,
    PREPROCESSING_OPTION,
    Option("--json", "print one JSON object"),
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    args = parse_options("evaluate", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.cli.train import summary_lines
    from vitral.config.settings import parse_preprocessing
    from vitral.errors import RequestError
    from vitral.evaluate.evaluate import evaluate
    from vitral.figures.paper_comparison import paper_cell
    from vitral.files.atomic import write_text
    from vitral.files.results import keep_results, results_path
    from vitral.files.rows import csv_text

    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise RequestError(f"--output {args.output}: there is no such folder")
    result = evaluate(
        args.model,
        args.data,
        directory=args.data_dir,
        split=args.split,
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        format=args.from_format,
        preprocessing=parse_preprocessing(args.set or []),
    )
    if args.output:
        columns = ("path", "label", "class", "probability", "error")
        write_text(Path(args.output), csv_text(result.rows(), columns=columns))
    assert result.row is not None
    keep_results(Path(args.results or results_path()), [result.row])
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps(result.summary, ensure_ascii=False))
    else:
        print("\n".join(summary_lines(result.summary)))
        if published := paper_cell(result.row):
            print(f"paper     {published}")
    return 0
