"""Find ids that appear twice in a table that does not fit in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lc_engine.selection.columns import check_unique

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lc_engine.selection.streamed.chunks import Chunk

# Hashes held at a time, of 8 bytes each; a longer table is read once per so many rows.
_MAX_HELD = 1 << 25
# Rows of a table whose ids are marked, with two bytes a row.
_MAX_MARKED = 1 << 27


class UniqueIds:
    """Whether all ids are distinct: by their order, by a mark each, or by their hashes.

    Ascending ids are, and integers below twice the rows are if they set as many marks as there are
    rows. Other ids are compared by hashes, which are held only where these two do not apply.

    Args:
        rows: of the table.
    """

    def __init__(self, rows: int) -> None:
        self._passes = max(1, -(-rows // _MAX_HELD))
        self._ascending = True
        self._last: Any = None
        self._marks = np.zeros(2 * rows, dtype=bool) if rows <= _MAX_MARKED else None
        self._marked = 0
        self._held: list[NDArray[np.uint64]] = []

    def add(self, chunk: Chunk) -> None:
        """Read some of the rows, in order."""
        ids = chunk.ids
        if self._ascending:
            first = self._last is None or bool(ids[0] > self._last)
            self._ascending = first and bool(np.all(ids[1:] > ids[:-1]))
            self._last = ids[-1]
        if self._marks is not None:
            if ids.dtype.kind in "iu" and ids.min() >= 0 and ids.max() < len(self._marks):
                self._marks[ids] = True
                self._marked += len(ids)
                return
            self._marks = None
        self._held.append(self._of_pass(chunk, 0))

    def check(self, chunks: Iterable[Chunk]) -> None:
        """Refuse an id that appears twice, once all rows are added.

        Args:
            chunks: the same rows, read again where that is needed.

        Raises:
            ValueError: naming the id.
        """
        held, self._held = self._held, []
        marks, self._marks = self._marks, None
        if self._ascending or (marks is not None and np.count_nonzero(marks) == self._marked):
            return
        for number in range(self._passes):
            if number or self._marked:  # the marked rows have no hash here
                held = [self._of_pass(chunk, number) for chunk in chunks]
            twice = _repeated(np.concatenate(held))
            if len(twice):
                # Distinct texts may have one hash: compare the ids.
                found = [chunk.where(np.isin(chunk.id_hash, twice)) for chunk in chunks]
                ids = np.concatenate([chunk.ids for chunk in found])
                same = np.concatenate([chunk.id_hash for chunk in found])
                order = np.lexsort((ids, same))
                check_unique(ids[order], same[order])

    def _of_pass(self, chunk: Chunk, number: int) -> NDArray[np.uint64]:
        if self._passes == 1:
            return chunk.id_hash
        hashes: NDArray[np.uint64] = chunk.id_hash[
            chunk.id_hash % np.uint64(self._passes) == number
        ]
        return hashes


def _repeated(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the hashes (N,) that appear more than once.

    Each row takes a slot by the upper bits of its hash. Only a row that lost its slot to another
    can have a twin: the row that holds the slot, or another that lost it. With two slots a row, a
    fifth of the rows is left to sort.
    """
    bits = max(1, (2 * len(hashes) - 1).bit_length())
    slots = (hashes >> np.uint64(64 - bits)).astype(np.intp)
    rows = np.arange(len(hashes), dtype=np.uint32)
    holders = np.empty(1 << bits, dtype=np.uint32)
    holders[slots] = rows
    holder = holders[slots]
    lost = np.flatnonzero(holder != rows)
    without = hashes[lost]
    as_holder = without[without == hashes[holder[lost]]]
    ordered = np.sort(without)
    return np.concatenate([as_holder, ordered[1:][ordered[1:] == ordered[:-1]]])
