"""The features of images, what a model's head reads, written as they come."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitral.errors import RequestError
from vitral.evaluate.features import check_finite
from vitral.files.atomic import new_file
from vitral.files.optional import import_pyarrow
from vitral.predict.runner import ModelRunner, check_batch_size, given_names

ENDINGS = (".npz", ".parquet")
_ROWS_A_GROUP = 4096


@dataclass(frozen=True)
class Embedded:
    """The features of some images, in input order."""

    paths: list[str]
    """The files, or the places in the input for arrays."""
    features: np.ndarray
    """(N, D) float32; NaN for an image that could not be read."""
    errors: list[str]
    """Why an image could not be read; empty when it could."""


def embed(
    prepared: ModelRunner, images: Sequence[Any], *, batch_size: int = 64
) -> Iterator[Embedded]:
    """Give the features of images, batch by batch; memory does not grow with their number.

    Args:
        prepared: of any model, with a head or without.
        images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
        batch_size: images at once.

    Raises:
        RequestError: a bad batch size.
        ModelFileError: the model gives features that are not finite.
    """
    check_batch_size(batch_size)
    names = given_names(images)
    errors: dict[int, str] = {}
    backend = prepared.backend(prepared.model.features)
    outputs = prepared.outputs(backend, images, batch_size=batch_size, errors=errors)
    for loaded, features in outputs:
        places, valid = loaded["index"].tolist(), loaded["valid"].numpy()
        paths = [names[place] for place in places]
        values = np.where(valid[:, None], features.numpy(), np.float32(0))
        check_finite(values, paths)
        values[~valid] = np.nan
        yield Embedded(paths, values, [errors.pop(place, "") for place in places])


def check_output(path: Path) -> None:
    """Make sure that features can be written to a file, before anything is computed.

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
    """Write features to a file that gets its name when all of them are there.

    An `.npz` holds `paths`, `features` and `errors`, and all of it is in memory before; a
    `.parquet` has the columns `path`, `features` and `error`, written in groups of rows.

    Args:
        batches: in order, at least one.
        path: replaced; its ending chooses the form.
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
            paths=np.array([own for part in whole for own in part.paths], np.str_),
            features=np.concatenate([part.features for part in whole]),
            errors=np.array([own for part in whole for own in part.errors], np.str_),
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
    """Give the same rows, at least _ROWS_A_GROUP at once but for the last."""
    waiting: list[Embedded] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(own.paths) for own in waiting) >= _ROWS_A_GROUP:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Embedded]) -> Embedded:
    return Embedded(
        [own for part in parts for own in part.paths],
        np.concatenate([part.features for part in parts]),
        [own for part in parts for own in part.errors],
    )


def _valid_text(path: str) -> str:
    """Return a path as Unicode: a file's name may be none, and holds lone surrogates then."""
    return path.encode(errors="backslashreplace").decode()
