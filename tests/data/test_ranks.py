from __future__ import annotations

import numpy as np
import pyarrow as pa

from helpers.score_tables import random_table
from lc_engine.data.ranks import Groups, ranks
from lc_engine.data.table import ScoreTable


def test_a_rank_is_the_place_within_the_group_and_a_row_alone_is_in_the_middle():
    hardness = np.array([1.0, 3.0, 2.0, np.nan, 9.0, 9.0, 9.0])
    groups = np.array([0, 0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(ranks(hardness, groups), [1, 0, 0.5, np.nan, 0.5, 0, 1])


def test_nothing_without_a_score_has_a_rank():
    assert np.isnan(ranks(np.full(3, np.nan), np.zeros(3, np.intp))).all()
    assert len(ranks(np.empty(0), np.empty(0, np.intp))) == 0


def test_a_group_is_a_class_of_a_source_and_keeps_its_number_in_all_pieces():
    groups = Groups()
    pieces = [
        pa.table({"label": [3, 1, 3], "source": ["b", "a", "a"]}),
        pa.table({"label": [1, 3, -1], "source": ["a", "b", "b"]}),
    ]
    first, second = (groups.numbers(piece) for piece in pieces)
    assert [groups.names[i] for i in first] == [(3, "b"), (1, "a"), (3, "a")]
    assert [groups.names[i] for i in second] == [(1, "a"), (3, "b"), (-1, "b")]


def test_ranks_go_by_ifd_where_there_is_one_and_some_rows_keep_theirs():
    table = random_table(0, 40, sub_models=0).table
    ifd = np.random.default_rng(1).random(40).astype(np.float32)
    scored = ScoreTable(table.append_column("ifd", pa.array(ifd)))
    labels = scored.column("label")
    for label in range(5):
        rows = np.flatnonzero(labels == label)
        assert (np.diff(scored.ranks()[rows][np.argsort(-ifd[rows])]) > 0).all()
    some = scored.with_ranks().only(np.array([3, 5, 8]))
    np.testing.assert_array_equal(some.ranks(), scored.ranks()[[3, 5, 8]])
