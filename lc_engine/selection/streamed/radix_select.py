"""Radix select per group: a border below which a given number of rows lie, without sorting.

A row's key has 96 bits: its score's, in the order of the numbers, then the hash of its id, so that
no two keys are equal. A histogram of the leading digit over all rows gives the bin of each group
that holds the border; only the rows of those bins need a closer look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine._util.grouped import head_per_group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lc_engine.selection.streamed.chunks import Chunk

_SCORE_BITS, _HASH_BITS = 32, 64
_HISTOGRAM_BYTES = 1 << 29


class Histogram:
    """Rows by group and by the leading digit of their keys; the groups need not be known before.

    Attributes:
        width: bits of a digit, 16 unless there are too many groups for the memory.
        counts: (groups that fit, 2^width) uint32.
    """

    def __init__(self) -> None:
        self.width = 16
        self.counts = self._allocate()

    def _allocate(self) -> NDArray[np.uint32]:
        # Zero pages: only what is written to takes memory.
        return np.zeros((_HISTOGRAM_BYTES >> (self.width + 2), 1 << self.width), np.uint32)

    def add(self, groups: int, chunk: Chunk) -> None:
        """Count rows.

        Args:
            groups: G, the groups known by now.
            chunk: rows of groups in [0, G).

        Raises:
            ValueError: more groups than fit the memory.
        """
        while groups > len(self.counts):
            self._halve_width()
        digit = chunk.score >> np.uint32(_SCORE_BITS - self.width)
        flat = (chunk.group << self.width) + digit
        np.add.at(self.counts.reshape(-1), flat, np.uint32(1))

    def _halve_width(self) -> None:
        """Merge bins, so that more groups fit."""
        if self.width == 4:
            raise ValueError(f"by: there are more than {len(self.counts):,} groups")
        old, self.width = self.counts, self.width // 2
        self.counts = self._allocate()
        merged = old.reshape(len(old), 1 << self.width, old.shape[1] >> self.width)
        self.counts[: len(old)] = merged.sum(2, dtype=np.uint32)


class Borders:
    """The border of each group, below which exactly `below[g]` rows lie.

    Args:
        histogram: of the leading digit of all rows.
        order: (G,) index of each group in the histogram.
        below: (G,) rows of smallest key below the border.

    Attributes:
        unresolved: number of rows that the digits so far leave on neither side.
    """

    def __init__(
        self, histogram: Histogram, order: NDArray[np.intp], below: NDArray[np.int64]
    ) -> None:
        self._width = histogram.width
        self._left = below.copy()
        self._bins: list[NDArray[np.int64]] = []
        self._narrow(histogram.counts, order)

    def _narrow(self, counts: NDArray[np.uint32], order: NDArray[np.intp]) -> None:
        """Find the bin that holds the border, and how many of its rows lie below."""
        chosen = np.zeros(len(self._left), np.int64)
        unresolved = 0
        for group, left in enumerate(self._left.tolist()):
            row = counts[order[group]]
            cumulative = np.cumsum(row, dtype=np.int64)
            bin_ = int(np.searchsorted(cumulative, left, side="right"))
            chosen[group] = bin_
            self._left[group] -= cumulative[bin_ - 1] if bin_ else 0
            if self._left[group]:
                unresolved += int(row[bin_])
        self._bins.append(chosen)
        self.unresolved = unresolved

    def side(self, chunk: Chunk) -> NDArray[np.int8]:
        """Return the side of each row (N,): −1 below, 1 above, 0 unresolved."""
        side = np.zeros(len(chunk.group), np.int8)
        for level, bins in enumerate(self._bins):
            digit, bin_ = self._digit(level, chunk), bins[chunk.group]
            undecided = side == 0
            side[undecided & (digit < bin_)] = -1
            side[undecided & (digit > bin_)] = 1
        # If no row of the bin lies below, all of it lies above.
        side[(side == 0) & (self._left[chunk.group] == 0)] = 1
        return side

    def _digit(self, level: int, chunk: Chunk) -> NDArray[np.int64]:
        """Return digit `level` of the keys (N,), 0 the leading one."""
        offset, mask = level * self._width, (1 << self._width) - 1
        if offset < _SCORE_BITS:
            found = chunk.score >> np.uint32(_SCORE_BITS - offset - self._width)
        else:
            shift = _HASH_BITS - (offset - _SCORE_BITS) - self._width
            found = chunk.id_hash >> np.uint64(shift)
        return found.astype(np.int64) & mask

    def refine(self, chunks: Iterable[Chunk]) -> None:
        """Narrow the borders by the next digit of the unresolved rows."""
        counts = np.zeros((len(self._left), 1 << self._width), np.uint32)
        for chunk in chunks:
            rest = chunk.where(self.side(chunk) == 0)
            np.add.at(counts, (rest.group, self._digit(len(self._bins), rest)), np.uint32(1))
        self._narrow(counts, np.arange(len(counts)))

    def below(self, unresolved: Chunk) -> NDArray[np.bool_]:
        """Return which of all unresolved rows (M,) lie below, by sorting them."""
        order = np.lexsort((unresolved.id_hash, unresolved.score, unresolved.group))
        below = np.zeros(len(order), bool)
        below[head_per_group(order, unresolved.group, self._left)] = True
        return below
