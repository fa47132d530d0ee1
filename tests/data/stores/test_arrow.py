import threading

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from vitral.data.order import epoch_order
from vitral.data.stores.arrow import TableStore

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
    monkeypatch.setattr("vitral.data.stores.arrow._ROWS_KEPT", 120)
    blocks = many_files.blocks()
    for number in epoch_order(0, 0, len(blocks), blocks=blocks).tolist():
        many_files.read(number)
    assert len(groups_read) == len(set(blocks.tolist()))


def test_memory_does_not_grow_with_the_number_of_files(many_files, groups_read, monkeypatch):
    monkeypatch.setattr("vitral.data.stores.arrow._ROWS_KEPT", 45)
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
