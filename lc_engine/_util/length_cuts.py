"""Cut rows of falling length into batches that waste little on padding."""

from __future__ import annotations

import numpy as np


def length_cuts(widths: np.ndarray, budget: int, overhead: int) -> list[slice]:
    """Cut rows so that padded tokens and overheads are least in total.

    Args:
        widths: (N,) int64 tokens of each row, falling.
        budget: most tokens of a batch, padding included; a longer row is a batch of its own.
        overhead: fixed cost of a batch, in tokens.
    """
    best = np.zeros(len(widths) + 1, dtype=np.int64)
    begins = np.zeros(len(widths) + 1, dtype=np.int64)
    for stop in range(1, len(widths) + 1):
        # Earlier rows are no narrower, so at most this many fit the budget.
        first = max(0, stop - max(1, budget // int(widths[stop - 1])))
        begin = np.arange(first, stop)
        padded = (stop - begin) * widths[first:stop]
        padded[:-1][padded[:-1] > budget] = np.iinfo(np.int64).max // 2
        cost = best[first:stop] + padded + overhead
        begins[stop] = begin[cost.argmin()]
        best[stop] = cost.min()
    cuts = []
    stop = len(widths)
    while stop:
        cuts.append(slice(int(begins[stop]), stop))
        stop = int(begins[stop])
    return cuts[::-1]
