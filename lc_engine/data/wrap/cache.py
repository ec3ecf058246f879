"""Decoded rows that are kept between two passes, so that pictures are decoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lc_engine.data.batch import row_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch, Source


class DecodedRows:
    """A source that keeps its first rows as they are read, as many as a budget holds.

    Rows that are kept are not read again; what lies behind them is read from the source each time.

    Args:
        source: batches of tensors.
        budget: bytes of inputs that may be kept.
    """

    def __init__(self, source: Source, budget: int) -> None:
        self.classes = source.classes
        self._source = source
        self._room = budget
        self._kept: list[Batch] = []
        # Where each kept batch begins, and where the last one ends.
        self._starts = [0]
        self._filling = True

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._source)

    def digest(self) -> str:
        """Return the fingerprint of the source."""
        return self._source.digest()

    def describe(self) -> dict[str, Any]:
        """Return what the source is."""
        return self._source.describe()

    def settle(self) -> DecodedRows:
        """Keep what is kept, and no more: what is read from now on is not read again."""
        self._filling = False
        return self

    @property
    def rows_kept(self) -> int:
        """Number of rows that need no more reading."""
        return self._starts[-1]

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order, from memory as far as they are kept."""
        stop = len(self) if stop is None else stop
        row_ranges(len(self), batch_size, start, stop)  # refuses what lies outside
        kept = min(stop, max(start, self.rows_kept))
        yield from self._from_memory(batch_size, start, kept)
        if kept == stop:
            return
        filling = self._filling and kept == self.rows_kept
        for batch in self._source.batches(batch_size, kept, stop):
            filling = filling and self._keep(batch)
            yield batch

    def _keep(self, batch: Batch) -> bool:
        size = batch.inputs.nbytes
        if size > self._room:
            return False
        self._room -= size
        self._kept.append(batch)
        self._starts.append(self._starts[-1] + len(batch))
        return True

    def _from_memory(self, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
        for first, batch in zip(self._starts, self._kept, strict=False):
            low, high = max(start - first, 0), min(stop - first, len(batch))
            for piece in range(low, high, batch_size):
                yield batch.rows(piece, min(piece + batch_size, high))
