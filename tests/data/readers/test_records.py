from __future__ import annotations

import gzip
import json

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from lc_engine.language.formats import RowError
from lc_engine.language.source import _open, open_instructions

ROWS = [{"prompt": f"é {i}", "completion": "a" * i} for i in range(7)]


def lines(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def compressed(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return sink.getvalue().to_pybytes()


def made(kind, folder, rows=ROWS):
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_bytes(lines(rows))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines(rows)))
    elif kind == "jsonl.zst":
        path.write_bytes(compressed(lines(rows)))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    elif kind == "folder":
        path.mkdir()
        parquet.write_table(pa.Table.from_pylist(rows[:4]), path / "a.parquet", row_group_size=3)
        parquet.write_table(pa.Table.from_pylist(rows[4:]), path / "b.parquet")
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(path)
    elif kind == "dataset":
        return datasets.Dataset.from_list(rows)
    else:
        return rows
    return path


KINDS = [
    "jsonl", "jsonl.gz", "jsonl.zst", "json", "parquet", "folder", "saved", "dataset", "list"
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_gives_the_rows(kind, tmp_path):
    records = _open(made(kind, tmp_path))
    assert len(records) == 7
    assert [record.fields for record in records.read(0, 7)] == ROWS
    for start, stop in ((0, 0), (2, 5), (3, 3), (5, 7), (6, 7)):
        assert [record.fields for record in records.read(start, stop)] == ROWS[start:stop]


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_changes_with_the_rows(kind, tmp_path):
    data = made(kind, tmp_path)
    assert _open(data).digest() == _open(data).digest()
    (tmp_path / "other").mkdir()
    other = made(kind, tmp_path / "other", [*ROWS[:6], {"prompt": "x", "completion": "y"}])
    assert _open(other).digest() != _open(data).digest()


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_line_that_is_no_json_keeps_its_place_and_its_number(kind, tmp_path):
    broken = b'{"a": 1}\n\n  \n{"a": \n"\xff"\n' + b"[" * 100_000 + b'\n{"a": 2}'
    packing = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": compressed}[kind]
    path = tmp_path / f"rows.{kind}"
    path.write_bytes(packing(broken))
    records = list(_open(path).read(0, 5))
    assert [record.place for record in records] == [
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
    path = made("parquet", tmp_path)
    column = parquet.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    first = column.dictionary_page_offset or column.data_page_offset
    content[first : first + 20] = bytes(20)
    path.write_bytes(content)
    records = list(_open(path).read(0, 7))
    assert [record.fields for record in records[:3]] == ROWS[:3]
    assert records[6].fields == ROWS[6]
    for number, record in enumerate(records[3:6], 3):
        assert record.place == f"row {number}"
        assert record.fields.status == "unreadable"
        assert "row group 1 of rows.parquet" in str(record.fields)


BAD_FILES = {
    "rows.jsonl.gz": (b"no gzip", "cannot be decompressed"),
    "cut.jsonl.gz": (gzip.compress(lines())[:-9], "cannot be decompressed"),
    "rows.jsonl.zst": (b"no zstandard", "cannot be decompressed"),
    "cut.jsonl.zst": (compressed(lines())[:-9], "cannot be decompressed"),
    "rows.json": (lines(), "is not one JSON value .* must be named .jsonl"),
    "object.json": (b'{"a": 1}', "must hold a JSON list of rows, got a dict"),
    "rows.parquet": (b"no parquet", "cannot be read as Parquet"),
    "rows.csv": (b"a,b", "is no instruction set that is known"),
}


@pytest.mark.parametrize(
    ("name", "content", "says"), [(n, *c) for n, c in BAD_FILES.items()], ids=BAD_FILES
)
def test_a_file_that_cannot_be_read_is_named(name, content, says, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}.*{says}"):
        open_instructions(str(path), None)


def test_data_of_another_kind_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"rows\.jsonl does not exist"):
        open_instructions(tmp_path / "rows.jsonl", None)
    with pytest.raises(ValueError, match="a int is no instruction set"):
        open_instructions(3, None)
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
    with pytest.raises(ValueError, match=r"splits train; give one of them: data\['train'\]"):
        open_instructions(splits, None)
