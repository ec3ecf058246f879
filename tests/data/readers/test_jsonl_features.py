from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest

from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source

FIELDS = [{"text": "x", "emb": [i, i / 2, -1.5], "label": i % 3} for i in range(13)]


def write(path, lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.Codec("zstd").compress(content, asbytes=True)
    path.write_bytes(content)
    return open_source(path)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
def test_plain_and_compressed(tmp_path, name):
    source = write(tmp_path / name, FIELDS)
    want = [(i, np.float32([i, i / 2, -1.5]), i % 3, "ok", "") for i in range(len(FIELDS))]
    for batch_size in (1, 4, 50):
        assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, 2, 5, 10), want[5:10])
    assert source.describe()["feature_column"] == "emb"


def test_each_bad_line_keeps_its_index(tmp_path):
    lines = [
        FIELDS[0],
        '{"emb": [1, NaN, 2], "label": 1}',
        {"emb": [1, 2], "label": 2},
        {"emb": "no", "label": 3},
        {"emb": [1, 2, 3], "label": "no"},
        {"emb": [1, 2, 3]},
        "{",
        "[1]",
        {"emb": [1, None, 3], "label": 4},
        {"emb": [1, True, 3], "label": 4},
        {"emb": [1, 2, 3], "label": 1 << 80},
    ]
    rows = read_rows(write(tmp_path / "x.jsonl", lines), 4)
    assert [(row[2], row[3]) for row in rows] == [
        (0, "ok"),
        (1, "non_finite"),
        (2, "unreadable"),
        (3, "unreadable"),
        (-1, "bad_label"),
        (-1, "bad_label"),
        (-1, "unreadable"),
        (-1, "unreadable"),
        (4, "non_finite"),
        (4, "unreadable"),
        (-1, "bad_label"),
    ]
    assert rows[2][4] == "line 3: 'emb' must be a list of 3 numbers"
    assert rows[6][4].startswith("line 7: not JSON")


def test_fields_are_named_or_found(tmp_path):
    path = tmp_path / "x.jsonl"
    with pytest.raises(ValueError, match="exactly one list of numbers"):
        write(path, [{"a": [1], "b": [2], "y": 3}])
    source = open_source(path, feature_column="b", label_column="y")
    assert_same(read_rows(source, 1), [(0, np.float32([2]), 3, "ok", "")])
    with pytest.raises(ValueError, match="'c': none of the first"):
        open_source(path, feature_column="c")


def test_a_number_of_401_digits_costs_its_row_only(tmp_path):
    big = "9" * 401
    (tmp_path / "a.jsonl").write_text(
        '{"x": [1, 2], "label": 1}\n'
        f'{{"x": [{big}, -{big}], "label": 1}}\n'
        f'{{"x": [1, 2], "label": {big}}}\n'
        f'{{"x": [1{"0" * 308}, null], "label": 0}}\n'
    )
    (batch,) = open_source(tmp_path / "a.jsonl").batches(4)
    assert list(batch.status) == ["ok", "non_finite", "bad_label", "non_finite"]
    assert "must fit 64 bits" in batch.detail[2]


def test_numbers_beyond_floats_and_nan_are_the_status_of_their_row(tmp_path):
    big = "9" * 401
    lines = [
        FIELDS[0],
        f'{{"emb": [1, {big}, 2], "label": 1}}',
        f'{{"emb": [1, -{big}, 2], "label": 1}}',
        '{"emb": [1, 1e400, 2], "label": 1}',
        '{"emb": [1, 1e39, 2], "label": 1}',
        '{"emb": [1, NaN, 2], "label": 1}',
        f'{{"emb": [1, 2, 3], "label": {big}}}',
        '{"emb": [1, 2, 3], "label": NaN}',
        '{"emb": [1, 2, 3], "label": ' + "9" * 5000 + "}",
        '{"emb": [1, false, 2], "label": 1}',
        "[" * 100_000,
        FIELDS[1],
    ]
    rows = read_rows(write(tmp_path / "x.jsonl", lines), 5)
    want = ["ok", *["non_finite"] * 5, "bad_label", "bad_label", *["unreadable"] * 3, "ok"]
    assert [row[3] for row in rows] == want
    assert "of 1333 bits" in rows[6][4]
    assert "must be an integer, got nan" in rows[7][4]
    assert "nested too deeply" in rows[10][4]
