"""Where in each group the rows of smallest key end, found without sorting or holding the rows.

A row's key is 96 bits: its score's, ordered like the numbers, and behind them the hash of its id,
so that no two keys are equal. A histogram of the leading digit over all rows tells in which bin of
each group the boundary lies; only the rows of those bins have to be looked at more closely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCORE_BITS, _HASH_BITS = 32, 64
_HISTOGRAM_BYTES = 1 << 29


def ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Turn floats into integers (N,) that order as they do; −0 is 0."""
    bits = (values + np.float32(0)).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.uint32) ^ np.uint32(1 << 31)


class Histogram:
    """Rows by group and by the leading digit of their keys; the groups need not be known before.

    Attributes:
        width: bits of a digit: 16 while the groups are few enough for the memory.
        counts: (groups that there is room for, 2^width) uint32.
    """

    def __init__(self) -> None:
        self.width = 16
        # What no row falls into takes no memory: the system gives pages when they are written.
        self.counts = self._room()

    def _room(self) -> NDArray[np.uint32]:
        return np.zeros((_HISTOGRAM_BYTES >> (self.width + 2), 1 << self.width), np.uint32)

    def add(self, groups: int, group: NDArray[np.intp], digit: NDArray[np.uint32]) -> None:
        """Count rows.

        Args:
            groups: G, the groups known by now.
            group: (N,) in [0, G).
            digit: (N,) the leading 16 bits of the key.

        Raises:
            ValueError: more groups than the memory has room for.
        """
        while groups > len(self.counts):
            self._widen()
        flat = (group << self.width) + (digit >> np.uint32(16 - self.width))
        np.add.at(self.counts.reshape(-1), flat, np.uint32(1))

    def _widen(self) -> None:
        """Make room for more groups by bins that are wider."""
        if self.width == 4:
            raise ValueError(f"by: there are more than {len(self.counts):,} groups")
        old, self.width = self.counts, self.width // 2
        self.counts = self._room()
        joined = old.reshape(len(old), 1 << self.width, old.shape[1] >> self.width)
        self.counts[: len(old)] = joined.sum(2, dtype=np.uint32)


class Boundaries:
    """The boundary of each group: below it lie exactly `below[g]` rows.

    Args:
        histogram: of the leading digit of all rows.
        order: (G,) where in the histogram each group is.
        below: (G,) rows of smallest key that lie below the boundary.

    Attributes:
        open_rows: rows whose side the digits seen so far do not tell.
    """

    def __init__(
        self, histogram: Histogram, order: NDArray[np.intp], below: NDArray[np.int64]
    ) -> None:
        self._width = histogram.width
        self._left = below.copy()
        self._bins: list[NDArray[np.int64]] = []
        self._narrow(histogram.counts, order)

    def _narrow(self, counts: NDArray[np.uint32], order: NDArray[np.intp]) -> None:
        """Find the bin where the boundary lies, and how many of its rows lie below."""
        chosen = np.zeros(len(self._left), np.int64)
        inside = 0
        for group, left in enumerate(self._left.tolist()):
            row = counts[order[group]]
            upto = np.cumsum(row, dtype=np.int64)
            bin_ = int(np.searchsorted(upto, left, side="right"))
            chosen[group] = bin_
            self._left[group] -= upto[bin_ - 1] if bin_ else 0
            if self._left[group]:
                inside += int(row[bin_])
        self._bins.append(chosen)
        self.open_rows = inside

    def side(
        self, group: NDArray[np.intp], score: NDArray[np.uint32], key: NDArray[np.uint64]
    ) -> NDArray[np.int8]:
        """Tell on which side rows (N,) lie: −1 below, 1 above, 0 not told yet."""
        side = np.zeros(len(group), np.int8)
        for level, bins in enumerate(self._bins):
            digit, bin_ = self._digit(level, score, key), bins[group]
            undecided = side == 0
            side[undecided & (digit < bin_)] = -1
            side[undecided & (digit > bin_)] = 1
        # Where no row of the last bin lies below, all of it lies above.
        side[(side == 0) & (self._left[group] == 0)] = 1
        return side

    def _digit(
        self, level: int, score: NDArray[np.uint32], key: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        place, mask = level * self._width, (1 << self._width) - 1
        if place < _SCORE_BITS:
            found = score >> np.uint32(_SCORE_BITS - place - self._width)
        else:
            found = key >> np.uint64(_HASH_BITS - (place - _SCORE_BITS) - self._width)
        return (found.astype(np.int64)) & mask

    def finer(self) -> Finer:
        """Begin a histogram of the next digit of the rows that are not told yet."""
        return Finer(self, len(self._left), self._width)

    def split_open(
        self, group: NDArray[np.intp], score: NDArray[np.uint32], key: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Tell which of all rows that were not told (M,) lie below, by sorting them."""
        order = np.lexsort((key, score, group))
        sizes = np.bincount(group, minlength=len(self._left))
        place = np.arange(len(group)) - (np.cumsum(sizes) - sizes)[group[order]]
        below = np.zeros(len(group), bool)
        below[order] = place < self._left[group[order]]
        return below


class Finer:
    """Counts the next digit of the rows whose side is not told, then narrows the boundaries."""

    def __init__(self, boundaries: Boundaries, groups: int, width: int) -> None:
        self._boundaries = boundaries
        self._counts = np.zeros((groups, 1 << width), np.uint32)

    def add(
        self, group: NDArray[np.intp], score: NDArray[np.uint32], key: NDArray[np.uint64]
    ) -> None:
        """Count rows."""
        bounds = self._boundaries
        undecided = bounds.side(group, score, key) == 0
        group = group[undecided]
        digit = bounds._digit(len(bounds._bins), score[undecided], key[undecided])
        np.add.at(self._counts, (group, digit), np.uint32(1))

    def narrow(self) -> None:
        """Use what was counted."""
        self._boundaries._narrow(self._counts, np.arange(len(self._counts)))
