"""Rows: what selection sees of a score table, in an order that the ids alone decide.

Rows are put in the order of a hash of their id before anything is drawn, so a subset depends on
the seed and on which rows there are, never on the order in which shards were read. The hash also
makes ties fair: rows of equal score are not taken in file order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lc_engine.data.table import ScoreTable

    Scores = ScoreTable | Mapping[str, ArrayLike]

_STRING_CHUNK = 1 << 16
_FNV_PRIME = np.uint64(0x100000001B3)
_FNV_BASIS = np.uint64(0xCBF29CE484222325)


@dataclass(frozen=True)
class Rows:
    """The rows that may be kept (status "ok"), in id-hash order.

    Attributes:
        ids: (N,) int64 or str, no two the same.
        positions: (N,) row of the score table that each one is.
        groups: (N,) index into `names`.
        names: (G,) the values of the column that budgets are shared over, ascending.
        scores: the table that the columns come from.
        total: rows of that table, those that cannot be kept included.
    """

    ids: NDArray[Any]
    positions: NDArray[np.intp]
    groups: NDArray[np.intp]
    names: NDArray[Any]
    scores: Scores
    total: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(G,) rows of each group."""
        return np.bincount(self.groups, minlength=len(self.names)).astype(np.int64)

    def take(self, index: NDArray[Any]) -> Rows:
        """Keep the rows at `index` (positions or a mask); groups keep their numbers."""
        return replace(
            self, ids=self.ids[index], positions=self.positions[index], groups=self.groups[index]
        )

    def numbers(self, name: str) -> NDArray[np.float32]:
        """Give a score column (N,), high or low as stored.

        Raises:
            ValueError: the column is missing or holds a NaN in a row that can be kept.
        """
        values = np.asarray(_require(self.scores, name))[self.positions].astype(np.float32)
        bad = np.isnan(values)
        if bad.any():
            raise ValueError(
                f'column "{name}" is NaN at id {self._first(bad)!r}, whose status '
                'is "ok": mark such rows "non_finite" or drop them'
            )
        return values

    def labels(self) -> NDArray[np.int64]:
        """Give the label column (N,).

        Raises:
            ValueError: the column is missing.
        """
        return np.asarray(_require(self.scores, "label"))[self.positions].astype(np.int64)

    def _first(self, marked: Any) -> Any:
        """Give the id of the first row marked, as a Python value."""
        return self.ids[marked][:1].tolist()[0]

    def align(self, features: ArrayLike) -> NDArray[np.float32]:
        """Bring features (rows of the table, D) into the order of these rows: (N, D).

        Raises:
            ValueError: another length, or a NaN or infinity in a row that can be kept.
        """
        array = features if isinstance(features, np.ndarray) else np.asarray(features)
        if array.ndim != 2 or len(array) != self.total:
            raise ValueError(
                f"features must be a matrix with one row per row of scores ({self.total}), "
                f"got shape {array.shape}"
            )
        aligned = array[self.positions].astype(np.float32)
        finite = np.isfinite(aligned)
        if not finite.all():
            bad = np.logical_not(finite).any(1)
            raise ValueError(f"features is not finite at id {self._first(bad)!r}")
        return aligned


def read_rows(scores: Scores, by: str | None = "label") -> Rows:
    """Read the rows that can be kept, with the groups that share the budget.

    Args:
        scores: a ScoreTable, or a mapping of equally long columns with "id", what the strategy
            needs and, optionally, "status" (rows other than "ok" cannot be kept).
        by: the column whose values share the budget, or None for one group.

    Raises:
        ValueError: a missing column, columns of different lengths, an id that appears twice, or
            no row with status "ok".
    """
    ids = np.asarray(_require(scores, "id"))
    if ids.ndim != 1:
        raise ValueError(f'column "id" must be one-dimensional, got shape {ids.shape}')
    total = len(ids)
    for name in ("status", "label", "lc", "loss", "lc_std"):
        column = _column(scores, name)
        if column is not None and len(column) != total:
            raise ValueError(f'column "{name}" has {len(column)} rows but "id" has {total}')
    status = _column(scores, "status")
    positions = np.arange(total) if status is None else np.flatnonzero(np.asarray(status) == "ok")
    if not len(positions):
        raise ValueError('scores has no row with status "ok": there is nothing to keep')
    ids = ids[positions]
    keys = hash_ids(ids)
    order = np.argsort(keys)
    _refuse_duplicates(ids[order], keys[order])
    ids, positions = ids[order], positions[order]
    if by is None:
        names, groups = np.array(["all"]), np.zeros(len(ids), dtype=np.intp)
    else:
        values = np.asarray(_require(scores, by))
        if values.shape != (total,):
            raise ValueError(
                f'by="{by}" must be a column of one value per row, got shape {values.shape}'
            )
        names, groups = _group(values[positions])
    return Rows(ids, positions, groups, names, scores, total)


def hash_ids(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Hash ids (N,) to 64 bits, the same on every machine: FNV-1a over text, then splitmix64.

    Different integers never collide (splitmix64 is a bijection); of 10**6 texts two do with
    probability 3e-8.

    Raises:
        ValueError: ids that are neither integers nor text.
    """
    if ids.dtype.kind in "iu":
        return _splitmix(ids.astype(np.int64).view(np.uint64))
    if ids.dtype.kind not in "UOT":
        raise ValueError(f'column "id" must hold integers or text, got dtype {ids.dtype}')
    keys = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _STRING_CHUNK):
        # Chunked: NumPy's fixed-width text takes four bytes per character of the longest id.
        text = np.ascontiguousarray(ids[start : start + _STRING_CHUNK].astype(np.str_))
        codes = text.view(np.uint32).reshape(len(text), -1)
        state = np.full(len(text), _FNV_BASIS)
        for column in codes.T:
            state = np.where(column == 0, state, (state ^ column) * _FNV_PRIME)
        keys[start : start + len(text)] = state
    return _splitmix(keys)


def _splitmix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalise with splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _refuse_duplicates(ids: NDArray[Any], keys: NDArray[np.uint64]) -> None:
    same = np.flatnonzero(keys[1:] == keys[:-1])
    twice = same[ids[same] == ids[same + 1]]
    if len(twice):
        raise ValueError(
            f'column "id" holds {ids[twice].tolist()[0]!r} more than once: ids must be unique '
            "(were two score tables of the same data joined?)"
        )


def _group(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Number the groups: (names ascending, index of each row's group)."""
    if values.dtype.kind in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low <= 4 * len(values):  # counting is ten times faster than sorting
            shifted = (values - low).astype(np.intp)
            present = np.bincount(shifted, minlength=high - low + 1) > 0
            return np.flatnonzero(present) + low, (np.cumsum(present) - 1)[shifted]
    if values.dtype.kind == "O":
        values = values.astype(np.str_)
    names, groups = np.unique(values, return_inverse=True)
    return names, groups.astype(np.intp)


def _names(scores: Scores) -> list[str]:
    return list(scores) if isinstance(scores, Mapping) else scores.column_names


def _column(scores: Scores, name: str) -> Any:
    """Give a column as it is stored, or None if there is none."""
    if name not in _names(scores):
        return None
    return scores[name] if isinstance(scores, Mapping) else scores.column(name)


def _require(scores: Scores, name: str) -> Any:
    column = _column(scores, name)
    if column is None:
        raise ValueError(f'scores has no column "{name}"; it has {", ".join(_names(scores))}')
    return column
