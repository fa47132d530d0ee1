"""A data set ready for use: classes, splits and what was left out."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vitral.config.run import DataSettings, RunConfig
from vitral.data.datasets.names import list_data
from vitral.data.decode import channels_of_array
from vitral.data.decoded import DecodedStore, decoded_bytes
from vitral.data.examples import Examples
from vitral.data.levels import Levels, choose_levels
from vitral.data.scan import inspect_file, survey
from vitral.data.sources.listing import (
    READ_HINT,
    FileInfo,
    Listing,
    Skipped,
    class_order,
    group_by_pattern,
    is_multi_label,
    label_text,
    names_in,
    number_labels,
)
from vitral.data.sources.store import Store
from vitral.data.splits import (
    describe_splits,
    file_shares,
    file_splits,
    group_shares,
    hold_out_by_hash,
    other_shares,
)
from vitral.errors import DataError

FILE_CHANNELS = 3
_SAMPLE = 256
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ImageDataset:
    """A data set: classes in order, splits, and every file that is not used with its reason."""

    listing: Listing
    """What the source states about its files."""
    source: str
    classes: tuple[str, ...]
    splits: dict[str, Examples]
    skipped: list[Skipped]
    """Left out because of their kind or location."""
    unreadable: list[tuple[str, Skipped]]
    """Damaged images, with their splits."""
    channels: int
    """Channels that the images are decoded to."""
    file_infos: list[FileInfo]
    """What the survey found, by index in the store."""
    has_own_splits: bool
    declared_splits: np.ndarray
    """The split of each file in the store before some were held out for validation."""
    notes: list[str] = field(default_factory=list)

    def everything(self) -> Examples:
        """Return the examples of all splits as one."""
        store = next(iter(self.splits.values())).store
        parts = list(self.splits.values())
        return Examples(
            store,
            np.concatenate([part.file_ids for part in parts]),
            np.concatenate([part.labels for part in parts]),
            self.file_infos,
            self.listing.targets,
        )

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return is_multi_label(next(iter(self.splits.values())).labels)

    def decoded_bytes(self) -> int | None:
        """Return the bytes that the files of all splits take decoded; None: not known."""
        used = (
            self.file_infos[file_id]
            for part in self.splits.values()
            for file_id in part.file_ids.tolist()
        )
        return decoded_bytes(used, channels=self.channels)

    def keeping_decoded(self) -> "ImageDataset":
        """Return the same data, whose images are decoded once and kept in memory."""
        store = DecodedStore(self.listing.store, channels=self.channels)
        splits = {split: replace(part, store=store) for split, part in self.splits.items()}
        return replace(self, splits=splits)

    def problems(self, split: str) -> list[Skipped]:
        """Return the damaged images of a split."""
        return [item for item_split, item in self.unreadable if item_split == split]

    def levels(self) -> Levels | None:
        """Return the black and white values of training images of more than eight bits.

        Where files were not surveyed, a sample of them is read. None: there are no such images.
        """
        train = self.splits.get("train")
        file_infos = (
            [self.file_infos[file_id] for file_id in train.file_ids.tolist()] if train else []
        )
        if train and not any(file_info.height for file_info in file_infos):
            spread = np.linspace(0, len(train) - 1, min(_SAMPLE, len(train))).astype(int)
            file_ids = train.file_ids[spread].tolist()
            file_infos = [
                inspect_file(train.store, file_id, channels=self.channels) for file_id in file_ids
            ]
        deep = [file_info for file_info in file_infos if file_info.is_deep]
        if not deep:
            return None
        return choose_levels(
            min(file_info.lowest for file_info in deep),
            max(file_info.highest for file_info in deep),
            whole=all(file_info.depth != "float32" for file_info in deep),
        )

    def fingerprint(self) -> str:
        """Return a hash of all used examples: contents, class names, splits; in any order."""
        splits = self.declared_splits
        used = (
            f"{splits[file_id] if self.has_own_splits else ''} {label_text(label, self.classes)} "
            f"{self.file_infos[file_id].digest or part.store.names[file_id]}"
            + "".join(f" {targets.digest(file_id)}" for targets in part.targets.values())
            for part in self.splits.values()
            for file_id, label in zip(part.file_ids.tolist(), part.labels, strict=True)
        )
        return hashlib.sha256("\n".join(sorted(used)).encode()).hexdigest()[:32]


def open_dataset(
    data: Any,
    *,
    channels: int | None = None,
    classes: tuple[str, ...] | None = None,
    settings: DataSettings | None = None,
    report_progress: Callable[[int, int], None] | None = None,
    label: bool = True,
    targets: Sequence[str] = (),
) -> ImageDataset:
    """Open a data set and survey its files.

    Args:
        data: a path, the name of a data set, or a sized object with [i] -> (image, label).
        channels: of the model; None: those of arrays, 3 for files.
        classes: of a model, in order, that the labels must be mapped to; None: those of the data.
        settings: how to split what is not split; None: no training images are held out for
            validation.
        report_progress: called with the number of files done and of all.
        label: whether classes are read; if not, data without classes can be opened, and the classes
            of other data are ignored.
        targets: kinds of target to read besides, of `data.needs.TARGETS`.

    Raises:
        RequestError: nothing is there.
        DataError: the contents can't be used.
    """
    settings = settings or DataSettings(source="", validation_share=0.0)
    listing = list_data(data, directory=settings.directory or None, label=label, targets=targets)
    listing = group_by_pattern(listing, settings.group_pattern or None)
    classes = _in_standard_order(listing, classes)
    channels = channels or native_channels(listing.store)
    file_infos = survey(listing, channels=channels, report_progress=report_progress)
    usable = np.array([not file_info.problem for file_info in file_infos], bool)
    if not usable.any():
        raise _no_images(listing, file_infos)
    notes = [*listing.notes, *(f"warning: {complaint}" for complaint in listing.complaints)]
    used = names_in(itertools.compress(listing.labels, usable))
    known = classes or listing.classes or tuple(sorted(used, key=class_order))
    _check_known(used, known, is_models=classes is not None, source=listing.source)
    labels = number_labels(listing.labels, known) if label else np.full(len(file_infos), -1)
    shares = file_shares(listing, file_infos)
    splits = file_splits(listing, shares, labels, usable, settings)
    notes += filter(None, [describe_splits(listing, settings)])
    declared_splits = splits.copy()
    inside = usable & (splits == "train")
    share = settings.validation_share
    if share and inside.any() and "validation" not in splits:
        # Where there are too many files to read, only their names are known.
        fractions = group_shares(listing.store.names) if shares is None else shares
        # Folds are contiguous in the order by hash.
        fractions = other_shares(fractions) if settings.folds else fractions
        held_out = hold_out_by_hash(
            fractions[inside], labels[inside], share=share, grouped=bool(listing.groups)
        )
        splits[np.flatnonzero(inside)[held_out]] = "validation"
        notes.append(
            f"{held_out.sum():,} training images were held out for validation by "
            f"{'group' if listing.groups else 'name' if shares is None else 'content hash'}"
        )
    if label and classes is None and (splits == "train").any():
        known, labels = _classes_of_training(listing, splits, labels, usable, notes, known=known)
    return ImageDataset(
        listing=listing,
        source=listing.source,
        classes=known,
        splits={
            split: Examples(listing.store, file_ids, labels[file_ids], file_infos, listing.targets)
            for split in SPLITS
            if len(file_ids := np.flatnonzero(usable & (splits == split)))
        },
        skipped=listing.skipped + list(_unsupported(listing, file_infos)),
        unreadable=[
            (str(splits[file_id]), Skipped(listing.store.names[file_id], file_info.problem))
            for file_id, file_info in enumerate(file_infos)
            if file_info.damaged
        ],
        channels=channels,
        file_infos=file_infos,
        has_own_splits=listing.is_split,
        declared_splits=declared_splits,
        notes=notes,
    )


def native_channels(store: Store) -> int:
    """Return the channels of arrays; files are read as RGB."""
    if len(store.names):
        try:
            content = store.read(0)
        except (OSError, DataError):
            return FILE_CHANNELS
        if isinstance(content, np.ndarray):
            return int(content.shape[2])
        return channels_of_array(content) or FILE_CHANNELS
    return FILE_CHANNELS


def _classes_of_training(
    listing: Listing,
    splits: np.ndarray,
    labels: np.ndarray,
    usable: np.ndarray,
    notes: list[str],
    *,
    known: tuple[str, ...],
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes that the training split has, and the labels in their order.

    Raises:
        DataError: another split has a class that the training split lacks, or there is one class
            only.
    """
    present = {
        split: names_in(itertools.compress(listing.labels, usable & (splits == split)))
        for split in SPLITS
    }
    for split in ("validation", "test"):
        unknown = sorted(present[split] - present["train"], key=class_order)
        if unknown and not listing.classes:
            raise DataError(
                f"the {split} split has class {unknown[0]!r}, which the training split does not "
                "have: "
                "add training images of it, or take it out"
            )
        if unknown:
            notes.append(f"the {split} split has {_listed(unknown)}, which are never trained on")
        missing = sorted(present["train"] - present[split], key=class_order)
        if present[split] and missing:
            notes.append(f"the {split} split has no images of {_listed(missing)}")
    _check_class_count(listing, present["train"])
    if listing.classes:
        empty = [name for name in listing.classes if name not in present["train"]]
        if empty:
            notes.append(f"no training images of {_listed(empty)}")
        return listing.classes, labels
    ordered = tuple(sorted(present["train"], key=class_order))
    lost = sorted(names_in(listing.labels) - set(ordered), key=class_order)
    if lost:
        notes.append(f"no usable images of {_listed(lost)}: left out of the classes")
    return ordered, labels if ordered == known else number_labels(listing.labels, ordered)


def _in_standard_order(listing: Listing, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return a model's classes, with a published set's names where only positions identify them."""
    if classes is None or listing.classes is None or len(classes) != len(listing.classes):
        return classes
    is_nameless = classes == tuple(map(str, range(len(classes))))
    has_same_names = set(classes) == set(listing.classes)
    by_position = (listing.in_standard_order or is_nameless) and not has_same_names
    return listing.classes if by_position else classes


def _check_class_count(listing: Listing, names: set[str]) -> None:
    if listing.is_multi_label and not names:
        raise DataError(f"{listing.source} has no training image with a label")
    if not listing.is_multi_label and len(names) < 2:
        raise DataError(
            f"{listing.source} has one class only, {next(iter(names))!r}: "
            "a classifier needs two, each in a folder of its own"
        )


def _check_known(names: set[str], known: tuple[str, ...], *, is_models: bool, source: str) -> None:
    unknown = sorted(names - set(known), key=class_order)
    if unknown:
        owner = "the model" if is_models else f"the class list of {source}"
        raise DataError(f"{source} has class {unknown[0]!r}, which {owner} does not know")


def _unsupported(listing: Listing, file_infos: Sequence[FileInfo]) -> Iterator[Skipped]:
    for name, file_info in zip(listing.store.names, file_infos, strict=True):
        if file_info.problem and not file_info.damaged:
            yield Skipped(name, file_info.problem)


def _no_images(listing: Listing, file_infos: list[FileInfo]) -> DataError:
    reasons = Counter(file_info.problem for file_info in file_infos if file_info.problem)
    reasons.update(item.reason for item in listing.skipped)
    found = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3))
    return DataError(
        f"{listing.source} has no images that can be used ({found or 'it is empty'}): {READ_HINT}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def check_unreadable(data: ImageDataset, *, config: RunConfig, found_later: int = 0) -> None:
    """Stop a run on data with too many damaged training images.

    Raises:
        DataError: more than one, and more than the share `data.max_unreadable`.
    """
    damaged = data.problems("train")
    bad = len(damaged) + found_later
    total = len(data.splits["train"]) + len(damaged)
    if bad > 1 and bad > config.data.max_unreadable * total:
        example = f", such as {damaged[0].name} ({damaged[0].reason})" if damaged else ""
        raise DataError(
            f"{bad:,} of {total:,} training images can't be read{example}: repair or remove them, "
            "or "
            "raise data.max_unreadable"
        )
