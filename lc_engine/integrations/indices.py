"""Scores by the position of a row, as other tools count rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.table import ScoreTable


def check_positions(table: ScoreTable, rows: int) -> None:
    """Refuse a score table that is not of these rows, in their order.

    Args:
        table: of a data set whose ids are positions.
        rows: of the data set at hand.

    Raises:
        ValueError: another number of rows, or ids that are not 0, 1, 2, …
    """
    ids = table.column("id")
    if len(ids) != rows:
        raise ValueError(f"scores has {len(ids)} rows and the data set {rows}: score this data set")
    if ids.dtype.kind not in "iu" or not np.array_equal(ids, np.arange(rows)):
        raise ValueError(
            'column "id" of scores must hold the positions 0, 1, 2, … of the rows: score the data '
            "set itself, not a shuffled or filtered one"
        )


def check_chosen(keep: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Give chosen positions, ascending.

    Args:
        keep: what `lc_engine.select` returned.
        rows: of the data set.

    Raises:
        ValueError: not integers, one twice, or one outside [0, rows).
    """
    chosen = np.asarray(keep)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise ValueError(
            f"keep must be positions, integers of shape (n,), got {chosen.dtype} {chosen.shape}"
        )
    ordered = np.sort(chosen.astype(np.int64))
    if len(ordered) and not 0 <= ordered[0] <= ordered[-1] < rows:
        outside = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise ValueError(f"keep names row {outside}, but the data set has {rows} rows")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise ValueError(f"keep names row {twice[0]} twice")
    return ordered
