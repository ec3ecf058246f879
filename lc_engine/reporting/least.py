"""The rows of the least values of a column, kept while it is read in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Least:
    """The rows of the k least values, ascending; the first rows where values are equal."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._values: NDArray[np.floating] = np.zeros(0, np.float64)
        self.rows: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, values: NDArray[np.floating], rows: NDArray[np.int64]) -> None:
        """Take note of a piece.

        Args:
            values: (M,).
            rows: (M,) their row numbers.
        """
        if len(values) > self._k > 0:
            # All that are no larger than the k-th, so that ties do not depend on the partition.
            chosen = values <= np.partition(values, self._k - 1)[self._k - 1]
            values, rows = values[chosen], rows[chosen]
        values = np.concatenate([self._values, values])
        rows = np.concatenate([self.rows, rows])
        order = np.lexsort((rows, values))[: self._k]
        self._values, self.rows = values[order], rows[order]
