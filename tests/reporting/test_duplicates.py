from __future__ import annotations

import numpy as np
import pytest

from lc_engine.reporting import duplicates
from lc_engine.reporting.duplicates import THRESHOLD, near_duplicates


def features(seed, rows=300, width=24):
    """Random directions about a large mean, with a few pairs that are nearly the same."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width))
    for first, second, noise in ((3, 290, 0.0), (7, 9, 0.02), (100, 40, 0.1), (5, 6, 2.0)):
        x[second] = x[first] + noise * rng.standard_normal(width)
    return (x + 10).astype(np.float16)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("block", [7, 1000])
def test_the_pairs_are_those_of_all_cosines(seed, block, monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    x = features(seed)
    rows = np.arange(300)
    rows = rows[rows != 8]
    centred = x[rows].astype(np.float64)
    centred -= centred.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    want = {
        (int(rows[i]), int(rows[j])): cosines[i, j]
        for i, j in zip(*np.nonzero(np.triu(cosines >= THRESHOLD, 1)), strict=True)
    }
    found = near_duplicates(x, rows, 20, 0)
    assert {(pair.first, pair.second) for pair in found} == set(want)
    assert {(3, 290), (7, 9), (40, 100)} <= set(want)
    np.testing.assert_allclose(
        [pair.cosine for pair in found], sorted(want.values(), reverse=True), atol=1e-3
    )
    assert near_duplicates(x, rows, 1, 0) == found[:1]


def test_rows_without_features_and_of_no_direction_are_left_out():
    x = np.full((6, 4), 2.0, np.float32)
    assert near_duplicates(x, np.arange(6), 5, 0) == []
    x[1] = x[4] = np.nan
    x[2, 0] = x[3, 0] = 5
    found = {pair[:2] for pair in near_duplicates(x, np.arange(6), 9, 0)}
    assert found == {(2, 3), (0, 5)}  # about the mean of those that have features
    assert near_duplicates(x[:0], np.arange(0), 5, 0) == []


def test_of_many_rows_a_seeded_choice_is_compared(monkeypatch):
    monkeypatch.setattr(duplicates, "COMPARED", 50)
    x = np.tile(features(0)[:50], (6, 1))
    one, two, other = (near_duplicates(x, np.arange(300), 30, seed) for seed in (1, 1, 2))
    assert one == two != other
    assert all(pair.first < pair.second for pair in one)
