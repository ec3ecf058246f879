"""Covering subsets of a product of test parameters."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    Row = Mapping[str, Hashable]
    Pair = frozenset[tuple[str, Hashable]]


def pairs_of(row: Row) -> frozenset[Pair]:
    """Return the pairs of values that a row holds; of a row with one value, that value."""
    return frozenset(map(frozenset, combinations(row.items(), min(2, len(row)))))


def covering(rows: Sequence[Row]) -> list[int]:
    """Choose rows that hold every pair of values that any row holds.

    Greedy: each choice is the row with the most pairs that no chosen row holds, the first of
    equals, so the result depends on `rows` alone.

    Args:
        rows: the value of each parameter, by name. All combinations need not be there.

    Returns:
        Ascending indices into `rows`.
    """
    pairs = [pairs_of(row) for row in rows]
    holders: dict[Pair, list[int]] = {}
    for index, held in enumerate(pairs):
        for pair in held:
            holders.setdefault(pair, []).append(index)
    gain = Counter({index: len(held) for index, held in enumerate(pairs)})
    chosen, missing = [], set(holders)
    while missing:
        best = max(range(len(rows)), key=gain.__getitem__)
        chosen.append(best)
        for pair in pairs[best] & missing:
            missing.discard(pair)
            gain.subtract(holders[pair])
    return sorted(chosen)
