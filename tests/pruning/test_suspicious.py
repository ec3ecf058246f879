from __future__ import annotations

import numpy as np
import pytest

from lc_engine.data.features import Features
from lc_engine.pruning.suspicious import listed, nearest_classes, ranks, reason_of


def test_a_rank_is_the_place_within_the_group_and_a_row_alone_is_in_the_middle():
    hardness = np.array([1.0, 3.0, 2.0, np.nan, 9.0, 5.0])
    groups = np.array([0, 0, 0, 0, 1, -1])
    found = ranks(hardness, groups)
    np.testing.assert_array_equal(found, [1, 0, 0.5, np.nan, 0.5, np.nan])


def test_nothing_without_a_score_has_a_rank():
    assert np.isnan(ranks(np.full(3, np.nan), np.zeros(3, np.intp))).all()
    assert len(listed(np.full(3, np.nan, np.float32), np.full(3, np.nan))) == 0


def test_the_lowest_ranks_are_listed_and_of_equal_ones_the_hardest_first():
    rng = np.random.default_rng(0)
    hardness, groups = rng.random(3000), np.arange(3000) % 3
    rank = ranks(hardness, groups)
    rows = listed(rank, hardness)
    assert len(rows) == 300
    assert set(groups[rows[:3]]) == {0, 1, 2}
    assert (np.diff(hardness[rows[:3]]) <= 0).all()
    assert rank[rows].max() <= np.delete(rank, rows).min()


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
    found, ratio = nearest_classes(Features([path], [60]), labels, ok, rows)
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
