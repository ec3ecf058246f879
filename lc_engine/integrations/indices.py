"""Checks of row indices, by which other tools address the rows of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lc_engine.data.batch import OK

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.table import ScoreTable


def check_row_ids(table: ScoreTable, rows: int) -> None:
    """Raise unless the ids of a score table are the indices of a data set's rows, in order.

    Args:
        table: the scores.
        rows: of the data set.

    Raises:
        ValueError: another number of rows, or ids that are not 0, 1, 2, …
    """
    ids = table.column("id")
    if len(ids) != rows:
        raise ValueError(f"scores has {len(ids)} rows and the data set {rows}: score this data set")
    if ids.dtype.kind not in "iu" or not np.array_equal(ids, np.arange(rows)):
        raise ValueError(
            'column "id" of scores must hold the row indices 0, 1, 2, …: score the data set '
            "itself, not a shuffled or filtered one"
        )


def check_complete(table: ScoreTable) -> None:
    """Raise unless every row has a score and ids are row indices.

    Raises:
        ValueError: ids that are not 0, 1, 2, …, or a row without a score; the text names the first.
    """
    check_row_ids(table, len(table))
    bad = np.flatnonzero(table.column("status") != OK)
    if len(bad):
        status, detail = (table.column(name)[bad[0]] for name in ("status", "detail"))
        raise ValueError(
            f"{len(bad)} rows have no score, which this format cannot express; the first is "
            f"row {bad[0]}: {status}: {detail}"
        )


def check_kept(keep: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Return the row indices to keep, ascending.

    Args:
        keep: what `lc_engine.select` returned.
        rows: of the data set.

    Raises:
        ValueError: not integers, a duplicate, or an index outside [0, rows).
    """
    indices = np.asarray(keep)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise ValueError(
            f"keep must be row indices, integers of shape (n,), got {indices.dtype} {indices.shape}"
        )
    ordered = np.sort(indices.astype(np.int64))
    if len(ordered) and not 0 <= ordered[0] <= ordered[-1] < rows:
        outside = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise ValueError(f"keep names row {outside}, but the data set has {rows} rows")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise ValueError(f"keep names row {twice[0]} twice")
    return ordered
