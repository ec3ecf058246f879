"""The two moves that every strategy is made of: the first of each group, and a draw from each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def grouped_order(key: NDArray[Any], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Sort rows by group, then by ascending key; equal keys stay in row order.

    Args:
        key: (N,) what to sort by inside a group.
        groups: (N,) group of each row.

    Returns:
        (N,) row indices.
    """
    return _by_group(_ascending(key), groups)


def _ascending(key: NDArray[Any]) -> NDArray[np.intp]:
    """Sort stably: row indices (N,) by ascending key."""
    if key.dtype != np.float32 or len(key) >= 1 << 32:
        return np.argsort(key, kind="stable")
    # Sorting numbers is several times faster than sorting indices by them: the bits of a float,
    # turned so that they order like integers, go above the index.
    bits = (key + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0, its equal
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32
    return np.sort(ordered | np.arange(len(key))) & 0xFFFFFFFF


def _by_group(order: NDArray[np.intp], groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Bring row indices together by group, their order inside a group unchanged."""
    # NumPy sorts 16-bit integers by radix: far faster than a comparison sort.
    narrow = groups.astype(np.uint16) if len(groups) and groups.max() < 1 << 16 else groups
    return order[np.argsort(narrow[order], kind="stable")]


def ranks(
    key: NDArray[Any], groups: NDArray[np.intp], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give each row's place in its group by ascending key: (N,), from 0."""
    order = grouped_order(key, groups)
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = _places(groups[order], sizes)
    return place


def first(
    key: NDArray[Any], groups: NDArray[np.intp], counts: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Take the counts[g] rows of smallest key from each group g; equal keys in row order."""
    return _head(grouped_order(key, groups), groups, counts)


def uniform(
    groups: NDArray[np.intp], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw counts[g] rows from each group g, uniformly and without replacement."""
    return _head(_by_group(rng.permutation(len(groups)), groups), groups, counts)


def _head(
    order: NDArray[np.intp], groups: NDArray[np.intp], counts: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Take the first counts[g] rows of each group, where `order` goes group by group."""
    ordered = groups[order]
    place = _places(ordered, np.bincount(groups, minlength=len(counts)))
    return order[place < counts[ordered]]


def _places(ordered_groups: NDArray[np.intp], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the rows of each group 0, 1, … where rows come group by group."""
    starts = np.cumsum(sizes) - sizes
    return np.arange(len(ordered_groups)) - starts[ordered_groups]
