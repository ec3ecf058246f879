from __future__ import annotations

import gzip
import json

import datasets
import pytest

from helpers import record_files as files
from helpers import tiny_language_model as tiny
from lc_engine.data.readers.jsonl import JsonLines
from lc_engine.data.readers.records import DatasetRecords, ListRecords, ParquetRecords
from lc_engine.language.encoder import Encoder
from lc_engine.language.source import InstructionSource, open_records

GOOD = {"prompt": "hello", "completion": "in"}
LINES = {
    json.dumps(GOOD): ("ok", ""),
    "{": (
        "invalid_json",
        "line 2: not JSON: Expecting property name enclosed in double quotes at column 2",
    ),
    '{"prompt": "hello"}': ("missing_field", "line 3: the row lacks completion or response"),
    '{"prompt": "hello", "completion": " "}': ("empty_response", "line 4: no assistant turn has"),
    '"hello"': ("bad_field", "line 5: a row must be an object with named fields, got a str"),
    '{"prompt": [{"role": "me", "content": ""}], "completion": "a"}': (
        "unknown_role",
        "line 6: prompt[0] has role 'me'",
    ),
    json.dumps({"prompt": "in " * 99, "completion": "a"}): ("too_long", "line 7: "),
    json.dumps({"prompt": "in", "completion": "a " * 99}): ("ok", "line 8: truncated: "),
    r'{"prompt": "\ud800", "completion": "a"}': (
        "unreadable",
        "line 9: the text holds half of a surrogate",
    ),
    json.dumps(GOOD | {"more": 1}): ("ok", ""),
}


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny.tokenizer(), window=64)


@pytest.fixture
def source(encoder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES))
    return encoder.open_source(path)


def test_every_row_has_its_status(source):
    batch = next(source.batches(100))
    assert len(batch) == len(LINES)
    assert batch.ids.tolist() == list(range(10))
    for status, detail, (want, says) in zip(
        batch.status, batch.detail, LINES.values(), strict=True
    ):
        assert status == want
        assert detail.startswith(says)
        assert bool(detail) == bool(says)
    assert len(batch.inputs) == 3
    assert batch.inputs[0].ids.tolist() == batch.inputs[2].ids.tolist()
    assert batch.labels.tolist() == [-1] * 10


@pytest.mark.parametrize(
    ("size", "start", "stop"), [(3, 0, None), (4, 2, 9), (1, 9, 10), (5, 4, 4)]
)
def test_rows_are_the_same_in_any_batch(source, size, start, stop):
    whole = next(source.batches(100))
    stop = len(source) if stop is None else stop
    parts = list(source.batches(size, start, stop))
    assert sum(map(len, parts)) == stop - start
    assert [i for part in parts for i in part.ids] == list(range(start, stop))
    assert [d for part in parts for d in part.detail] == list(whole.detail[start:stop])


def test_the_format_is_detected_from_the_first_object_or_named(encoder):
    detected = encoder.open_source([3, GOOD])
    assert detected.describe() == {
        "kind": "list",
        "rows": 2,
        "form": "prompt_completion",
        "form_is": "detected",
    }
    named = encoder.open_source([GOOD], "alpaca")
    assert named.describe()["form_is"] == "named"
    assert next(named.batches(1)).status == ["missing_field"]
    with pytest.raises(ValueError, match="which match no known format"):
        encoder.open_source([{"text": "a"}])
    with pytest.raises(ValueError, match="none of the first 100 rows is a JSON object"):
        encoder.open_source([3, "a"])
    with pytest.raises(ValueError, match="form must be one of"):
        InstructionSource(detected.records, encoder, "parrot")


RECORDS = {
    "jsonl": JsonLines,
    "jsonl.gz": JsonLines,
    "jsonl.zst": JsonLines,
    "json": ListRecords,
    "parquet": ParquetRecords,
    "folder": ParquetRecords,
    "saved": DatasetRecords,
    "dataset": DatasetRecords,
    "list": ListRecords,
}


@pytest.mark.parametrize("kind", files.KINDS)
def test_every_kind_of_data_is_opened(kind, tmp_path):
    records = open_records(files.write(kind, tmp_path))
    assert type(records) is RECORDS[kind]
    assert [record.fields for record in records.read(0, 7)] == files.ROWS


BAD_FILES = {
    "rows.jsonl.gz": (b"no gzip", "cannot be decompressed"),
    "cut.jsonl.gz": (gzip.compress(files.json_lines())[:-9], "cannot be decompressed"),
    "rows.jsonl.zst": (b"no zstandard", "cannot be decompressed"),
    "cut.jsonl.zst": (files.zstd(files.json_lines())[:-9], "cannot be decompressed"),
    "rows.json": (files.json_lines(), "is not one JSON value .* must be named .jsonl"),
    "object.json": (b'{"a": 1}', "must hold a JSON list of rows, got a dict"),
    "rows.parquet": (b"no parquet", "cannot be read as Parquet"),
    "rows.txt": (b"a,b", "is not a known kind of instruction set"),
}


@pytest.mark.parametrize(
    ("name", "content", "says"), [(n, *c) for n, c in BAD_FILES.items()], ids=BAD_FILES
)
def test_a_file_that_cannot_be_read_is_named(name, content, says, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}.*{says}"):
        open_records(str(path))


def test_data_of_another_kind_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"rows\.jsonl does not exist"):
        open_records(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="a int is not an instruction set"):
        open_records(3)
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(files.ROWS))
    with pytest.raises(ValueError, match=r"splits train; pass one of them: data\['train'\]"):
        open_records(splits)
