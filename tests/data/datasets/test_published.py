import pytest

from vitral.cli.main import main
from vitral.config.run import DataSettings
from vitral.data.dataset import open_dataset
from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    NamedDataset,
    Part,
    Published,
    check_counts,
)
from vitral.data.datasets.table import DATASETS, TASKS
from vitral.data.sources.store import FolderStore
from vitral.errors import DataError

FILES = (File("a.tar", "https://a", "aa", unpacked="inner/a"), File("b.mat", "https://b"))


def test_files_are_found_in_the_folder_or_in_the_sets_own(tmp_path, fill, pack):
    pack(tmp_path / "a.tar", {"inner/a/1.txt": b"one"})
    fill(tmp_path / "set", {"b.mat": b"b"})
    place = DatasetFiles(tmp_path, "set", FILES)
    place.check()
    assert place.path("b.mat") == tmp_path / "set" / "b.mat"
    assert [file.name for file, _ in place.archives()] == ["a.tar", "b.mat"]
    assert place.members("a.tar").read("inner/a/1.txt") == b"one"


def test_an_unpacked_folder_has_the_names_of_its_archive(tmp_path, fill):
    fill(tmp_path / "set", {"inner/a/1.txt": b"one\n\n two \n", "b.mat": b""})
    place = DatasetFiles(tmp_path, "set", FILES)
    members = place.members("a.tar")
    assert list(members.store.names) == ["inner/a/1.txt"]
    assert members.lines("inner/a/1.txt") == ["one", "two"]
    assert "inner/a/1.txt" in members
    assert [file.name for file, _ in place.archives()] == ["b.mat"]
    with pytest.raises(DataError, match="has no 2.txt: it is not what the publisher distributes"):
        members.read("2.txt")


def published(tmp_path, fill, *, count=3):
    names = [f"{n}.png" for n in range(count)]
    fill(tmp_path, names)
    part = Part(FolderStore(tmp_path, names), ["a", "b", "a"][:count], names)
    return Published(("a", "b"), {"train": part})


def test_what_is_not_as_published_is_told(tmp_path, fill):
    dataset = NamedDataset("X", (), None, 2, {"train": 3}, "https://x", "none")
    found = published(tmp_path, fill)
    assert check_counts("x", dataset, found) == []
    other = NamedDataset("X", (), None, 4, {"train": 3000, "test": 5}, "https://x", "none")
    assert check_counts("x", other, found) == [
        "x has 2 classes here, 4 as published",
        "x has 3 train images here, 3,000 as published",
        "x has 0 test images here, 5 as published",
    ]


def test_a_set_by_name_says_its_source_and_licence_and_what_is_missing(tmp_path, fill):
    names = [f"Abyssinian_{n}" for n in range(3)] + [f"beagle_{n}" for n in range(3)]
    rows = [f"{name} {1 + name.startswith('b')} 1 1" for name in names]
    fill(tmp_path / "pets", [f"images/{name}.jpg" for name in names])
    fill(
        tmp_path / "pets",
        {
            "annotations/trainval.txt": "\n".join(rows[:2] + rows[3:5]).encode(),
            "annotations/test.txt": "\n".join([rows[2], rows[5]]).encode(),
        },
    )
    settings = DataSettings(source="", directory=str(tmp_path), validation_share=0.0)
    data = open_dataset("pets", settings=settings)
    assert data.classes == ("Abyssinian", "beagle")
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 4, "test": 2}
    assert data.notes[0] == (
        "Oxford-IIIT Pets, from https://www.robots.ox.ac.uk/~vgg/data/pets/; licence: CC BY-SA 4.0"
    )
    assert "warning: pets has 2 classes here, 37 as published" in data.notes
    assert "warning: pets has 4 train images here, 3,680 as published" in data.notes


def test_a_check_compares_downloaded_files_with_their_publishers(tmp_path, pack, capsys):
    names = {f"images/{kind}_{n}.jpg": b"" for kind in ("Abyssinian", "beagle") for n in range(2)}
    rows = b"Abyssinian_0 1 1 1\nbeagle_0 2 2 1"
    pack(tmp_path / "images.tar.gz", names)
    lists = {"annotations/trainval.txt": rows, "annotations/test.txt": rows}
    pack(tmp_path / "annotations.tar.gz", lists)
    assert main(["data", "check", "pets", "--data-dir", str(tmp_path), "--all"]) == 3
    output = capsys.readouterr().out
    assert "images.tar.gz has the SHA-256 " in output
    assert "that of its publisher is 67195c5e1c01f1ab" in output
    assert "pets has 2 train images here, 3,680 as published" in output


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_of_the_table_is_filled(name):
    row = DATASETS[name]
    assert row.title
    assert row.licence
    assert row.source.startswith("http")
    assert row.num_classes > 1
    assert set(row.splits.values()) <= set(row.counts)
    assert all(file.source.startswith("http") for file in row.files)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_the_table_is_filled(name):
    row = TASKS[name]
    assert row.group in ("natural", "specialized", "structured")
    assert row.tree
    assert all(0 <= first < end <= 100 for _, first, end in (row.train, row.validation, row.test))
    for file in row.files:
        assert len(file.sha256) in (0, 64)
