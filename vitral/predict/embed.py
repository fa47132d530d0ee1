"""Features of images (the input of a model's head), written batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitral.errors import RequestError
from vitral.evaluate.features import check_finite
from vitral.files.atomic import new_file
from vitral.files.optional import import_pyarrow
from vitral.predict.runner import ModelRunner, check_batch_size, image_names

ENDINGS = (".npz", ".parquet")
_ROWS_A_GROUP = 4096


@dataclass(frozen=True)
class Embedded:
    """The features of some images, in input order."""

    paths: list[str]
    """Paths of files; for arrays their index in the input."""
    features: np.ndarray
    """(N, D) float32; NaN for an image that could not be read."""
    errors: list[str]
    """Why an image could not be read; empty when it could."""


def embed(
    runner: ModelRunner, images: Sequence[Any], *, batch_size: int = 64
) -> Iterator[Embedded]:
    """Yield the features of images batch by batch; memory use is independent of their number.

    Args:
        runner: runner of any model, with or without a head.
        images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
        batch_size: images per batch.

    Raises:
        RequestError: a bad batch size.
        ModelFileError: the model's features are not finite.
    """
    check_batch_size(batch_size)
    names = image_names(images)
    errors: dict[int, str] = {}
    backend = runner.backend(runner.model.features)
    outputs = runner.outputs(backend, images, batch_size=batch_size, errors=errors)
    for loaded, features in outputs:
        indices, valid = loaded["index"].tolist(), loaded["valid"].numpy()
        paths = [names[index] for index in indices]
        values = np.where(valid[:, None], features.numpy(), np.float32(0))
        check_finite(values, paths)
        values[~valid] = np.nan
        yield Embedded(paths, values, [errors.pop(index, "") for index in indices])


def check_output(path: Path) -> None:
    """Check that features can be written to a file, before anything is computed.

    Raises:
        RequestError: another ending, no such folder, or Parquet without pyarrow.
    """
    if path.suffix not in ENDINGS:
        raise RequestError(f"--output {path} ends in neither of {', '.join(ENDINGS)}: use one")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"--output {path}: there is no such folder")
    if path.suffix == ".parquet":
        import_pyarrow()


def write_features(batches: Iterable[Embedded], path: Path, *, dimension: int) -> None:
    """Write features to a file, which gets its name once complete.

    An `.npz` holds `paths`, `features` and `errors`, which are all collected in memory first. A
    `.parquet` has the columns `path`, `features` and `error`, written in groups of rows.

    Args:
        batches: in order, at least one.
        path: replaced if it exists; its suffix chooses the format.
        dimension: D.
    """
    with new_file(path) as aside:
        if path.suffix == ".parquet":
            _write_parquet(batches, aside, dimension=dimension)
        else:
            _write_npz(batches, aside)


def _write_npz(batches: Iterable[Embedded], path: Path) -> None:
    whole = list(batches)
    with path.open("wb") as file:
        np.savez(
            file,
            paths=np.array([name for part in whole for name in part.paths], np.str_),
            features=np.concatenate([part.features for part in whole]),
            errors=np.array([error for part in whole for error in part.errors], np.str_),
        )


def _write_parquet(batches: Iterable[Embedded], path: Path, *, dimension: int) -> None:
    pa, pq = import_pyarrow(), import_pyarrow("pyarrow.parquet")
    vector = pa.list_(pa.float32(), dimension)
    schema = pa.schema([("path", pa.string()), ("features", vector), ("error", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _in_groups(batches):
            values = pa.array(rows.features.ravel())
            columns = [
                pa.array(map(_valid_text, rows.paths), pa.string()),
                pa.FixedSizeListArray.from_arrays(values, dimension),
                pa.array(rows.errors, pa.string()),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _in_groups(batches: Iterable[Embedded]) -> Iterator[Embedded]:
    """Yield the same rows in groups of at least _ROWS_A_GROUP, except for the last."""
    pending: list[Embedded] = []
    for batch in batches:
        pending.append(batch)
        if sum(len(part.paths) for part in pending) >= _ROWS_A_GROUP:
            yield _joined(pending)
            pending = []
    if pending:
        yield _joined(pending)


def _joined(parts: Sequence[Embedded]) -> Embedded:
    return Embedded(
        [path for part in parts for path in part.paths],
        np.concatenate([part.features for part in parts]),
        [error for part in parts for error in part.errors],
    )


def _valid_text(path: str) -> str:
    """Return a path as valid Unicode: the name of a file may hold lone surrogates."""
    return path.encode(errors="backslashreplace").decode()
