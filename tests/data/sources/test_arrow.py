import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from vitral.data.dataset import open_dataset
from vitral.data.order import epoch_order
from vitral.data.sources.arrow import TableStore
from vitral.data.sources.find import list_source
from vitral.errors import DataError, RequestError

LABELS = ["a", "b", "a", "b"]


def write(path, **columns):
    table = pa.table({"image": pa.array([b"0", b"1", b"2", b"3"]), "label": LABELS} | columns)
    pq.write_table(table.drop_columns([n for n, c in columns.items() if c == "none"]), path)
    return path


def with_features(path, feature):
    """Write a file that describes its label as Hugging Face does."""
    table = pa.table({"image": [b"0", b"1", b"2"], "label": [1, 0, -1]})
    description = json.dumps({"info": {"features": {"label": feature}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": description}), path)
    return path


def test_numbers_become_the_names_that_hugging_face_writes_beside(tmp_path):
    path = with_features(tmp_path / "a.parquet", {"names": ["owl", "wren"], "_type": "ClassLabel"})
    listing = list_source(path)
    assert listing.labels == ["wren", "owl"]
    assert listing.classes == ("owl", "wren")
    assert [item.name for item in listing.skipped] == ["line 2"]  # -1: no label is known
    assert [listing.store.read(n) for n in range(2)] == [b"0", b"1"]


def test_the_stamp_of_a_row_is_its_own_and_no_earlier_files(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.parquet")
    store = list_source(tmp_path).store
    stamps = [store.stamp(number) for number in range(8)]
    assert len(set(stamps[:4])) == 4
    pq.write_table(pa.table({"image": [b"0"], "label": ["a"]}), tmp_path / "a.parquet")
    after = list_source(tmp_path).store
    assert [after.stamp(number) for number in range(1, 5)] == stamps[4:]


def test_labels_of_other_descriptions_stay_numbers(tmp_path):
    listing = list_source(with_features(tmp_path / "a.parquet", {"_type": "Value"}))
    assert listing.labels == ["1", "0", "-1"]
    assert listing.classes is None


def test_lists_of_labels_are_several_labels(tmp_path):
    listing = list_source(write(tmp_path / "a.parquet", label=[["a"], [], ["a", "b"], ["b"]]))
    assert listing.labels == [("a",), (), ("a", "b"), ("b",)]
    assert listing.is_multi_label


def test_the_split_is_what_the_names_of_files_begin_with(tmp_path):
    write(tmp_path / "train-0.parquet")
    write(tmp_path / "test-0.parquet")
    assert list_source(tmp_path).splits == ["test"] * 4 + ["train"] * 4


def test_a_row_without_an_image_is_unreadable(tmp_path, picture, encode):
    images = pa.array([encode(picture(n)) for n in range(3)] + [None])
    path = write(tmp_path / "a.parquet", image=images, split=["train", "train", "test", "test"])
    data = open_dataset(path)
    assert [(s, i.name, i.reason) for s, i in data.unreadable] == [
        ("test", "3", "can't be read: the row has no image")
    ]


def test_the_cache_follows_changes_of_the_file(tmp_path, picture, encode):
    path = tmp_path / "a.parquet"
    for seed in (0, 4):
        images = pa.array([encode(picture(seed + n)) for n in range(4)])
        write(path, image=images, split=["train", "train", "test", "test"])
        data = open_dataset(path)
        digests = [file_info.digest for file_info in data.file_infos]
        assert len(set(digests)) == 4
    assert data.splits["train"].read(0) == encode(picture(4))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": pa.array([1, 2, 3, 4])}, "has no column 'path'"),
        ({"label": "none", "kind": pa.array(LABELS)}, "has no column 'label'"),
    ],
)
def test_a_table_that_lacks_a_column_is_an_error(tmp_path, columns, message):
    added = {name: column for name, column in columns.items() if not isinstance(column, str)}
    table = pa.table({"image": pa.array([b"0"] * 4), "label": LABELS} | added)
    dropped = [name for name, column in columns.items() if isinstance(column, str)]
    pq.write_table(table.drop_columns(dropped), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        list_source(tmp_path / "a.parquet")


def test_an_arrow_file_needs_a_column_of_images(tmp_path):
    table = pa.table({"text": ["a"], "label": ["b"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    with pytest.raises(DataError, match="has no column of images .*: it has text, label"):
        list_source(tmp_path / "a.arrow")


def test_tables_of_other_columns_beside_are_an_error(tmp_path):
    write(tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"image": [b"0"], "name": ["a"]}), tmp_path / "train-1.parquet")
    with pytest.raises(DataError, match=r"train-1\.parquet has other columns than .*train-0"):
        list_source(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("content", [b"", b"text", b"PAR1 and no more", b"ARROW1\0\0 and no more"])
def test_a_damaged_table_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} can't be read"):
        list_source(tmp_path / name)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(RequestError, match=r"need pyarrow: pip install 'vitral\[arrow\]'"):
        list_source(tmp_path / "a.parquet")


ROWS = [bytes([number]) * 50 for number in range(40)]


def _arrow(form, **options):
    def write(table, path):
        settings = pa.ipc.IpcWriteOptions(**options)
        with form(str(path), table.schema, options=settings) as file:
            file.write_table(table, max_chunksize=10)

    return write


FORMS = {
    "groups.parquet": lambda table, path: pq.write_table(table, path, row_group_size=10),
    "file.arrow": _arrow(pa.ipc.new_file),
    "packed.arrow": _arrow(pa.ipc.new_file, compression="zstd"),
    "stream.arrow": _arrow(pa.ipc.new_stream),
    "pandas.feather": lambda table, path: pyarrow.feather.write_feather(table, path, chunksize=10),
}


def open_all(paths, rows=ROWS):
    return TableStore(paths, "image", names=[str(n) for n in range(len(rows))])


@pytest.mark.parametrize("cells", ["bytes", "records"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_found_in_every_form(tmp_path, form, cells):
    images = ROWS if cells == "bytes" else [{"bytes": row, "path": None} for row in ROWS]
    FORMS[form](pa.table({"label": ["a"] * 40, "image": images}), tmp_path / form)
    store = open_all([tmp_path / form])
    assert [store.read(number) for number in reversed(range(40))] == ROWS[::-1]
    assert store.blocks().tolist() == np.repeat(range(4), 10).tolist()


def test_a_table_of_images_alone_is_read(tmp_path):
    _arrow(pa.ipc.new_file)(pa.table({"image": ROWS}), tmp_path / "a.arrow")
    assert open_all([tmp_path / "a.arrow"]).read(39) == ROWS[39]


@pytest.fixture
def groups_read(monkeypatch):
    """The row groups that are read, in order."""
    read, original = [], pq.ParquetFile.read_row_group

    def count(file, group, **options):
        read.append(group)
        return original(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count)
    return read


@pytest.fixture
def many_files(tmp_path):
    paths = [tmp_path / f"{number}.parquet" for number in range(12)]
    for number, path in enumerate(paths):
        table = pa.table({"image": ROWS[: 20 + number]})
        pq.write_table(table, path, row_group_size=10)
    return open_all(paths, [row for n in range(12) for row in ROWS[: 20 + n]])


def test_an_epoch_reads_each_group_once_however_many_files(many_files, groups_read, monkeypatch):
    monkeypatch.setattr("vitral.data.order.WINDOW", 60)
    monkeypatch.setattr("vitral.data.sources.arrow._ROWS_KEPT", 120)
    blocks = many_files.blocks()
    for number in epoch_order(0, 0, len(blocks), blocks=blocks).tolist():
        many_files.read(number)
    assert len(groups_read) == len(set(blocks.tolist()))


def test_memory_does_not_grow_with_the_number_of_files(many_files, groups_read, monkeypatch):
    monkeypatch.setattr("vitral.data.sources.arrow._ROWS_KEPT", 45)
    blocks = many_files.blocks()
    firsts = [int(np.flatnonzero(blocks == block)[0]) for block in range(6)]
    for number in firsts:
        many_files.read(number)
    for number in reversed(firsts[2:]):  # four groups of ten rows are kept
        many_files.read(number)
    assert len(groups_read) == 6
    many_files.read(firsts[0])
    assert len(groups_read) == 7


def test_threads_that_want_one_group_read_it_once(many_files, groups_read):
    ready = threading.Barrier(8)

    def read():
        ready.wait()
        many_files.read(3)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert groups_read == [0]


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_name_files_have_no_stamp_of_their_own(tmp_path, form):
    (tmp_path / "one.png").write_bytes(b"content")
    table = pa.table({"image": [{"bytes": None, "path": "one.png"}]})
    FORMS[form](table, tmp_path / form)
    store = open_all([tmp_path / form], [b""])
    assert store.read(0) == b"content"
    assert store.stamp(0) is None


def test_records_with_all_their_bytes_have_a_stamp(tmp_path):
    table = pa.table({"image": [{"bytes": b"x", "path": "one.png"}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert open_all([tmp_path / "a.parquet"], [b""]).stamp(0)
