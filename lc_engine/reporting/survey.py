"""One reading of a score table in pieces: everything that the page shows of all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lc_engine._util.extras import require
from lc_engine.data.batch import OK
from lc_engine.data.ranks import SOURCE
from lc_engine.reporting.least import Least
from lc_engine.reporting.totals import Totals, add_groups, length_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from lc_engine.data.table import ScoreTable

# lc lies in [0, 1] and lc_std, the std of numbers in [0, 1], in [0, 0.5].
STD_MAX = 0.5
DENSITY_BINS = 160
_FINE_BINS = 4096
_LENGTH = "token_count"
_GROUPS = 25
# A column with more values than this is not counted by value.
MOST_VALUES = 1000
# A row below this under every sub-model is "hard under every sub-model".
NEVER = 0.5


class Border(NamedTuple):
    """Rows whose lc is nearest to where a selection changes most, on both sides of it."""

    lc: float
    kept: NDArray[np.int64]
    dropped: NDArray[np.int64]


class Survey:
    """What the page shows of all rows of a table; row numbers are those of the table.

    Args:
        table: the scores; read in pieces, so memory does not grow with the rows.
        subsets: ids kept, by the name of the selection.
        columns: texts (N,) by the name of a column of the data, by which rows are counted too.
        drawn: most rows of the map.
        listed: rows of each gallery.
        bad: most rows of the list of those without a score.
        seed: of the map's sample.

    Attributes:
        drawn: row numbers of the map's rows, ascending: all rows, or a uniform sample.
        easiest: row numbers by descending lc.
        hardest: row numbers by ascending lc.
        bad: row numbers of the first rows without a score.
        density: (DENSITY_BINS, DENSITY_BINS) rows by lc_std and lc.
        classes: totals by label.
        groups: totals by value, of each column of the data and of `token_count` (see
            `length_group`); a column with more than a thousand values has more than a thousand.
        alone: S of row numbers: a random choice of those that only this selection keeps; empty
            where there is one selection.
        overlap: (2^S,) rows by the set of selections that keep them; bit s is selection s.
        median_lc: of the scored rows, to 1/4096.
    """

    def __init__(
        self,
        table: ScoreTable,
        subsets: Mapping[str, pa.Array],
        columns: Mapping[str, NDArray[Any]] | None = None,
        *,
        drawn: int,
        listed: int,
        bad: int,
        seed: int,
    ) -> None:
        self._table, self._subsets, self._columns = table, subsets, dict(columns or {})
        self.has_path = "path_log_probs" in table.column_names
        self.drawn = _sample(len(table), drawn, seed)
        self._easiest, self._hardest = Least(listed), Least(listed)
        self._bad: list[int] = []
        self._listed_bad = bad
        self.density = np.zeros((DENSITY_BINS, DENSITY_BINS), np.int64)
        self.classes: dict[int, Totals] = {}
        counted = [name for name in (SOURCE, _LENGTH) if name in table.column_names]
        counted += [name for name in self._columns if name not in counted]
        self.groups: dict[str, dict[Any, Totals]] = {name: {} for name in counted}
        self._alone = [Least(listed) for _ in subsets]
        self._random = np.random.default_rng(seed)
        self.overlap = np.zeros(1 << len(subsets), np.int64)
        self._histogram = np.zeros((1 + len(subsets), _FINE_BINS), np.int64)
        self._read()
        self.easiest, self.hardest = self._easiest.rows, self._hardest.rows
        self.alone = [alone.rows for alone in self._alone]
        self.bad = np.array(self._bad, np.int64)

    def _read(self) -> None:
        names = ["label", "lc", "lc_std", "status"]
        names += ["id"] * bool(self._subsets) + ["path_log_probs"] * self.has_path
        names += [name for name in self.groups if name in self._table.column_names]
        start = 0
        for piece in self._table.pieces(*names):
            self._add(piece, start)
            start += piece.num_rows

    def _add(self, piece: pa.Table, start: int) -> None:
        compute = require("pyarrow.compute", "table")
        ok = _numpy(compute.equal(piece.column("status"), OK))
        if len(self._bad) < self._listed_bad:
            bad = start + np.flatnonzero(~ok)
            self._bad += bad[: self._listed_bad - len(self._bad)].tolist()
        rows = start + np.flatnonzero(ok)
        lc, lc_std = (_numpy(piece.column(name))[ok] for name in ("lc", "lc_std"))
        self._easiest.add(-lc, rows)
        self._hardest.add(lc, rows)
        x, y = _bin(lc, 1.0, DENSITY_BINS), _bin(lc_std, STD_MAX, DENSITY_BINS)
        self.density += np.bincount(y * DENSITY_BINS + x, minlength=DENSITY_BINS**2).reshape(
            DENSITY_BINS, DENSITY_BINS
        )
        kept = self.kept(piece)[:, ok]
        fine = _bin(lc, 1.0, _FINE_BINS)
        for line, chosen in zip(self._histogram, [np.ones(len(lc), bool), *kept], strict=True):
            line += np.bincount(fine[chosen], minlength=_FINE_BINS)
        codes = (kept << np.arange(len(kept))[:, None]).sum(0) if len(kept) else np.zeros(len(lc))
        self.overlap += np.bincount(codes.astype(np.int64), minlength=len(self.overlap))
        never = np.zeros(len(lc), bool)
        if self.has_path:
            never = path_confidences(piece)[ok].max(1, initial=0.0) < NEVER
        add_groups(self.classes, _numpy(piece.column("label"))[ok], lc, lc_std, never, kept)
        keys = {name: values[rows] for name, values in self._columns.items()}
        if SOURCE in piece.column_names:
            keys[SOURCE] = _numpy(piece.column(SOURCE))[ok].astype(np.str_)
        if _LENGTH in piece.column_names:
            keys[_LENGTH] = length_group(_numpy(piece.column(_LENGTH))[ok])
        for name, values in keys.items():
            groups = self.groups[name]
            if len(groups) <= MOST_VALUES:
                add_groups(groups, values, lc, lc_std, never, kept)
        if len(kept) > 1:
            shuffled = self._random.random(len(rows))
            for i, alone in enumerate(self._alone):
                only = codes == 1 << i
                alone.add(shuffled[only], rows[only])

    def kept(self, piece: pa.Table) -> NDArray[np.bool_]:
        """Return (S, rows) whether each selection keeps each row of a piece that has ids."""
        compute = require("pyarrow.compute", "table")
        found = [_numpy(compute.is_in(piece.column("id"), ids)) for ids in self._subsets.values()]
        return np.array(found, bool).reshape(len(found), piece.num_rows)

    @property
    def scored(self) -> int:
        """Rows that have a score."""
        return int(self.overlap.sum())

    @property
    def median_lc(self) -> float:
        """The median of lc, to 1/4096; NaN without a scored row."""
        if not self.scored:
            return float("nan")
        below = np.cumsum(self._histogram[0])
        return float((np.searchsorted(below, below[-1] / 2) + 0.5) / _FINE_BINS)

    def budget(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the edges of lc (G + 1,), from hard to easy, and (1 + S, G) rows: all, kept.

        The G groups are as equal in size as ties in lc allow.
        """
        below = np.cumsum(self._histogram[0])
        wanted = below[-1] * np.arange(1, _GROUPS) / _GROUPS
        cuts = np.unique(np.searchsorted(below, wanted) + 1)
        occupied = np.flatnonzero(self._histogram[0])
        first, last = (occupied[0], occupied[-1] + 1) if len(occupied) else (0, _FINE_BINS)
        cuts = np.concatenate([[first], cuts[(cuts > first) & (cuts < last)], [last]])
        return cuts / _FINE_BINS, np.add.reduceat(self._histogram, cuts[:-1], axis=1)

    def border(self, selection: int, listed: int) -> Border:
        """Return the rows nearest to where the kept share of a selection changes most."""
        edges, rows = self.budget()
        share = rows[1 + selection] / np.maximum(rows[0], 1)
        steps = np.abs(np.diff(share))
        at = float(edges[1 + np.argmax(steps)]) if len(steps) else 0.5
        kept, dropped = Least(listed), Least(listed)
        start = 0
        compute = require("pyarrow.compute", "table")
        for piece in self._table.pieces("id", "lc", "status"):
            ok = _numpy(compute.equal(piece.column("status"), OK))
            chosen = self.kept(piece)[selection]
            distance = np.abs(_numpy(piece.column("lc")) - at)
            for side, wanted in ((kept, ok & chosen), (dropped, ok & ~chosen)):
                side.add(distance[wanted], start + np.flatnonzero(wanted))
            start += piece.num_rows
        return Border(at, kept.rows, dropped.rows)


def take(table: ScoreTable, rows: NDArray[np.int64]) -> pa.Table:
    """Return these rows of a table, all columns; read in pieces.

    Args:
        table: the scores.
        rows: (M,) row numbers, ascending.
    """
    pa = require("pyarrow", "table")
    found: list[Any] = []
    start = 0
    for piece in table.pieces(*table.column_names):
        first, last = np.searchsorted(rows, (start, start + piece.num_rows))
        if last > first or not found:
            found.append(piece.take(pa.array(rows[first:last] - start)))
        start += piece.num_rows
    return pa.concat_tables(found)


def _sample(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    if rows <= count:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _bin(values: NDArray[np.floating], top: float, bins: int) -> NDArray[np.int64]:
    return np.asarray(np.clip(values * (bins / top), 0, bins - 1), np.int64)


def path_confidences(piece: pa.Table) -> NDArray[np.float32]:
    """Return (M, K) confidences of a piece with a path; NaN where a row has no score."""
    column = piece.column("path_log_probs").combine_chunks()
    valid = np.asarray(column.is_valid())
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False))
    scored = int(valid.sum())
    found = np.full((len(valid), len(values) // max(1, scored)), np.nan, np.float32)
    found[valid] = np.exp(values).reshape(scored, found.shape[1])
    return found


def _numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    return np.asarray(column.to_numpy(zero_copy_only=False))
