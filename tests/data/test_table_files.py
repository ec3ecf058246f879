from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.score_tables import random_table
from lc_engine.data.table import ScoreTable
from lc_engine.data.table_files import TableFiles


def write_parts(folder, sizes):
    parts = [random_table(seed, rows) for seed, rows in enumerate(sizes)]
    paths = [folder / f"part-{i:05d}-of-{len(sizes):05d}.parquet" for i in range(len(sizes))]
    for part, path in zip(parts, paths, strict=True):
        part.write(path)
    return ScoreTable.read(folder), ScoreTable.concat(parts), paths


@pytest.mark.parametrize("sizes", [(0,), (1,), (20, 3, 30)])
def test_it_is_the_table_that_was_written(tmp_path, sizes):
    table, want, _ = write_parts(tmp_path, sizes)
    assert len(table) == len(want) == sum(sizes)
    assert table.metadata == want.metadata
    assert table.column_names == want.column_names
    assert table.status_counts() == want.status_counts()
    assert table.bad_rows(3) == want.bad_rows(3)
    for name in want.column_names:
        np.testing.assert_array_equal(table.column(name), want.column(name))
    assert table.table.equals(want.table)
    assert table.bad_rows(3) == want.bad_rows(3)  # now from memory


def test_it_is_read_whatever_the_working_directory_is_by_then(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    _, want, paths = write_parts(tmp_path, (3, 2))
    monkeypatch.chdir(tmp_path)
    tables = [ScoreTable.read("."), ScoreTable.read(paths[0].name)]
    monkeypatch.chdir("elsewhere")
    for table, rows in zip(tables, (5, 3), strict=True):
        np.testing.assert_array_equal(table.column("lc"), want.column("lc")[:rows])
        assert len(table.table) == rows
        with pytest.raises(ValueError, match="no features"):
            table.features()


def test_bad_rows_are_the_first_ones_over_all_parts(tmp_path):
    table, _, _ = write_parts(tmp_path, (3, 2, 3))
    assert table.bad_rows(2) == [(1, "unreadable", "why"), (1, "unreadable", "why")]
    assert table.bad_rows(0) == []


def test_a_column_does_not_read_the_others(tmp_path):
    table, want, paths = write_parts(tmp_path, (20, 20))
    content = bytearray(paths[1].read_bytes())
    footer = pq.read_metadata(paths[1]).row_group(0)
    columns = {footer.column(i).path_in_schema: footer.column(i) for i in range(footer.num_columns)}
    content[columns["lc"].data_page_offset + columns["lc"].total_compressed_size - 4] ^= 255
    paths[1].write_bytes(content)
    np.testing.assert_array_equal(table.column("loss"), want.column("loss"))
    with pytest.raises(ValueError, match=rf"{paths[1].name} cannot be read"):
        table.column("lc")


def test_a_table_that_is_used_whole_is_read_once(tmp_path):
    table, want, paths = write_parts(tmp_path, (20, 3))
    assert table.table.equals(want.table)
    for path in paths:
        path.unlink()
    assert table.table is table.table
    np.testing.assert_array_equal(table.column("lc"), want.column("lc"))


def test_parts_of_different_runs_are_refused(tmp_path):
    random_table(0).write(tmp_path / "a.parquet")
    random_table(0, model_digest="m2").write(tmp_path / "b.parquet")
    random_table(0, sub_models=0).write(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match="model_digest: 'm1' -> 'm2'"):
        TableFiles([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    with pytest.raises(ValueError, match="different runs: columns"):
        TableFiles([tmp_path / "a.parquet", tmp_path / "c.parquet"])
