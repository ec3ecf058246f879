"""A source whose first rows are cached in memory, so that a second pass need not decode them."""

from __future__ import annotations

import bisect
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lc_engine.data.batch import row_ranges
from lc_engine.data.identity import check_unchanged
from lc_engine.data.wrap.subset import concatenated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lc_engine.data.batch import Batch, Source


class CachedSource:
    """Caches the first rows of a source while they are read, as many as fit a budget.

    What a model made of the inputs can take their place (`keep`): it may be smaller, and a second
    pass need not compute it again.

    Args:
        source: batches of tensors.
        budget: bytes of inputs that may be cached.
        keeps_inputs: whether inputs are cached, as decoding them again takes time.
        keeps_results: whether what was made of them may take their place.
    """

    def __init__(
        self,
        source: Source,
        budget: int,
        *,
        keeps_inputs: bool = True,
        keeps_results: bool = False,
    ) -> None:
        self.classes = source.classes
        self.num_workers = getattr(source, "num_workers", None)
        self._source = source
        self._budget = self._free = budget
        self._cached: list[Batch] = []
        # First row of each cached batch, then the end of the last one.
        self._starts = [0]
        # How many of the first batches hold what was made of their inputs.
        self._results = 0
        self._filling = keeps_inputs
        self._keeps_results = keeps_results
        self._lock = threading.Lock()  # a thread may read ahead of the one that calls `keep`

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
        self._filling = self._keeps_results = False
        return self

    @property
    def cached_rows(self) -> int:
        """Number of rows in the cache."""
        return self._starts[-1]

    def takes(self, batch: Batch, start: int, row_bytes: int) -> bool:
        """Return whether `keep` would take what was made of a batch.

        It does if there is room for all rows, or if a row takes no more than its input, of which
        then fewer would fit.

        Args:
            batch: with the inputs that the source gave.
            start: its first row.
            row_bytes: of what was made of a row.
        """
        rows, index = len(batch.inputs), self._results
        if not self._keeps_results or start != self._starts[index]:
            return False
        if index < len(self._cached) and self._starts[index + 1] != start + len(batch):
            return False  # it was cached in other pieces
        if row_bytes * len(self) > self._budget and row_bytes * rows > batch.inputs.nbytes:
            return False
        return row_bytes * rows <= self._free + self._held()

    def keep(self, batch: Batch, start: int, results: Any) -> None:
        """Let what was made of the inputs of a batch take their place.

        Args:
            batch: as `takes` accepted it.
            start: its first row.
            results: M rows like the inputs: they have a size, can be sliced and added.
        """
        with self._lock:
            self._free += self._held() - results.nbytes
            made = replace(batch, inputs=results)
            if self._results == len(self._cached):
                self._cached.append(made)
                self._starts.append(start + len(batch))
            else:
                self._cached[self._results] = made
            self._results += 1

    def _held(self) -> int:
        """Return the bytes of the inputs whose place is the next to be taken."""
        if self._results == len(self._cached):
            return 0
        return int(self._cached[self._results].inputs.nbytes)

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
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            self._cached.append(batch)
            self._starts.append(self._starts[-1] + len(batch))
            return True

    def _from_memory(self, batch_size: int, start: int, stop: int) -> Iterator[Batch]:
        for cut in row_ranges(len(self), batch_size, start, stop):
            first = bisect.bisect_right(self._starts, cut.start) - 1
            last = bisect.bisect_left(self._starts, cut.stop)
            if first < self._results < last:  # inputs and results cannot be joined
                yield from self._source.batches(batch_size, cut.start, cut.stop)
                continue
            pieces = []
            for index in range(first, last):
                begin, batch = self._starts[index], self._cached[index]
                low, high = max(cut.start - begin, 0), min(cut.stop - begin, len(batch))
                pieces.append(batch.rows(low, high))
            yield concatenated(pieces)
