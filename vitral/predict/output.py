"""Output of predictions as a table, CSV, JSON lines or Parquet."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from vitral.data.file_types import IMAGE_SUFFIXES, START_BYTES, kind_of
from vitral.data.sources.folders import walk_files
from vitral.errors import DataError, RequestError
from vitral.files import atomic
from vitral.predict.predictor import Prediction

FORMATS = ("table", "csv", "jsonl", "parquet")
_ROWS_A_GROUP = 10_000


def find_images(paths: Iterable[str]) -> tuple[list[str], int]:
    """Return the images at paths, in folders recursively, and the number of other files.

    A file that is named itself is always returned: if it is no image, its row has an error.

    Raises:
        RequestError: a path at which nothing is.
    """
    images: list[str] = []
    num_others = 0
    for path in map(Path, paths):
        if not path.exists():
            raise RequestError(f"there is nothing at {path}: give image files or folders")
        if not path.is_dir():
            images.append(str(path))
            continue
        names, _ = walk_files(path)
        image_names = [name for name in names if _is_image(path / name)]
        images += [str(path / name) for name in image_names]
        num_others += len(names) - len(image_names)
    return images, num_others


def list_images(paths: Sequence[str]) -> list[str]:
    """Return the images at paths, and print the number of other files on standard error.

    Raises:
        RequestError: a path at which nothing is.
        DataError: there are no images.
    """
    images, num_others = find_images(paths)
    if num_others:
        what = "file is no image and was" if num_others == 1 else "files are no images and were"
        print(f"{num_others:,} {what} left out", file=sys.stderr)
    if not images:
        raise DataError(f"there are no images in {', '.join(paths)}")
    return images


def write_predictions(
    predictions: Iterable[Prediction], *, format: str, path: Path | None, top: int
) -> None:
    """Write rows one by one to a file or to standard output.

    Args:
        predictions: in input order.
        format: one of FORMATS.
        path: replaced once all rows are written; None: standard output.
        top: number of classes per row in CSV.

    Raises:
        RequestError: Parquet without a file, or without pyarrow.
    """
    if format == "parquet":
        _write_parquet(predictions, path)
        return
    writers = {"table": _table_lines, "csv": _csv_lines, "jsonl": _json_lines}
    with _open_output(path) as file:
        for line in writers[format](predictions, top):
            file.write(line)


def _table_lines(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    for prediction in predictions:
        if prediction.error:
            yield f"{prediction.path}: {prediction.error}\n"
            continue
        named = ", ".join(f"{name} {100 * share:.1f} %" for name, share in prediction.top)
        yield f"{prediction.path}: {named}\n"


def _csv_lines(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    numbered = [f"{key}_{rank}" for rank in range(1, top + 1) for key in ("class", "probability")]
    yield _csv_line(["path", "class", "probability", *numbered, "error"])
    for prediction in predictions:
        ranked = [value for pair in prediction.top for value in pair]
        ranked += [""] * (2 * top - len(ranked))
        first = [prediction.class_name, "" if prediction.error else prediction.probability]
        yield _csv_line([prediction.path, *first, *ranked, prediction.error])


def _csv_line(values: list[Any]) -> str:
    class Line:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    line = Line()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.text


def _json_lines(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    for prediction in predictions:
        yield json.dumps(prediction.as_row(), ensure_ascii=False) + "\n"


def _write_parquet(predictions: Iterable[Prediction], path: Path | None) -> None:
    if path is None:
        raise RequestError("--format parquet needs a file: add --output predictions.parquet")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise RequestError("--format parquet needs pyarrow: pip install 'vitral[arrow]'") from None
    entry = pa.struct([("class", pa.string()), ("probability", pa.float64())])
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("class", pa.string()),
            ("probability", pa.float64()),
            ("top", pa.list_(entry)),
            ("error", pa.string()),
        ]
    )
    aside = path.with_name(f"{atomic.ASIDE_PREFIX}{os.getpid()}-{path.name}")
    try:
        with pq.ParquetWriter(aside, schema) as writer:
            rows: list[dict[str, Any]] = []
            for prediction in predictions:
                rows.append(prediction.as_row())
                if len(rows) == _ROWS_A_GROUP:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_output(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    aside = path.with_name(f"{atomic.ASIDE_PREFIX}{os.getpid()}-{path.name}")
    try:
        with aside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _is_image(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return kind_of(file.read(START_BYTES)) is not None
    except OSError:
        return False
