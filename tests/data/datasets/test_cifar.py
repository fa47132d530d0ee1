import numpy as np
import pytest

from vitral.data.datasets.cifar import read_cifar10, read_cifar100
from vitral.data.datasets.published import class_names
from vitral.data.datasets.table import DATASETS
from vitral.errors import DataError

READERS = {"cifar10": read_cifar10, "cifar100": read_cifar100}


def names_file(name):
    return ("\n".join(class_names(name)) + "\n\n").encode()


@pytest.fixture
def images(random):
    """Images (12, 32, 32, 3) and their labels."""
    return random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), np.arange(12) * 7 % 10


def records(images, labels, *, coarse=False):
    """The publisher's records: class bytes, then the red, green and blue planes."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    heads = [bytes([99, label]) if coarse else bytes([label]) for label in labels.tolist()]
    return b"".join(head + pixels.tobytes() for head, pixels in zip(heads, planes, strict=True))


def cifar10_files(images, labels):
    folder = "cifar-10-batches-bin"
    parts = {
        f"{folder}/data_batch_{n // 2 + 1}.bin": records(images[n : n + 2], labels[n : n + 2])
        for n in range(0, 10, 2)
    }
    return parts | {
        f"{folder}/test_batch.bin": records(images[10:], labels[10:]),
        f"{folder}/batches.meta.txt": names_file("cifar10"),
    }


def cifar100_files(images, labels):
    folder = "cifar-100-binary"
    return {
        f"{folder}/train.bin": records(images[:10], labels[:10], coarse=True),
        f"{folder}/test.bin": records(images[10:], labels[10:], coarse=True),
        f"{folder}/fine_label_names.txt": names_file("cifar100"),
        f"{folder}/coarse_label_names.txt": b"x\n",
    }


FILES = {"cifar10": cifar10_files, "cifar100": cifar100_files}


@pytest.mark.parametrize("form", ["archive", "folder", "own folder"])
@pytest.mark.parametrize("name", READERS)
def test_the_binary_version_is_read(tmp_path, fill, pack, place_of, images, name, form):
    dataset, contents = DATASETS[name], FILES[name](*images)
    if form == "archive":
        pack(tmp_path / dataset.files[0].name, contents)
    else:
        fill(tmp_path / ("set" if form == "own folder" else ""), contents)
    published = READERS[name](place_of(dataset))
    assert published.classes == class_names(name)
    pixels, labels = images
    for split, inside in (("train", slice(10)), ("test", slice(10, 12))):
        part = published.parts[split]
        assert part.labels == [published.classes[label] for label in labels[inside]]
        assert part.keys == [str(n) for n in range(len(labels[inside]))]
        read = [part.store.read(n) for n in range(len(part.keys))]
        np.testing.assert_array_equal(np.stack(read), pixels[inside])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "is cut short: a record has 3,073"),
        (lambda content: bytes([10]) + content[1:], "class 10 of 10 in .*test_batch.bin"),
        (None, "has no cifar-10-batches-bin/test_batch.bin: it is not what the publisher"),
    ],
)
def test_damage_is_an_error(tmp_path, fill, place_of, images, change, message):
    contents = cifar10_files(*images)
    name = "cifar-10-batches-bin/test_batch.bin"
    content = contents.pop(name)
    fill(tmp_path, contents | ({name: change(content)} if change else {}))
    with pytest.raises(DataError, match=message):
        read_cifar10(place_of(DATASETS["cifar10"]))
