"""JSON that is cut short, in another encoding, or of the other kind than its name says."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest

from lc_engine.data.open import open_source
from lc_engine.language.source import open_records

ROWS = [{"prompt": f"é {i}", "completion": "a"} for i in range(4)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
LIST = json.dumps(ROWS, ensure_ascii=False)
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def opened(folder, name, content):
    (folder / name).write_bytes(content)
    records = open_records(folder / name)
    return [record.fields for record in records.read(0, len(records))]


def refused(folder, name, content, match):
    with pytest.raises(ValueError, match=match) as caught:
        opened(folder, name, content)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("encoding", WIDE)
def test_lines_of_wide_characters_are_refused_with_the_command(tmp_path, encoding):
    name = encoding.upper().removesuffix("LE").removesuffix("BE").rstrip("-")
    content = LINES.encode(encoding)
    refused(tmp_path, "x.jsonl", content, f"is {name}.*, but JSON Lines are UTF-8.*iconv -f {name}")
    refused(tmp_path, "x.jsonl.gz", gzip.compress(content), f"is {name}")
    with pytest.raises(ValueError, match=f"is {name}"):
        open_source(tmp_path / "x.jsonl")


def test_a_mark_of_utf8_is_no_part_of_the_first_line(tmp_path):
    assert opened(tmp_path, "x.jsonl", LINES.encode("utf-8-sig")) == ROWS
    assert opened(tmp_path, "x.json", LIST.encode("utf-8-sig")) == ROWS


@pytest.mark.parametrize("encoding", WIDE)
def test_a_list_is_read_in_each_encoding_of_json(tmp_path, encoding):
    assert opened(tmp_path, "x.json", LIST.encode(encoding)) == ROWS


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_named_as_lines_is_refused(tmp_path, indent):
    content = json.dumps(ROWS, indent=indent).encode()
    refused(tmp_path, "x.jsonl", b"\n" + content, "is one JSON list.*name it .json, or .*jq -c")
    with pytest.raises(ValueError, match="is one JSON list"):
        open_source(tmp_path / "x.jsonl")
    refused(tmp_path, "y.jsonl", json.dumps(ROWS[0], indent=1).encode(), "values of several lines")


def test_lines_named_as_a_list_are_refused(tmp_path):
    refused(tmp_path, "x.json", LINES.encode(), r"a second one begins at line 2, column 1.*\.jsonl")


def test_a_list_that_is_cut_short_is_refused_with_the_position(tmp_path):
    for cut in range(1, len(LIST), 7):
        refused(tmp_path, "x.json", LIST[:cut].encode(), "at line 1, column .*cut short|not UTF-8")
    whole = json.dumps(ROWS, indent=1).encode()
    refused(tmp_path, "x.json", whole[:-4], r"at line 17, column \d+, so it is cut short")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
@pytest.mark.parametrize("content", [b"", b" \n\n", b"[]"])
def test_files_without_rows_are_refused(tmp_path, name, content):
    match = "holds no rows|is empty|is one JSON list"
    refused(tmp_path, name, content, match)


def test_other_damage_is_named_with_its_place(tmp_path):
    refused(tmp_path, "x.json", b'[{"a": 1}, {"b" 2}]', "Expecting ':' delimiter at line 1, column")
    refused(tmp_path, "x.json", b'[{"a": "\xff"}]', "is not UTF-8 at byte 8")
    refused(tmp_path, "x.json", b"[" * 100_000, "nested too deeply")
    refused(tmp_path, "x.json", b"[" + b"9" * 5000 + b"]", "not JSON that can be parsed")
    refused(tmp_path, "x.json", b'{"a": 1}', "must hold a JSON list of rows, got a dict")
    assert opened(tmp_path, "x.json", b'[{"a": NaN, "b": ' + b"9" * 401 + b"}]")[0]["b"] > 10**400


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compressed_lines_that_are_cut_short_are_refused(tmp_path, codec):
    name = "x.jsonl.gz" if codec == "gzip" else "x.jsonl.zst"
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(LINES.encode() * 100)
    content = sink.getvalue().to_pybytes()
    for cut in (1, 5, len(content) // 2, len(content) - 1):
        refused(tmp_path, name, content[:cut], "cannot be decompressed|holds no rows")
