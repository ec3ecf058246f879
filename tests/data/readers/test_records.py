from __future__ import annotations

import gzip

import pytest
from pyarrow import parquet

from helpers import record_files as files
from lc_engine.data.readers.hf_datasets import load
from lc_engine.data.readers.jsonl import JsonLines
from lc_engine.data.readers.records import DatasetRecords, ListRecords, ParquetRecords, RowError

READERS = {
    "jsonl": JsonLines,
    "jsonl.gz": JsonLines,
    "jsonl.zst": JsonLines,
    "json": ListRecords.from_json,
    "parquet": ParquetRecords,
    "folder": ParquetRecords,
    "saved": lambda path: DatasetRecords(load(path)),
    "dataset": DatasetRecords,
    "list": ListRecords,
}
assert list(READERS) == files.KINDS


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_returns_the_rows(kind, tmp_path):
    records = READERS[kind](files.write(kind, tmp_path))
    assert len(records) == 7
    assert [record.fields for record in records.read(0, 7)] == files.ROWS
    for start, stop in ((0, 0), (2, 5), (3, 3), (5, 7), (6, 7)):
        assert [record.fields for record in records.read(start, stop)] == files.ROWS[start:stop]


@pytest.mark.parametrize("kind", READERS)
def test_the_digest_changes_with_the_rows(kind, tmp_path):
    opened, data = READERS[kind], files.write(kind, tmp_path)
    assert opened(data).digest() == opened(data).digest()
    (tmp_path / "other").mkdir()
    rows = [*files.ROWS[:6], {"prompt": "x", "completion": "y"}]
    other = files.write(kind, tmp_path / "other", rows)
    assert opened(other).digest() != opened(data).digest()


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_line_that_is_not_json_keeps_its_index_and_line_number(kind, tmp_path):
    broken = b'{"a": 1}\n\n  \n{"a": \n"\xff"\n' + b"[" * 100_000 + b'\n{"a": 2}'
    compress = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": files.zstd}[kind]
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(compress(broken))
    records = list(JsonLines(path).read(0, 5))
    assert [record.where for record in records] == [
        "line 1",
        "line 4",
        "line 5",
        "line 6",
        "line 7",
    ]
    assert [record.fields for record in records[::4]] == [{"a": 1}, {"a": 2}]
    for record in records[1:4]:
        assert isinstance(record.fields, RowError)
        assert record.fields.status == "invalid_json"
        assert str(record.fields).startswith("not JSON")


def test_a_damaged_row_group_is_unreadable_row_by_row(tmp_path):
    path = files.write("parquet", tmp_path)
    column = parquet.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    first = column.dictionary_page_offset or column.data_page_offset
    content[first : first + 20] = bytes(20)
    path.write_bytes(content)
    records = list(ParquetRecords(path).read(0, 7))
    assert [record.fields for record in records[:3]] == files.ROWS[:3]
    assert records[6].fields == files.ROWS[6]
    for number, record in enumerate(records[3:6], 3):
        assert record.where == f"row {number}"
        assert record.fields.status == "unreadable"
        assert "row group 1 of rows.parquet" in str(record.fields)
