"""The rows of a score table that may be kept, in an order that depends on their ids alone.

Rows are sorted by a hash of their id before anything is drawn, so a subset depends on the seed and
on the set of rows, not on the order in which shards were read. The hash also breaks ties: rows of
equal score are not kept in file order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lc_engine.data.batch import NO_LABEL
from lc_engine.data.features import as_rows
from lc_engine.data.table import HARD
from lc_engine.selection.columns import (
    as_numbers,
    as_scores,
    check_no_nan,
    check_status,
    check_unique,
    first_marked,
    is_hard_when_high,
    nothing_to_keep,
    null_of,
    optional_column,
    require_column,
)
from lc_engine.selection.id_hash import hash_ids

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.features import Features
    from lc_engine.selection.columns import Scores, ScoresLike

SCORE_COLUMNS = ("label", "lc", "loss", "lc_std", "ifd")  # that strategies read
HARDNESS = "hardness"  # the column of rows in memory that ranks them, high = hard
_MOST = 1e12  # of a feature: sums of products of larger ones exceed float32
_CHUNK = 16_384  # rows of features copied at a time


class _InMemory(dict[str, "NDArray[Any]"]):
    """Columns, of which HARDNESS has a direction."""

    metadata: ClassVar = {"direction": {HARDNESS: HARD}}


@dataclass(frozen=True)
class EligibleRows:
    """The N rows of status "ok", in id-hash order.

    Attributes:
        ids: (N,) int64 or str, unique.
        indices: (N,) row of the score table.
        groups: (N,) index into `group_names`.
        group_names: (G,) the values of the column that budgets are shared over, ascending.
        scores: the table that the columns come from.
        total: rows of that table, ineligible ones included.
    """

    ids: NDArray[Any]
    indices: NDArray[np.intp]
    groups: NDArray[np.intp]
    group_names: NDArray[Any]
    scores: Scores
    total: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def group_sizes(self) -> NDArray[np.int64]:
        """(G,) rows of each group."""
        return np.bincount(self.groups, minlength=len(self.group_names)).astype(np.int64)

    def take(self, index: NDArray[Any]) -> EligibleRows:
        """Return the rows at `index` (indices or a mask); groups keep their numbers."""
        return replace(
            self, ids=self.ids[index], indices=self.indices[index], groups=self.groups[index]
        )

    def in_memory(self, hardness: NDArray[np.float32]) -> EligibleRows:
        """Return these rows with their own copy of the columns that strategies read.

        Args:
            hardness: (N,) of each row, high = hard, which becomes the column HARDNESS.
        """
        columns = {name: optional_column(self.scores, name) for name in SCORE_COLUMNS}
        scores = _InMemory(
            {
                name: np.asarray(column)[self.indices]
                for name, column in columns.items()
                if column is not None
            }
            | {HARDNESS: hardness}
        )
        return replace(self, scores=scores, indices=np.arange(len(self)), total=len(self))

    def score(self, name: str) -> NDArray[np.float32]:
        """Return a score column (N,), high or low as stored.

        Raises:
            ValueError: the column is missing or holds a NaN in an eligible row.
        """
        values = as_numbers(name, require_column(self.scores, name))[self.indices]
        check_no_nan(name, values, self.ids)
        return values

    def hardness(self, score: str) -> NDArray[np.float32]:
        """Return how hard each row is (N,), high = hard, by a score column.

        Raises:
            ValueError: the column is missing, is not of numbers or holds a NaN in an eligible row.
        """
        values = self.score(score)
        return values if is_hard_when_high(self.scores, score) else -values

    def labels(self) -> NDArray[np.int64]:
        """Return the label column (N,), −1 for none; of names, their numbers in ascending order.

        Raises:
            ValueError: the column is missing, or a label is null or not a whole number.
        """
        labels = np.asarray(require_column(self.scores, "label"))[self.indices]
        if labels.dtype.kind == "f":
            wrong = ~(np.isfinite(labels) & (labels == np.rint(labels)))
        else:
            wrong = null_of(labels)
        if wrong.any():
            raise ValueError(
                f'column "label" is {first_marked(labels, wrong)} at id '
                f"{first_marked(self.ids, wrong)!r}: a class is a name or a whole number, "
                f"{NO_LABEL} for none"
            )
        if labels.dtype.kind == "O":  # of a data frame, integers too
            labels = np.array(labels.tolist())
        return _factorize(labels)[1] if labels.dtype.kind in "TU" else labels.astype(np.int64)

    def align(self, features: ArrayLike | Features) -> NDArray[np.float32]:
        """Return features (rows of the table, D) in the order of these rows: (N, D).

        Raises:
            ValueError: another shape or no numbers, or one that is not finite in float32 or above
                10¹² in an eligible row.
        """
        array = as_rows(features)
        if array.ndim != 2 or len(array) != self.total or not array.shape[1]:
            raise ValueError(
                f"features must be a matrix with one row per row of scores ({self.total}), "
                f"got shape {array.shape}"
            )
        if array.dtype.kind in "cSUTMm":
            raise ValueError(f"features must be real numbers, got {array.dtype}")
        aligned = np.empty((len(self), array.shape[1]), dtype=np.float32)
        for start in range(0, len(self), _CHUNK):
            part = slice(start, start + _CHUNK)
            with np.errstate(over="ignore"):  # infinite, which is refused
                aligned[part] = array[self.indices[part]]
            bad = np.logical_not((np.abs(aligned[part]) <= _MOST).all(1))
            if bad.any():
                raise ValueError(
                    f"features is not finite at id {first_marked(self.ids[part], bad)!r}, or above "
                    f'{_MOST:g}: give that row another status than "ok", or scale the features'
                )
        return aligned


def read_eligible_rows(scores: ScoresLike, by: str | None = "label") -> EligibleRows:
    """Return the rows that may be kept, with the groups that share the budget.

    Args:
        scores: a ScoreTable, a path of one, or a data frame or mapping of equally long columns with
            "id", what the strategy needs and, optionally, "status" (only rows of status "ok" are
            eligible).
        by: the column whose values share the budget, or None for one group.

    Raises:
        ValueError: a missing column, a null status, columns of different lengths, a duplicate id,
            or no row with status "ok".
    """
    scores = as_scores(scores)
    ids = np.asarray(require_column(scores, "id"))
    if ids.ndim != 1:
        raise ValueError(f'column "id" must be one-dimensional, got shape {ids.shape}')
    total = len(ids)
    for name in ("status", *SCORE_COLUMNS):
        column = optional_column(scores, name)
        if column is not None and len(column) != total:
            raise ValueError(f'column "{name}" has {len(column)} rows but "id" has {total}')
    status = optional_column(scores, "status")
    if status is not None:
        check_status(np.asarray(status), ids)
    indices = np.arange(total) if status is None else np.flatnonzero(np.asarray(status) == "ok")
    if not len(indices):
        raise ValueError(nothing_to_keep(scores))
    ids = ids[indices]
    hashes = hash_ids(ids)
    order = np.argsort(hashes)
    ids, indices = ids[order], indices[order]
    check_unique(ids, hashes[order])
    if by is None:
        names, groups = np.array(["all"]), np.zeros(len(ids), dtype=np.intp)
    else:
        values = np.asarray(require_column(scores, by))
        if values.shape != (total,):
            raise ValueError(
                f'by="{by}" must be a column of one value per row, got shape {values.shape}'
            )
        names, groups = _factorize(values[indices])
    return EligibleRows(ids, indices, groups, names, scores, total)


def _factorize(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the distinct values (G,), ascending, and the index (N,) of each row's value."""
    if values.dtype.kind in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low <= 4 * len(values):  # dense integers: counting is faster than sorting
            shifted = (values - low).astype(np.intp)
            present = np.bincount(shifted, minlength=high - low + 1) > 0
            return np.flatnonzero(present) + low, (np.cumsum(present) - 1)[shifted]
    if values.dtype.kind == "O":
        values = values.astype(np.str_)
    names, groups = np.unique(values, return_inverse=True)
    return names, groups.astype(np.intp)
