"""Sorting, ranking, top-k and sampling of rows within their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers (N,) that order as the floats do; −0 equals 0."""
    bits = (values + np.float32(0)).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.uint32) ^ np.uint32(1 << 31)


def argsort_within_groups(key: NDArray[Any], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return row indices (N,) sorted by group, then by ascending key; ties stay in row order.

    Args:
        key: (N,) what to sort by inside a group.
        groups: (N,) group of each row.
    """
    return _by_group(_argsort(key), groups)


def rank_within_groups(
    key: NDArray[Any], groups: NDArray[np.intp], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each row's rank in its group by ascending key: (N,), from 0."""
    order = argsort_within_groups(key, groups)
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = _index_within_runs(groups[order], sizes)
    return rank


def smallest_per_group(
    key: NDArray[Any], groups: NDArray[np.intp], counts: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the counts[g] rows of smallest key of each group g; ties in row order."""
    return head_per_group(argsort_within_groups(key, groups), groups, counts)


def sample_per_group(
    groups: NDArray[np.intp], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return counts[g] rows of each group g, drawn uniformly without replacement."""
    return head_per_group(_by_group(rng.permutation(len(groups)), groups), groups, counts)


def head_per_group(
    order: NDArray[np.intp], groups: NDArray[np.intp], counts: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Return the first counts[g] rows of each group of `order` (N,), which is sorted by group."""
    ordered = groups[order]
    index = _index_within_runs(ordered, np.bincount(groups, minlength=len(counts)))
    return order[index < counts[ordered]]


def _argsort(key: NDArray[Any]) -> NDArray[np.intp]:
    """Return row indices (N,) by ascending key, stably."""
    if key.dtype != np.float32 or len(key) >= 1 << 32:
        return np.argsort(key, kind="stable")
    # One sort of 64-bit integers, the key above the row index: faster than an indirect sort.
    keyed = ordered_bits(key).astype(np.uint64) << np.uint64(32)
    keyed |= np.arange(len(key), dtype=np.uint64)
    keyed.sort()
    return (keyed & np.uint64(0xFFFFFFFF)).astype(np.intp)


def _by_group(order: NDArray[np.intp], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return `order` sorted stably by group."""
    # NumPy sorts 16-bit integers by radix, wider ones by comparison.
    narrow = groups.astype(np.uint16) if len(groups) and groups.max() < 1 << 16 else groups
    return order[np.argsort(narrow[order], kind="stable")]


def _index_within_runs(
    sorted_groups: NDArray[np.intp], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return 0, 1, … within each group's run of `sorted_groups` (N,)."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(len(sorted_groups)) - starts[sorted_groups]
