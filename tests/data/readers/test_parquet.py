from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.reading import assert_same, read_rows
from lc_engine.data.faults import ReadError
from lc_engine.data.open import open_source
from lc_engine.data.readers import parquet
from lc_engine.data.readers.unreadable_files import unreadable_files


def write(path, features, labels, kind="fixed", **options):
    rows, width = features.shape
    flat = pa.array(features.ravel())
    if kind == "fixed":
        column = pa.FixedSizeListArray.from_arrays(flat, width)
    else:
        column = pa.ListArray.from_arrays(np.arange(0, rows * width + 1, width, np.int32), flat)
    table = pa.table({"other": pa.array(["x"] * rows), "emb": column, "label": labels})
    pq.write_table(table, path, **options)


def made(seed, rows, width=5):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width)).astype(np.float32), rng.integers(0, 9, rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["fixed", "free"])
def test_files_and_row_groups_read_as_one(tmp_path, monkeypatch, seed, kind):
    monkeypatch.setattr(parquet, "_CHUNK_ROWS", 6)  # several pieces in a row group
    features, labels = made(seed, 83)
    cuts = [0, 20, 20, 61, 83]
    for i, (start, stop) in enumerate(pairwise(cuts)):
        write(
            tmp_path / f"part-{i}.parquet",
            features[start:stop],
            labels[start:stop],
            kind,
            row_group_size=17,
        )
    source = open_source(tmp_path)
    assert len(source) == 83
    want = [(i, features[i], int(labels[i]), "ok", "") for i in range(83)]
    for batch_size in (1, 8, 40, 200):
        assert_same(read_rows(source, batch_size), want)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        start, stop = sorted(rng.integers(0, 84, 2).tolist())
        assert_same(read_rows(source, 9, start, stop), want[start:stop])


def test_bad_rows(tmp_path):
    table = pa.table(
        {
            "emb": pa.array(
                [[1.0, 2.0], None, [3.0], [4.0, None], [5.0, float("inf")], [6.0, 7.0], [8.0, 9.0]],
                pa.list_(pa.float32()),
            ),
            "label": pa.array([0, 1, 2, 3, 4, None, 6], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    for batch_size in (1, 2, 10):
        rows = read_rows(open_source(tmp_path / "x.parquet"), batch_size)
        assert [row[3] for row in rows] == [
            "ok",
            "unreadable",
            "unreadable",
            "non_finite",
            "non_finite",
            "bad_label",
            "ok",
        ]
        assert "missing" in rows[1][4]
        assert "1 numbers, those of most rows have 2" in rows[2][4]
        assert [row[2] for row in rows] == [0, 1, 2, 3, 4, -1, 6]
        np.testing.assert_array_equal(rows[6][1], np.float32([8, 9]))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("kind", ["zstd", "none"])
def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path, batch_size, kind):
    features, labels = made(4, 60, 16)
    path = tmp_path / "x.parquet"
    write(path, features, labels, row_group_size=20, compression=kind, write_page_checksum=True)
    column = pq.read_metadata(path).row_group(1).column(1)
    content = bytearray(path.read_bytes())
    middle = (column.dictionary_page_offset or column.data_page_offset) + 200
    content[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(content)
    rows = read_rows(open_source(path), batch_size)
    assert [row[0] for row in rows] == list(range(60))
    assert [row[3] for row in rows] == ["ok"] * 20 + ["unreadable"] * 20 + ["ok"] * 20
    assert "row group 1 of x.parquet" in rows[25][4]
    np.testing.assert_array_equal(rows[59][1], features[59])


def test_a_file_that_goes_away_stops_the_run(tmp_path):
    features, labels = made(0, 10)
    write(tmp_path / "a.parquet", features, labels)
    write(tmp_path / "b.parquet", features, labels)
    source = open_source(tmp_path)
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(ReadError, match=r"b\.parquet cannot be read: No such file"):
        list(source.batches(4))


def test_columns_are_named_or_found(tmp_path):
    features, labels = made(0, 6)
    path = tmp_path / "x.parquet"
    write(path, features, labels)
    table = pq.read_table(path)
    two = table.append_column("second", table.column("emb")).append_column("y", table["label"])
    pq.write_table(two, path)
    with pytest.raises(ValueError, match=r"2 columns are lists.*emb.*second"):
        open_source(path)
    source = open_source(path, feature_column="second", label_column="y")
    assert source.describe()["feature_column"] == "second"
    np.testing.assert_array_equal(read_rows(source, 6)[5][1], features[5])
    for keywords, message in (
        ({"feature_column": "embedding"}, "'embedding' does not exist; the columns are other"),
        ({"feature_column": "other"}, "'other' is string, but must be lists"),
        ({"feature_column": "emb", "label_column": "other"}, "'other' is string.*integers"),
        ({"feature_column": "emb", "label_column": "target"}, "'target' does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            open_source(path, **keywords)


def test_files_that_do_not_fit(tmp_path):
    features, labels = made(0, 6)
    write(tmp_path / "a.parquet", features, labels)
    write(tmp_path / "b.parquet", features.astype(np.float64), labels)
    with pytest.raises(ValueError, match=r"float.* in a\.parquet, but .*double.* in b\.parquet"):
        open_source(tmp_path)
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        open_source(tmp_path)


def test_a_file_of_a_folder_without_a_footer_is_left_out_and_named(tmp_path, caplog):
    features, labels = made(0, 6)
    write(tmp_path / "a.parquet", features, labels)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    source = open_source(tmp_path)
    assert len(read_rows(source, 4)) == len(source) == 6
    assert list(unreadable_files(source)) == ["b.parquet"]
    assert "b.parquet cannot be read as Parquet" in unreadable_files(source)["b.parquet"]
    assert "left out" in caplog.text


def test_digest_and_no_rows(tmp_path):
    features, labels = made(0, 6)
    write(tmp_path / "a.parquet", features, labels)
    digest = open_source(tmp_path).digest()
    assert open_source(tmp_path).digest() == digest
    write(tmp_path / "b.parquet", features[:0], labels[:0])
    source = open_source(tmp_path)
    assert source.digest() != digest
    assert len(source) == 6
    assert list(open_source(tmp_path / "b.parquet").batches(3)) == []
