"""Every form of a source, through the one function that finds it."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.listings import skipped, splits, used

from vitral.data.dataset import open_dataset
from vitral.data.sources.find import list_source
from vitral.errors import DataError, RequestError

SPLITS = {"train": 8, "val": 4, "test": 4}


@pytest.fixture(scope="module")
def examples(picture, encode):
    """Rows of path, label, split and content: two classes in each of three splits."""
    rows = []
    for split, count in SPLITS.items():
        for number in range(count):
            label = "cat" if number % 2 else "dog"
            path = f"{split}/{label}/{number}.png"
            content = encode(picture(list(path.encode()), size=(8, 9)))
            rows.append({"path": path, "label": label, "split": split, "content": content})
    return rows


def as_folder(root, rows, fill, pack):
    return fill(root / "data", {row["path"]: row["content"] for row in rows})


def as_archive(name):
    def write(root, rows, fill, pack):
        return pack(root / name, {f"data/{row['path']}": row["content"] for row in rows})

    return write


def as_list(suffix):
    def write(root, rows, fill, pack):
        fill(root, {row["path"]: row["content"] for row in rows})
        return write_list(root / f"own{suffix}", rows)

    return write


def as_folder_with_list(root, rows, fill, pack):
    fill(root / "data", {row["path"].replace("/", "-"): row["content"] for row in rows})
    flat = [row | {"path": row["path"].replace("/", "-")} for row in rows]
    write_list(root / "data" / "metadata.csv", flat)
    return root / "data"


def as_archive_with_list(name):
    def write(root, rows, fill, pack):
        path = write_list(root / "labels.jsonl", rows)
        files = {f"all/{row['path']}": row["content"] for row in rows}
        return pack(root / name, files | {"all/labels.jsonl": path.read_bytes()})

    return write


def as_shards(how, *, suffix=".tar"):
    def write(root, rows, fill, pack):
        (root / "shards").mkdir()
        for split in SPLITS:
            split_rows = [row for row in rows if row["split"] == split]
            for shard, part in enumerate((split_rows[:1], split_rows[1:])):  # uneven
                members = {}
                for number, row in enumerate(part):
                    if how == "cls":
                        members[f"{number:04}.png"] = row["content"]
                        members[f"{number:04}.cls"] = row["label"].encode()
                    else:
                        members[f"{row['label']}/{number:04}.png"] = row["content"]
                pack(root / "shards" / f"{split}-{shard:03}{suffix}", members)
        return root / "shards"

    return write


def by_pattern(pattern):
    def write(root, rows, fill, pack):
        as_shards("cls")(root, rows, fill, pack)
        return str(root / "shards" / pattern)

    return write


def as_tables(image, *, kind="parquet", several=True):
    def write(root, rows, fill, pack):
        (root / "data").mkdir()
        parts = {split: [r for r in rows if r["split"] == split] for split in SPLITS}
        for split, part in parts.items() if several else {"all": rows}.items():
            if image == "paths":
                fill(root / "data", {row["path"]: row["content"] for row in part})
            columns = table_of(part, image=image, split=not several)
            write_table(columns, root / "data" / f"{split}-00000-of-00001.{kind}")
        return root / "data" if several else root / "data" / f"all-00000-of-00001.{kind}"

    return write


def table_of(rows, *, image, split):
    images = {
        "bytes": [row["content"] for row in rows],
        "record": [{"bytes": row["content"], "path": row["path"]} for row in rows],
        "paths": [{"bytes": None, "path": row["path"]} for row in rows],
    }[image]
    kind = (
        pa.binary() if image == "bytes" else pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    columns = {"image": pa.array(images, kind), "label": [row["label"] for row in rows]}
    if split:
        columns["split"] = [row["split"] for row in rows]
    return pa.table(columns)


def write_table(table, path):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    elif path.suffix == ".feather":
        with pa.ipc.new_stream(path, table.schema) as file:
            file.write_table(table, max_chunksize=3)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=3)


def write_list(path, rows):
    plain = [{k: row[k] for k in ("path", "label", "split")} for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in plain))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(plain), path)
    else:
        text = io.StringIO()
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(text, plain[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(plain)
        path.write_text(text.getvalue())
    return path


def as_saved_dataset(root, rows, fill, pack):
    import datasets

    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    parts = {}
    for split in SPLITS:
        split_rows = [row for row in rows if row["split"] == split]
        columns = {
            "picture": [{"bytes": row["content"], "path": None} for row in split_rows],
            "label": [["dog", "cat"].index(row["label"]) for row in split_rows],
        }
        parts[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(root / "saved"))
    return root / "saved"


FORMS = {
    "folder": as_folder,
    "tar": as_archive("a.tar"),
    "tar.gz": as_archive("a.tar.gz"),
    "zip": as_archive("a.zip"),
    "csv": as_list(".csv"),
    "tsv": as_list(".tsv"),
    "jsonl": as_list(".jsonl"),
    "parquet of paths": as_list(".parquet"),
    "folder with a list": as_folder_with_list,
    "zip with a list": as_archive_with_list("a.zip"),
    "tar with a list": as_archive_with_list("a.tar"),
    "shards with .cls": as_shards("cls"),
    "shards with class folders": as_shards("folders"),
    "compressed shards": as_shards("cls", suffix=".tar.gz"),
    "shards by glob": by_pattern("*-*.tar"),
    "shards by braces": by_pattern("{train,val,test}-{000..001}.tar"),
    "parquet of bytes": as_tables("bytes"),
    "parquet of records": as_tables("record", several=False),
    "parquet of paths in records": as_tables("paths"),
    "arrow file": as_tables("record", kind="arrow"),
    "arrow stream": as_tables("bytes", kind="feather", several=False),
    "Hugging Face datasets": as_saved_dataset,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_every_form_are_the_same_data(tmp_path, examples, fill, pack, form):
    data = open_dataset(FORMS[form](tmp_path, examples, fill, pack))
    assert sorted(data.classes) == ["cat", "dog"]
    assert data.skipped == []
    assert data.unreadable == []
    for split, theirs in {"train": "train", "validation": "val", "test": "test"}.items():
        part = data.splits[split]
        found = {part.read(n): data.classes[part.labels[n]] for n in range(len(part))}
        assert found == {r["content"]: r["label"] for r in examples if r["split"] == theirs}


@pytest.mark.parametrize("form", ["folder", "zip", "shards with .cls", "parquet of bytes"])
def test_files_may_be_read_from_any_thread(tmp_path, examples, fill, pack, form):
    from concurrent.futures import ThreadPoolExecutor

    store = list_source(FORMS[form](tmp_path, examples, fill, pack)).store
    file_ids = np.random.default_rng(0).integers(0, len(store.names), 200).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(store.read, file_ids))
    assert read == [store.read(file_id) for file_id in file_ids]


def test_a_table_beside_class_folders_is_a_file_like_others(tmp_path, fill):
    fill(tmp_path, ["cat/1.png", "dog/1.png"])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "features.parquet")
    (tmp_path / "state.json").write_text("{}")
    listing = list_source(tmp_path)
    assert used(listing) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert skipped(listing) == dict.fromkeys(
        ["features.parquet", "state.json"], "not in a class folder"
    )


def test_what_a_folder_s_own_list_leaves_out_is_listed(tmp_path, fill):
    fill(tmp_path, ["a/1.png", "a/2.png", "notes.txt"])
    (tmp_path / "metadata.csv").write_text("file_name,label\na/1.png,cat\n")
    listing = list_source(tmp_path)
    assert used(listing) == {"a/1.png": "cat"}
    assert skipped(listing) == dict.fromkeys(["a/2.png", "notes.txt"], "not in metadata.csv")
    assert listing.notes == ["the examples are those of metadata.csv in it"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is nothing at .*nowhere: give a folder of class folders"),
        ("notes.txt", r"notes\.txt is of no form that is read: give a folder of class folders"),
        ("*.tar", r"no file fits .*\*\.tar"),
        ("{a,b}.tar", r"names .*a\.tar, which is not there"),
        ("[mn]o*", "names files of several forms"),
    ],
)
def test_a_path_of_no_known_form_is_a_bad_request(tmp_path, fill, name, message):
    fill(tmp_path, ["notes.txt", "more.png"])
    with pytest.raises(RequestError, match=message):
        list_source(tmp_path / name)


def test_a_damaged_archive_is_told(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"text")
    with pytest.raises(DataError, match=r"a\.zip can't be read as a zip"):
        list_source(tmp_path / "a.zip")


TREE = ["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/3.png"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.zip"])
@pytest.mark.parametrize("lead", ["", "photos/"])
def test_an_archive_may_hold_splits(tmp_path, pack, name, lead):
    names = [lead + name for name in TREE]
    listing = list_source(pack(tmp_path / name, [*names, f"{lead}notes.png", f"{lead}docs/a.txt"]))
    assert splits(listing) == {path: path.removeprefix(lead).split("/")[0] for path in names}
    assert used(listing) == {path: path.removeprefix(lead).split("/")[1] for path in names}
    assert skipped(listing) == dict.fromkeys(
        [f"{lead}notes.png", f"{lead}docs/a.txt"], "not in a split's folder"
    )


def test_files_above_the_splits_of_an_archive_are_left_out(tmp_path, pack):
    names = [f"photos/{name}" for name in TREE]
    listing = list_source(pack(tmp_path / "a.zip", ["README.txt", *names]))
    assert set(used(listing)) == set(names)
    assert skipped(listing) == {"README.txt": "not in a split's folder"}


def test_an_archive_may_hold_class_folders(tmp_path, pack):
    listing = list_source(pack(tmp_path / "a.zip", ["cat/1.png", "dog/1.png", "dog/a.txt"]))
    assert used(listing) == {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert skipped(listing) == {"dog/a.txt": "not an image"}


def test_a_class_may_be_called_like_a_split(tmp_path, pack):
    listing = list_source(pack(tmp_path / "a.zip", ["test/1.png", "cat/1.png"]))
    assert used(listing) == {"test/1.png": "test", "cat/1.png": "cat"}


def test_the_list_in_an_archive_says_what_is_used(tmp_path, pack):
    text = b"path,label\npictures/1.png,cat\ngone.png,dog\n,cat\n"
    members = {"all/labels.csv": text, "all/pictures/1.png": b"1", "all/pictures/2.png": b"2"}
    listing = list_source(pack(tmp_path / "a.zip", members))
    assert used(listing) == {"all/pictures/1.png": "cat", "all/gone.png": "dog"}
    assert skipped(listing) == {
        "line 4": "no path or no label in the list",
        "all/pictures/2.png": "not in the list",
    }
    assert listing.store.read(0) == b"1"
    with pytest.raises(FileNotFoundError):
        listing.store.read(1)
    assert listing.store.stamp(1) is None


def test_a_table_that_lists_no_examples_is_a_file_like_others(tmp_path, fill, pack):
    files = {"metadata.csv": b"file_name,text\n1.png,a cat\n", "cat/1.png": b"1", "dog/1.png": b"2"}
    for source in (pack(tmp_path / "a.zip", files), fill(tmp_path / "folder", files)):
        listing = list_source(source)
        assert used(listing) == {"cat/1.png": "cat", "dog/1.png": "dog"}
        assert skipped(listing) == {"metadata.csv": "not in a class folder"}


def test_an_archive_with_labels_beside_its_images_is_a_shard(tmp_path, pack):
    members = {"0.png": b"0", "0.cls": b"cat", "1.png": b"1", "1.cls": b"dog"}
    assert used(list_source(pack(tmp_path / "a.tar", members))) == {"0.png": "cat", "1.png": "dog"}
