"""A listing as plain data, for tests of sources."""


def used(listing):
    """The class of every used file."""
    return dict(zip(listing.store.names, listing.labels, strict=True))


def splits(listing):
    return dict(zip(listing.store.names, listing.splits, strict=True))


def skipped(listing):
    """The reason for every skipped file."""
    return {item.name: item.reason for item in listing.skipped}
