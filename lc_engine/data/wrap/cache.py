"""A source whose first rows are cached in memory, so that a second pass need not decode them."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from lc_engine.data.batch import row_ranges
from lc_engine.data.identity import check_unchanged
from lc_engine.data.wrap.subset import concatenated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch, Source


class CachedSource:
    """Caches the first rows of a source while they are read, as many as fit a budget.

    Args:
        source: batches of tensors.
        budget: bytes of inputs that may be cached.
    """

    def __init__(self, source: Source, budget: int) -> None:
        self.classes = source.classes
        self._source = source
        self._free = budget
        self._cached: list[Batch] = []
        # First row of each cached batch, then the end of the last one.
        self._starts = [0]
        self._filling = True

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._source)

    def digest(self) -> str:
        """Return the fingerprint of the source."""
        return self._source.digest()

    def describe(self) -> dict[str, Any]:
        """Return the description of the source."""
        return self._source.describe()

    def check_unchanged(self, rows: range) -> None:
        """Compare the files of some rows with what they were; see `FileStates.check`."""
        check_unchanged(self._source, rows)

    def freeze(self) -> CachedSource:
        """Cache no further rows; return the source itself."""
        self._filling = False
        return self

    @property
    def cached_rows(self) -> int:
        """Number of rows in the cache."""
        return self._starts[-1]

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Read rows [start, stop) in order, from memory as far as they are cached."""
        stop = len(self) if stop is None else stop
        row_ranges(len(self), batch_size, start, stop)  # checks the arguments
        cached = min(stop, max(start, self.cached_rows))
        if cached < stop:  # whole batches: a row's neighbours must not depend on what is cached
            cached -= (cached - start) % batch_size
        yield from self._from_memory(batch_size, start, cached)
        if cached == stop:
            return
        filling = self._filling and cached == self.cached_rows
        for batch in self._source.batches(batch_size, cached, stop):
            filling = filling and self._add(batch)
            yield batch

    def _add(self, batch: Batch) -> bool:
        """Return whether a batch fitted the budget."""
        size = batch.inputs.nbytes
        if size > self._free:
            return False
        self._free -= size
        self._cached.append(batch)
        self._starts.append(self._starts[-1] + len(batch))
        return True

    def _from_memory(self, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
        for cut in row_ranges(len(self), batch_size, start, stop):
            first = bisect.bisect_right(self._starts, cut.start) - 1
            pieces = []
            for index in range(first, bisect.bisect_left(self._starts, cut.stop)):
                begin, batch = self._starts[index], self._cached[index]
                low, high = max(cut.start - begin, 0), min(cut.stop - begin, len(batch))
                pieces.append(batch.rows(low, high))
            yield concatenated(pieces)
