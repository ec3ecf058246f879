"""What `select` takes as scores, refuses in them, and says of a draw that does not read them."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pytest

import lc_engine as lc
from helpers.selection_tables import as_table, random_columns
from lc_engine.data.table import ScoreTable
from lc_engine.selection import select
from lc_engine.selection.id_hash import hash_ids
from lc_engine.selection.streamed import select_streamed, unique_ids
from lc_engine.selection.streamed.chunks import Chunk


def test_a_path_and_a_data_frame_are_taken_as_a_table_is(tmp_path):
    table = as_table(random_columns(0, 200))
    table.write(tmp_path / "scores.parquet")
    (tmp_path / "run").mkdir()
    table.write(tmp_path / "run" / "part-00000-of-00001.parquet")
    want = select(table, 0.3, gamma=0.5)
    paths = (tmp_path / "run", f"{tmp_path}/run/", tmp_path / "scores.parquet")
    for scores in (*paths, table.to_pandas()):
        np.testing.assert_array_equal(lc.select(scores, 0.3, gamma=0.5), want)


def test_anything_else_is_refused_by_its_type(tmp_path):
    with pytest.raises(ValueError, match=r"scores must be a ScoreTable, .*, got a list"):
        lc.select([1, 2], 0.5)
    with pytest.raises(FileNotFoundError, match="no score table at"):
        lc.select(tmp_path / "none", 0.5)


def with_column(table, name, values):
    index = table.table.schema.get_field_index(name)
    return ScoreTable(table.table.set_column(index, table.table.schema.field(name), values))


def test_a_null_status_is_refused_streamed_or_not():
    table = as_table(random_columns(0, 50))
    table = with_column(table, "status", pa.array(["ok"] * 49 + [None]))
    for choose in (select, select_streamed):
        with pytest.raises(ValueError, match='column "status" is null at id'):
            choose(table, 0.5, gamma=0.5)
    with pytest.raises(ValueError, match='column "status" is null at id'):
        select(table.to_pandas(), 0.5, gamma=0.5)


def test_a_score_of_a_row_that_is_not_ok_is_not_read_streamed_or_not():
    table = as_table(random_columns(0, 50))
    table = with_column(table, "status", pa.array(["ok"] * 25 + ["unreadable"] * 25))
    for choose in (select, select_streamed):
        np.testing.assert_array_equal(choose(table, 1.0, "easy"), np.sort(table.column("id")[:25]))


def test_where_no_row_has_a_score_the_reason_is_named_streamed_or_not():
    table = as_table(random_columns(0, 3))
    table = with_column(table, "status", pa.array(["unreadable", "too_long", "unreadable"]))
    table = with_column(table, "detail", pa.array(["line 1: no calls are written", "", ""]))
    reason = (
        r"nothing to keep \(1 too_long, 2 unreadable, the first: line 1: no calls are written\)"
    )
    for choose in (select, select_streamed):
        with pytest.raises(ValueError, match=reason):
            choose(table, 0.5)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("held", [7, 1 << 25])
@pytest.mark.parametrize("ascending", [False, True])
def test_an_id_that_appears_twice_is_refused_streamed_or_not(monkeypatch, text, held, ascending):
    monkeypatch.setattr(unique_ids, "_MAX_HELD", held)
    columns = random_columns(0, 60)
    if ascending:
        columns["id"] = np.sort(columns["id"])
    if text:
        columns["id"] = np.array([f"{i:04}.png" for i in columns["id"]])
    assert len(select_streamed(as_table(columns), 0.5, gamma=0.5)) == 30
    columns["id"][41] = columns["id"][40]
    for choose in (select, select_streamed):
        with pytest.raises(ValueError, match="more than once: ids must be unique"):
            choose(as_table(columns), 0.5, gamma=0.5)


@pytest.mark.parametrize("strategy", ["el2n", "entropy", "margin", "least_confidence"])
def test_rows_without_labels_are_refused_where_a_classifier_is_trained(strategy):
    columns = random_columns(0, 60) | {"label": np.full(60, -1)}
    with pytest.raises(ValueError, match="needs at least two classes in column label"):
        select(columns, 0.5, strategy, features=np.eye(60, dtype=np.float32))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_draw_that_does_not_read_the_score_says_so(caplog, gamma, streamed):
    choose = select_streamed if streamed else select
    with caplog.at_level(logging.WARNING):
        choose(as_table(random_columns(0, 60)), 0.5, gamma=gamma)
    assert ("drawn at random, whatever their score" in caplog.text) == (gamma != 0.5)


def chunk(*ids, hashes=None):
    ids = np.array(ids)
    hashes = hash_ids(ids) if hashes is None else np.array(hashes, np.uint64)
    return Chunk(ids, np.zeros(len(ids), np.intp), np.zeros(len(ids), np.uint32), hashes)


@pytest.mark.parametrize(
    ("chunks", "twice"),
    [
        ([chunk(3, 1), chunk(2, 0)], None),
        ([chunk(3, 1), chunk(1, 0)], 1),
        ([chunk(3, 1), chunk(2, 1 << 60)], None),  # beyond what is marked
        ([chunk(3, 1), chunk(1 << 60, 3)], 3),
        ([chunk(-1, 5), chunk(5, 2)], 5),
        ([chunk(9, 8, 7, 8)], 8),
        ([chunk(70, 60, hashes=[4, 4]), chunk(50, 40, hashes=[4, 5])], None),  # one hash, other ids
        ([chunk(70, 60, hashes=[4, 4]), chunk(50, 60, hashes=[4, 4])], 60),
    ],
)
def test_ids_are_compared_wherever_they_lie(chunks, twice):
    unique = unique_ids.UniqueIds(sum(len(part.ids) for part in chunks))
    for part in chunks:
        unique.add(part)
    if twice is None:
        unique.check(chunks)
    else:
        with pytest.raises(ValueError, match=f"holds {twice} more than once"):
            unique.check(chunks)


def test_repeated_hashes_are_found_among_many():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, 5000, dtype=np.uint64)
    assert len(unique_ids._repeated(hashes)) == 0
    pairs = rng.choice(5000, (40, 2), replace=False)
    hashes[pairs[:, 0]] = hashes[pairs[:, 1]]
    assert set(unique_ids._repeated(hashes)) == set(hashes[pairs[:, 0]])
