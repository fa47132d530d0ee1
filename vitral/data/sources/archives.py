"""One archive as a source: class folders, splits of them, a list, or a shard."""

from pathlib import Path

from vitral.data.sources.folders import common_lead, list_class_folders
from vitral.data.sources.listing import SPLIT_NAMES, Listing, Skipped, join_listings
from vitral.data.sources.lists import list_by_file_in
from vitral.data.sources.shards import LABEL_SUFFIX, list_shard
from vitral.data.stores.archives import open_archive
from vitral.data.stores.store import SelectedStore, Store


def list_archive(path: Path, *, label: bool = True) -> Listing:
    """List the examples of a .tar, .tar.gz, .tgz or .zip.

    Args:
        path: of the file.
        label: whether classes are read; without, images at any depth are examples.

    Raises:
        DataError: it is damaged, or a list in it can't be read.
    """
    store, source = open_archive(path), str(path.resolve())
    if listing := list_by_file_in(source, store):
        return listing
    if any(name.endswith(LABEL_SUFFIX) for name in store.names):
        return list_shard(store, source=source, split=None)
    listing = list_splits_in(source, store) if label else None
    return listing or list_class_folders(source, store, [], split=None, label=label)


def list_splits_in(source: str, store: Store) -> Listing | None:
    """List the class folders of each split of a store; None where its folders are no splits."""
    names = [name.split("/") for name in store.names]
    lead = common_lead(names)
    deep = {parts[lead] for parts in names if len(parts) > lead + 2}
    places = {place: SPLIT_NAMES.get(place.lower()) for place in sorted(deep)}
    if len(set(places.values()) - {None}) < 2:
        return None
    owners = [own[lead] if len(own) > lead and own[lead] in places else "" for own in names]
    parts, prefixes = [], []
    for place, split in [*places.items(), ("", None)]:
        inside = [number for number, own in enumerate(owners) if own == place]
        prefix = "/".join([*names[inside[0]][:lead], place]) + "/" if inside and place else ""
        short = [store.names[number].removeprefix(prefix) for number in inside]
        part = SelectedStore(store, inside, names=short)
        listing = list_class_folders(source, part, [], split=split) if split else _left_out(part)
        parts.append(listing)
        prefixes.append(prefix)
    return join_listings(parts, prefixes, source=source)


def _left_out(store: Store) -> Listing:
    skipped = [Skipped(name, "not in a split's folder") for name in store.names]
    return Listing("", SelectedStore(store, []), [], [], skipped)
