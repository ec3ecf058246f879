"""Parts whose footer is whole and whose pages are not."""

from __future__ import annotations

import pytest

from helpers.feature_run import contents, run, write_features
from lc_engine.data.table import ScoreTable
from lc_engine.selection import select


def damage(path):
    """Turn over the bits of some bytes in the first pages."""
    content = bytearray(path.read_bytes())
    for index in range(100, 140):
        content[index] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    write_features(tmp_path)
    run(tmp_path, tmp_path / "out", shard_rows=300)
    return tmp_path


def test_the_same_run_scores_the_rows_of_a_damaged_part_anew(folder):
    before = contents(folder / "out")
    damage(folder / "out" / "part-00001-of-00004.parquet")
    assert contents(folder / "out") != before
    run(folder, folder / "out", shard_rows=300)
    assert contents(folder / "out") == before


def test_whoever_reads_a_damaged_part_learns_what_to_do(folder):
    damage(folder / "out" / "part-00001-of-00004.parquet")
    remedy = "part-00001-of-00004.parquet cannot be read.*; delete it and start the same run again"
    with pytest.raises(ValueError, match=remedy):
        select(ScoreTable.read(folder / "out"), 0.5, gamma=0.5)
    (folder / "out" / "part-00001-of-00004.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=remedy):
        ScoreTable.read(folder / "out")
