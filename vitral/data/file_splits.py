"""The split of every file of a source: its own, or by hash of group or content."""

from collections.abc import Sequence

import numpy as np

from vitral.data.finding import Finding
from vitral.data.sources.listing import Listing
from vitral.data.split import (
    group_shares,
    hash_shares,
    split_by_hash,
    split_by_shares,
    stratified_folds,
)
from vitral.data.survey import MAX_FILES_READ
from vitral.errors import DataError, RequestError
from vitral.spec.run import DataSettings


def file_shares(listing: Listing, findings: Sequence[Finding]) -> np.ndarray | None:
    """Return by what examples are split: their group's hash, or their content's; None: not known.

    An unreadable file has a hash too, so that the split of its row does not depend on its repair.
    """
    if listing.groups is not None:
        return group_shares(listing.groups)
    digests = [finding.digest for finding in findings]
    return hash_shares([digest or "0" for digest in digests]) if any(digests) else None


def file_splits(
    listing: Listing,
    shares: np.ndarray | None,
    labels: np.ndarray,
    usable: np.ndarray,
    settings: DataSettings,
) -> np.ndarray:
    """Return the split (N,) of every file: the source's own, or by hash.

    Args:
        listing: of N files.
        shares: from `file_shares`.
        labels: of all files, as numbers.
        usable: (N,) bool.
        settings: `folds` and `fold`.

    Raises:
        RequestError: folds of data that has splits.
        DataError: there are neither splits nor hashes.
    """
    if listing.is_split:
        if settings.folds:
            raise RequestError(
                f"folds={settings.folds}: {listing.source} has splits of its own, which folds "
                "would mix: give the part that shall be divided"
            )
        return np.array([str(split) for split in listing.splits], "<U10")
    if shares is None:
        raise DataError(
            f"{listing.source} has {len(listing.labels):,} files and no splits: above "
            f"{MAX_FILES_READ:,} they are not read to be split by content, put them into train/, "
            "validation/ and test/"
        )
    splits = split_by_shares(shares)
    if settings.folds:
        folds = stratified_folds(shares[usable], labels[usable], folds=settings.folds)
        splits[usable] = np.where(folds == settings.fold, "test", "train")
        return splits
    splits[usable] = split_by_hash(shares[usable], labels[usable], grouped=bool(listing.groups))
    return splits


def describe_splits(listing: Listing, settings: DataSettings) -> str | None:
    """Say how the files were split; None where the source says it itself."""
    if listing.is_split:
        return None
    by = "group" if listing.groups else "content hash"
    if settings.folds:
        return (
            f"split by {by} into {settings.folds} folds, of which fold {settings.fold} is the test"
        )
    return f"split by {by}: 80 % train, 10 % validation, 10 % test"
