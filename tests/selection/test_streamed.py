from __future__ import annotations

import numpy as np
import pytest

from helpers.selection_tables import as_table, labels_of, random_columns
from lc_engine.selection import select
from lc_engine.selection.streamed import radix_select, select_streamed
from lc_engine.selection.streamed import select as streamed


@pytest.mark.parametrize("strategy", ["easy", "hard"])
@pytest.mark.parametrize("score", ["loss", "lc"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("keep", [1, 0.1, 0.63, 1.0])
def test_ranked_strategies_keep_the_rows_that_select_keeps(strategy, score, ties, keep):
    table = as_table(random_columns(3, 2000, 7, ties=ties))
    want = select(table, keep, strategy, score=score)
    np.testing.assert_array_equal(select_streamed(table, keep, strategy, score=score), want)


@pytest.mark.parametrize("max_unresolved", [0, 60, 1 << 23])
@pytest.mark.parametrize("groups", [1, 5])
def test_ties_are_resolved_in_as_many_passes_as_needed(monkeypatch, max_unresolved, groups):
    monkeypatch.setattr(streamed, "_MAX_UNRESOLVED", max_unresolved)
    columns = random_columns(1, 3000, groups)
    columns["loss"] = np.where(np.arange(3000) % 3 == 0, 1.0, 1.0000001).astype(np.float32)
    table = as_table(columns)
    want = select(table, 0.25, "easy")
    np.testing.assert_array_equal(select_streamed(table, 0.25, "easy"), want)


def in_easy_pool(columns, ids, gamma):
    """Number of ids in the easy pool of each group, by sorting."""
    found = []
    for group in np.unique(columns["label"]):
        here = np.flatnonzero(columns["label"] == group)
        easiest = here[np.argsort(columns["loss"][here])][: round(gamma * len(here))]
        found.append(int(np.isin(columns["id"][easiest], ids).sum()))
    return found


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.5, 0.9, 1.0, "auto"])
def test_flexrand_takes_as_many_of_each_pool_as_select_does(gamma):
    columns = random_columns(5, 4000, 6)
    table = as_table(columns)
    found = select_streamed(table, 0.2, gamma=gamma, seed=4)
    want = select(table, 0.2, gamma=gamma, seed=4)
    assert len(found) == len(want) == 800
    assert np.all(np.diff(found) > 0)
    border = 0.5 if gamma == "auto" else gamma
    np.testing.assert_array_equal(
        np.bincount(labels_of(columns, found)), np.bincount(labels_of(columns, want))
    )
    if gamma != "auto":
        assert in_easy_pool(columns, found, border) == in_easy_pool(columns, want, border)


@pytest.mark.slow
def test_every_row_of_a_pool_is_drawn_as_often_as_any_other():
    columns = random_columns(2, 300, 2)
    table, draws, gamma = as_table(columns), 400, 0.4
    times = np.zeros(300)
    for seed in range(draws):
        times[np.isin(columns["id"], select_streamed(table, 0.3, gamma=gamma, seed=seed))] += 1
    assert times.sum() == draws * 90
    for group in (0, 1):
        here = np.flatnonzero(columns["label"] == group)
        order = here[np.argsort(columns["loss"][here])]
        for pool in np.split(order, [round(gamma * len(order))]):
            share = times[pool].mean() / draws
            # A binomial's standard deviation is sqrt(n p q) = 8 at most: six of them.
            assert (
                np.abs(times[pool] - share * draws).max() < 6 * (draws * share * (1 - share)) ** 0.5
            )


@pytest.mark.parametrize("strategy", ["flexrand", "random", "hard"])
@pytest.mark.parametrize("text", [False, True])
def test_neither_row_order_nor_file_boundaries_matter(tmp_path, monkeypatch, strategy, text):
    columns = random_columns(8, 1500, 5, ties=True)
    ids = np.char.add("row-", columns["id"].astype(str)) if text else columns["id"]
    whole = select_streamed(as_table(columns | {"id": ids}), 0.31, strategy, seed=1)
    assert len(whole) == round(0.31 * 1500)
    order = np.random.default_rng(0).permutation(1500)
    other = {name: np.asarray(column)[order] for name, column in columns.items()}
    for part, rows in enumerate((slice(0, 0), slice(0, 700), slice(700, None))):
        some = {name: column[rows] for name, column in other.items()}
        name = f"part-{part:05d}-of-00003.parquet"
        as_table(some | {"id": ids[order][rows]}).write(tmp_path / name)
    monkeypatch.setattr("lc_engine.data.table_files._CHUNK_ROWS", 64)
    np.testing.assert_array_equal(select_streamed(tmp_path, 0.31, strategy, seed=1), whole)


def test_another_seed_draws_other_rows():
    table = as_table(random_columns(8, 1500, 5))
    one, two = (select_streamed(table, 0.3, "random", seed=seed) for seed in (0, 1))
    assert 0.15 * 450 < np.isin(one, two).sum() < 0.45 * 450


def test_a_slack_that_is_too_small_is_doubled(monkeypatch):
    table = as_table(random_columns(8, 1500, 5))
    want = select_streamed(table, 0.3, "random")
    monkeypatch.setattr(streamed, "_SLACK", 1e-3)
    np.testing.assert_array_equal(select_streamed(table, 0.3, "random"), want)


def test_groups_floors_and_rows_without_a_score():
    status = np.where(np.arange(1000) % 10 == 3, "unreadable", "ok")
    table = as_table(random_columns(4, 1000, 4) | {"status": status})
    for options in ({"by": None}, {"floor": 40}, {"cap": {0: 5}}, {"by": None, "score": "lc"}):
        want = select(table, 0.2, "easy", **options)
        np.testing.assert_array_equal(select_streamed(table, 0.2, "easy", **options), want)


def test_many_groups_share_the_memory_of_a_histogram(monkeypatch):
    monkeypatch.setattr(radix_select, "_HISTOGRAM_BYTES", 1 << 16)
    table = as_table(random_columns(6, 3000, 50, ties=True))
    want = select(table, 0.1, "hard")
    np.testing.assert_array_equal(select_streamed(table, 0.1, "hard"), want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "herding"}, "cannot be streamed; easy, flexrand, hard, random can"),
        ({"strategy": "easy", "gamma": 0.5}, "gamma is an argument of flexrand"),
        ({"gamma": 2}, "gamma must be"),
        ({"score": "id"}, "score must be"),
        ({"by": "class"}, 'no column "class"'),
        ({"keep": 0.0}, "keep"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_arguments_are_named(options, message):
    table = as_table(random_columns(0, 50))
    with pytest.raises(ValueError, match=message):
        select_streamed(table, **{"keep": 0.5, **options})
