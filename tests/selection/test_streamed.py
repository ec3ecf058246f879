from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.selection_tables import labels_of, mapping
from lc_engine.data.table import ScoreTable
from lc_engine.selection import select
from lc_engine.selection.streamed import radix_select as boundary
from lc_engine.selection.streamed import select as streamed
from lc_engine.selection.streamed import select_streamed
from lc_engine.selection.streamed.radix_select import ordered_bits


def table_of(columns, ids=None):
    count = len(columns["id"])
    return ScoreTable.from_arrays(
        ids=np.asarray(columns["id"] if ids is None else ids),
        labels=columns["label"],
        lc=columns["lc"],
        loss=columns["loss"],
        lc_std=columns["lc_std"],
        status=["ok"] * count,
        detail=[""] * count,
        metadata={},
    )


@pytest.mark.parametrize("strategy", ["easy", "hard"])
@pytest.mark.parametrize("score", ["loss", "lc"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("keep", [1, 0.1, 0.63, 1.0])
def test_ranked_strategies_keep_the_rows_that_select_keeps(strategy, score, ties, keep):
    table = table_of(mapping(3, 2000, 7, ties=ties))
    want = select(table, keep, strategy, score=score)
    np.testing.assert_array_equal(select_streamed(table, keep, strategy, score=score), want)


@pytest.mark.parametrize("open_rows", [0, 60, 1 << 23])
@pytest.mark.parametrize("groups", [1, 5])
def test_rows_that_tie_are_told_apart_in_as_many_passes_as_it_takes(monkeypatch, open_rows, groups):
    monkeypatch.setattr(streamed, "_OPEN_ROWS", open_rows)
    columns = mapping(1, 3000, groups)
    columns["loss"] = np.where(np.arange(3000) % 3 == 0, 1.0, 1.0000001).astype(np.float32)
    table = table_of(columns)
    want = select(table, 0.25, "easy")
    np.testing.assert_array_equal(select_streamed(table, 0.25, "easy"), want)


def in_easy_pool(columns, ids, gamma):
    """How many of the ids lie in the easy pool of each group, by sorting."""
    found = []
    for group in np.unique(columns["label"]):
        here = np.flatnonzero(columns["label"] == group)
        easiest = here[np.argsort(columns["loss"][here])][: round(gamma * len(here))]
        found.append(int(np.isin(columns["id"][easiest], ids).sum()))
    return found


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.5, 0.9, 1.0, "auto"])
def test_flexrand_takes_as_many_of_each_pool_as_select_does(gamma):
    columns = mapping(5, 4000, 6)
    table = table_of(columns)
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


def test_every_row_of_a_pool_is_drawn_as_often_as_any_other():
    columns = mapping(2, 300, 2)
    table, draws, gamma = table_of(columns), 400, 0.4
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
def test_neither_the_order_of_the_rows_nor_the_files_matter(tmp_path, monkeypatch, strategy, text):
    columns = mapping(8, 1500, 5, ties=True)
    ids = np.char.add("row-", columns["id"].astype(str)) if text else columns["id"]
    whole = select_streamed(table_of(columns, ids), 0.31, strategy, seed=1)
    assert len(whole) == round(0.31 * 1500)
    order = np.random.default_rng(0).permutation(1500)
    other = {name: np.asarray(column)[order] for name, column in columns.items()}
    for part, rows in enumerate((slice(0, 0), slice(0, 700), slice(700, None))):
        some = {name: column[rows] for name, column in other.items()}
        name = f"part-{part:05d}-of-00003.parquet"
        table_of(some, ids[order][rows]).write(tmp_path / name)
    monkeypatch.setattr("lc_engine.data.table_files._CHUNK_ROWS", 64)
    np.testing.assert_array_equal(select_streamed(tmp_path, 0.31, strategy, seed=1), whole)


def test_another_seed_draws_other_rows():
    table = table_of(mapping(8, 1500, 5))
    one, two = (select_streamed(table, 0.3, "random", seed=seed) for seed in (0, 1))
    assert 0.15 * 450 < np.isin(one, two).sum() < 0.45 * 450


def test_a_band_that_is_too_narrow_is_widened(monkeypatch):
    table = table_of(mapping(8, 1500, 5))
    want = select_streamed(table, 0.3, "random")
    monkeypatch.setattr(streamed, "_SLACK", 1e-3)
    np.testing.assert_array_equal(select_streamed(table, 0.3, "random"), want)


def test_groups_floors_and_rows_without_a_score():
    columns = mapping(4, 1000, 4)
    status = np.where(np.arange(1000) % 10 == 3, "unreadable", "ok")
    table = ScoreTable.from_arrays(
        ids=columns["id"],
        labels=columns["label"],
        lc=columns["lc"],
        loss=columns["loss"],
        lc_std=columns["lc_std"],
        status=status.tolist(),
        detail=["" if one == "ok" else "why" for one in status],
        metadata={},
    )
    for options in ({"by": None}, {"floor": 40}, {"cap": {0: 5}}, {"by": None, "score": "lc"}):
        want = select(table, 0.2, "easy", **options)
        np.testing.assert_array_equal(select_streamed(table, 0.2, "easy", **options), want)


def test_many_groups_share_the_memory_of_a_histogram(monkeypatch):
    monkeypatch.setattr(boundary, "_HISTOGRAM_BYTES", 1 << 16)
    table = table_of(mapping(6, 3000, 50, ties=True))
    want = select(table, 0.1, "hard")
    np.testing.assert_array_equal(select_streamed(table, 0.1, "hard"), want)


def test_one_digit_orders_as_floats_do():
    values = np.array([-np.inf, -1.5, -math.ulp(0.0), -0.0, 0.0, 1e-30, 2.0, np.inf], np.float32)
    assert np.all(np.diff(ordered_bits(values).astype(np.int64)) >= 0)
    assert ordered_bits(values)[3] == ordered_bits(values)[4]


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
def test_what_does_not_fit(options, message):
    table = table_of(mapping(0, 50))
    with pytest.raises(ValueError, match=message):
        select_streamed(table, **{"keep": 0.5, **options})
