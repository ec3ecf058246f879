from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from helpers.score_tables import random_table
from lc_engine.data.features import Features
from lc_engine.data.table import ScoreTable
from lc_engine.selection.suspicious import ClassMeans, find_suspects, reason_of


@pytest.mark.parametrize("most", [None, 7])
def test_the_lowest_ranks_are_listed_and_of_equal_ones_the_hardest_first(most, tmp_path):
    for part in range(3):
        random_table(part, 700).write(tmp_path / f"part-{part:05d}-of-00003.parquet")
    table = ScoreTable.read(tmp_path)
    found = find_suspects(table, most)
    loss, rank, labels = table.column("loss"), table.ranks(), table.column("label")
    scored = np.flatnonzero(~np.isnan(loss))
    order = scored[np.lexsort((-loss[scored], rank[scored]))]
    np.testing.assert_array_equal(found.rows, order[: most or round(0.1 * len(scored))])
    np.testing.assert_array_equal(found.rank, rank[found.rows])
    np.testing.assert_array_equal(found.labels, labels[found.rows])
    assert set(found.labels[:5]) == set(range(5))
    assert found.suggestions(None) == [""] * len(found.rows)


def test_nothing_is_listed_where_nothing_has_a_score():
    table = random_table(0, 20)
    empty = ScoreTable(table.table.slice(0, 0))
    assert find_suspects(empty).reasons(None) == []


@pytest.mark.parametrize(("rows", "listed"), [(8, 7), (20, 10), (300, 26)])
def test_of_few_rows_not_all_are_listed(rows, listed):
    table = random_table(0, rows)
    assert len(find_suspects(table).rows) == listed


def test_rows_without_a_class_are_compared_within_their_source():
    table = random_table(0, 60, sub_models=0).table
    at = table.column_names.index("label")
    table = table.set_column(at, "label", pa.array([-1] * 60))
    source = ["math" if row % 3 else "code" for row in range(60)]
    found = find_suspects(ScoreTable(table.append_column("source", pa.array(source))), 2)
    assert {name for _, name in found.groups} == {"math", "code"}
    assert all(
        f"harder than 100 % of {source[row]}" in reason
        for row, reason in zip(found.rows, found.reasons(None), strict=True)
    )


def test_the_nearest_class_is_that_of_a_plain_loop_without_the_row_itself(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.choice([2, 5, 9], 60)
    labels[7] = 11  # alone in its class
    x = (rng.standard_normal((60, 4)) + labels[:, None] / 3).astype(np.float16)
    path = tmp_path / "_features-00000-of-00001.npy"
    np.save(path, x)
    ok = rng.random(60) < 0.9
    ok[7] = True
    rows = np.flatnonzero(ok)
    features, known = Features([path], [60]), np.where(ok, labels, -1)
    means = ClassMeans(features, np.split(known, [25, 25, 50]))
    found, ratio = means.nearest(features, rows, labels[rows])
    for row, label, part in zip(rows, found, ratio, strict=True):
        distance = {}
        for name in np.unique(labels[ok]):
            others = ok & (labels == name) & (np.arange(60) != row)
            if others.any():
                mean = x[others].astype(np.float64).mean(0)
                distance[name] = np.linalg.norm(x[row].astype(np.float64) - mean)
        best = min(distance, key=distance.get)
        assert label == best
        own = distance.get(labels[row], np.inf)
        assert part == pytest.approx(distance[best] / own, abs=1e-6)


def test_a_reason_names_what_is_known():
    assert reason_of("loss", 2.345, 0.02, "cat", "dog", 0.5) == (
        "loss 2.35, harder than 98 % of cat; the mean of dog is nearer "
        "(0.50 of the distance to its own)"
    )
    assert reason_of("ifd", 1.2, 0.0, "", None, 1.0) == (
        "ifd 1.2, harder than 100 %; the answer is no likelier with its question than without"
    )
