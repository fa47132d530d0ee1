import io
import tarfile

import numpy as np
import pytest
import scipy.io

from vitral.data.datasets.published import DatasetFiles


@pytest.fixture
def place_of(tmp_path):
    """A function that gives the place of a data set's files below `tmp_path`, checked."""

    def give(dataset, name="set"):
        place = DatasetFiles(tmp_path, name, dataset.files)
        place.check()
        return place

    return give


@pytest.fixture
def mat():
    """A function that gives the bytes of a MATLAB file."""

    def give(**variables):
        file = io.BytesIO()
        scipy.io.savemat(file, variables, do_compression=True)
        return file.getvalue()

    return give


@pytest.fixture
def read_part():
    """A function that gives the images of a part, decoded, by their names."""

    def give(part):
        return [part.store.read(number) for number in range(len(part.store.names))]

    return give


@pytest.fixture
def tar_bytes():
    """A function that gives the bytes of a tar of files."""

    def give(contents):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return file.getvalue()

    return give


@pytest.fixture
def random():
    return np.random.default_rng(0)
