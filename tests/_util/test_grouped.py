from __future__ import annotations

import math

import numpy as np
import pytest

from lc_engine._util.grouped import (
    argsort_within_groups,
    ordered_bits,
    sample_per_group,
    smallest_per_group,
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("groups", [1, 7, 70_000])
def test_rows_are_sorted_by_group_then_key_then_index(dtype: type, groups: int) -> None:
    rng = np.random.default_rng(groups)
    key = rng.integers(-3, 4, 500).astype(dtype)
    if dtype is not np.int64:
        key[:20] = rng.choice([0.0, -0.0, np.inf, -np.inf, 1e-40, -1e-40, 3e38], 20)
    of = rng.integers(0, groups, 500)
    order = argsort_within_groups(key, of)
    np.testing.assert_array_equal(order, np.lexsort((np.arange(500), key + 0, of)))


def test_no_rows_and_empty_groups() -> None:
    none = np.array([], dtype=np.intp)
    assert len(argsort_within_groups(np.array([], dtype=np.float32), none)) == 0
    groups = np.array([2, 0, 2], dtype=np.intp)
    kept = smallest_per_group(np.array([3.0, 2.0, 1.0]), groups, np.array([1, 0, 1]))
    assert sorted(kept.tolist()) == [1, 2]


@pytest.mark.parametrize("seed", range(2))
def test_every_subset_of_a_group_is_as_likely(seed: int) -> None:
    groups = np.array([0, 0, 0, 0, 1], dtype=np.intp)
    rng = np.random.default_rng(seed)
    runs = 3000
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(runs):
        pair = tuple(sorted(sample_per_group(groups, np.array([2, 0]), rng).tolist()))
        seen[pair] = seen.get(pair, 0) + 1
    assert len(seen) == 6
    std = np.sqrt(runs * (1 / 6) * (5 / 6))
    assert max(abs(count - runs / 6) for count in seen.values()) < 5 * std


def test_ordered_bits_order_as_floats_do() -> None:
    values = np.array([-np.inf, -1.5, -math.ulp(0.0), -0.0, 0.0, 1e-30, 2.0, np.inf], np.float32)
    assert np.all(np.diff(ordered_bits(values).astype(np.int64)) >= 0)
    assert ordered_bits(values)[3] == ordered_bits(values)[4]
