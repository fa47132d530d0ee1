import pytest

from vitral.data.datasets.published import class_names
from vitral.data.datasets.scenes import read_eurosat, read_resisc45
from vitral.data.datasets.table import TASKS
from vitral.errors import DataError

NWPU = "NWPU-RESISC45"
SETS = {
    "eurosat": (read_eurosat, "EuroSAT.zip", "2750", "{0}_{1}.jpg"),
    "resisc45": (read_resisc45, f"{NWPU}.zip", NWPU, "{0}_{1:03}.jpg"),
}


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize("name", SETS)
def test_class_folders_are_read(tmp_path, fill, pack, place_of, name, form):
    read, archive, folder, pattern = SETS[name]
    names = class_names(name)
    files = [f"{folder}/{label}/{pattern.format(label, n)}" for label in names for n in (1, 2)]
    contents = {file: file.encode() for file in files} | {f"{folder}/readme.txt": b"stray"}
    if form == "archive":
        pack(tmp_path / archive, contents)
    else:
        fill(tmp_path, contents)
    published = read(place_of(TASKS[name]))
    assert published.classes == names
    part = published.parts["train"]
    assert part.labels == [label for label in names for _ in (1, 2)]
    assert part.keys[0] == f"{names[0]}_{pattern.format(names[0], 1)}"
    assert part.store.read(3) == files[3].encode()


def test_another_archive_of_that_name_is_an_error(tmp_path, pack, place_of):
    pack(tmp_path / "EuroSAT.zip", {"other/a/1.jpg": b"x"})
    with pytest.raises(DataError, match="has no images in 2750/CLASS/"):
        read_eurosat(place_of(TASKS["eurosat"]))
