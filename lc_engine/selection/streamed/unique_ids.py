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


class UniqueIds:
    """Whether all ids are distinct: at no cost where they ascend, else by their sorted hashes.

    Args:
        rows: of the table.
    """

    def __init__(self, rows: int) -> None:
        self._passes = max(1, -(-rows // _MAX_HELD))
        self._ascending = True
        self._last: Any = None
        self._held: list[NDArray[np.uint64]] = []

    def add(self, chunk: Chunk) -> None:
        """Read some of the rows, in order."""
        ids = chunk.ids
        if self._ascending:
            first = self._last is None or bool(ids[0] > self._last)
            self._ascending = first and bool(np.all(ids[1:] > ids[:-1]))
            self._last = ids[-1]
        self._held.append(self._of_pass(chunk, 0).id_hash)

    def check(self, chunks: Iterable[Chunk]) -> None:
        """Refuse an id that appears twice, once all rows are added.

        Args:
            chunks: the same rows, read again where that is needed.

        Raises:
            ValueError: naming the id.
        """
        held, self._held = self._held, []
        if self._ascending:
            return
        for number in range(self._passes):
            if number:
                held = [self._of_pass(chunk, number).id_hash for chunk in chunks]
            hashes = np.sort(np.concatenate(held))
            twice = hashes[1:][hashes[1:] == hashes[:-1]]
            if len(twice):
                # Distinct texts may have one hash: compare the ids.
                found = [chunk.where(np.isin(chunk.id_hash, twice)) for chunk in chunks]
                ids = np.concatenate([chunk.ids for chunk in found])
                same = np.concatenate([chunk.id_hash for chunk in found])
                order = np.lexsort((ids, same))
                check_unique(ids[order], same[order])

    def _of_pass(self, chunk: Chunk, number: int) -> Chunk:
        if self._passes == 1:
            return chunk
        return chunk.where(chunk.id_hash % np.uint64(self._passes) == number)
