import tarfile

import pytest
from support import files


@pytest.fixture(scope="session")
def picture():
    return files.picture


@pytest.fixture(scope="session")
def encode():
    return files.encode


@pytest.fixture(scope="session")
def fill():
    return files.fill


@pytest.fixture(scope="session")
def pack():
    return files.pack


@pytest.fixture(scope="session")
def counting():
    return files.CountingStore


@pytest.fixture(scope="session")
def stress(shared):
    """The contents of the odd image files by name."""
    with tarfile.open(shared / "data/stress/images.tar") as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}
