"""Score for one selection: points are added until it is clear which rows are kept.

Whether a row is kept depends on which side of its group's cut it is on. A row far from the cut
needs no better score, so it gets no more sub-models.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lc_engine._util.grouped import argsort_within_groups
from lc_engine.data.batch import NON_FINITE, NON_FINITE_OUTPUT, OK
from lc_engine.data.table import ScoreTable
from lc_engine.data.wrap.cache import CachedSource
from lc_engine.data.wrap.subset import Subset
from lc_engine.path.learning_path import LearningPath
from lc_engine.path.reduction import reduce_path
from lc_engine.scoring.score import BATCH_ROWS, CACHE_BYTES, score
from lc_engine.selection.problem import prepare
from lc_engine.selection.strategies.flexrand import easy_pool_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lc_engine.data.protocols import Progress
    from lc_engine.scorer.scorer import Scorer
    from lc_engine.selection.eligible import EligibleRows

Strategy = Literal["easy", "hard", "flexrand"]
_COLUMNS = ("lc", "loss", "lc_std")


def score_until_selected(
    scorer: Scorer,
    data: Any,
    keep: float,
    strategy: Strategy = "flexrand",
    *,
    gamma: float = 0.5,
    by: Literal["label"] | None = "label",
    score_column: Literal["loss", "lc"] = "loss",
    probability: float = 0.01,
    batch_size: int = BATCH_ROWS,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress | None = None,
) -> ScoreTable:
    """Score just well enough for `select(table, keep, strategy, gamma=gamma, by=by)`.

    All rows get the coarse rules of a Clenshaw-Curtis path. The error of a row's score is assumed
    normal, with std |change from the previous rule|, but at least the median of its group; a row
    goes on to the next rule while the probability that it is on the other side of its group's cut
    (the last row kept by "easy" and "hard", the boundary of the two pools of "flexrand") exceeds
    `probability`.

    Args:
        scorer: along a `LearningPath.clenshaw_curtis`, K ≥ 5, and without `tol`.
        data: what `score` takes; rows are read again for each rule, unless they fit `cache_bytes`.
        keep: as in `select`.
        strategy: one that cuts the order of the scores at one rank.
        gamma: FlexRand's, a number: the cut is needed before there are scores to choose it by.
        by: the column "label", or None for one group.
        score_column: the measure of hardness.
        probability: in (0, 0.5).
        batch_size: rows that go through the model at a time.
        cache_bytes: decoded images that are kept between the readings.
        progress: called as progress(phase, rows done, rows in all).

    Returns:
        A table with the columns `points` (sub-models run) and `error` (the last change).

    Raises:
        ValueError: naming the argument that does not fit.
    """
    from lc_engine.data.open import open_source

    if strategy not in ("easy", "hard", "flexrand"):
        raise ValueError(f'strategy must be "easy", "hard" or "flexrand", got {strategy!r}')
    if not 0 < probability < 0.5:
        raise ValueError(f"probability must lie in (0, 0.5), got {probability}")
    if not isinstance(gamma, int | float) or not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be a number in [0, 1], got {gamma!r}")
    if scorer.tol is not None:
        raise ValueError("scorer: tol gives each row its own points; leave it out here")
    levels = scorer.path.levels()
    if len(levels) < 2:
        raise ValueError("path must have at least 5 points, of which 3 are a rule of their own")
    source = open_source(data, transform=scorer.transform, label_kind=scorer.label_kind)
    scorer.check(source)
    decoded = CachedSource(source, cache_bytes)
    ready = scorer.fitted(decoded, None, batch_size, progress)
    found = _Found(len(source), len(scorer.path), score_column)
    factor = -NormalDist().inv_cdf(probability)
    active = np.arange(len(source))
    for level, (indices, weights) in enumerate(levels):
        new = found.missing(indices)
        path = LearningPath.explicit([scorer.path.capacities[k] for k in new])
        table = score(
            ready.with_path(path).fitted(decoded, None, batch_size, progress),
            Subset(decoded, active),
            batch_size=batch_size,
            return_path=True,
            progress=progress,
        )
        found.add(active, table, new, list(indices), weights)
        if level:
            rows, counts = found.prepared(keep, by)
            sure = _sure(rows, counts, strategy, gamma, score_column, found.error, factor)
            active = np.intersect1d(active, rows.ids[~sure])
        if not len(active):
            break
    return found.table(scorer.path)


class _Found:
    """The confidences and scores of N rows so far, along a path of K points."""

    def __init__(self, rows: int, points: int, score_column: str) -> None:
        self._score_column = score_column
        self._log_probs = np.full((rows, points), np.nan, np.float32)
        self._columns = {name: np.full(rows, np.nan, np.float32) for name in _COLUMNS}
        self._points = np.zeros(rows, np.int64)
        self._done: set[int] = set()
        self._first: ScoreTable | None = None
        self._lost = np.zeros(rows, bool)
        self.error = np.full(rows, np.inf, np.float32)

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Return the points of a rule that have not been run."""
        return [k for k in indices if k not in self._done]

    def add(
        self,
        rows: NDArray[np.intp],
        table: ScoreTable,
        new: list[int],
        indices: list[int],
        weights: Sequence[float],
    ) -> None:
        """Add the confidences of some rows at new points, and score the rows by a rule."""
        if self._first is None:
            self._first = table
        self._done.update(new)
        self._lost[rows] |= table.column("status") != OK
        for k, values in zip(new, table.column("path_log_probs").T, strict=True):
            self._log_probs[rows, k] = values
        before = self._columns[self._score_column][rows]
        scored = reduce_path(self._log_probs[rows][:, indices].T.astype(np.float64), weights)
        for name, values in zip(_COLUMNS, scored, strict=True):
            self._columns[name][rows] = values
        change = np.abs(self._columns[self._score_column][rows] - before)
        self.error[rows] = np.where(np.isnan(change), np.inf, change)
        self._points[rows] = len(indices)

    def prepared(self, keep: float, by: str | None) -> tuple[EligibleRows, NDArray[np.int64]]:
        """Return the rows as selection takes them, with row numbers as ids, and the budgets."""
        assert self._first is not None
        status = np.where(self._lost, NON_FINITE, OK)
        columns = {
            "id": np.arange(len(status)),
            "status": status,
            "label": self._first.column("label"),
            self._score_column: self._columns[self._score_column],
        }
        return prepare(columns, keep, by=by, floor=None, cap=None, noise_guard=0.0)

    def table(self, path: LearningPath) -> ScoreTable:
        first = self._first
        assert first is not None
        lost = self._lost & (first.column("status") == OK)
        return ScoreTable.from_arrays(
            ids=first.column("id"),
            labels=first.column("label"),
            **self._columns,
            status=np.where(lost, NON_FINITE, first.column("status")).tolist(),
            detail=np.where(lost, NON_FINITE_OUTPUT, first.column("detail")).tolist(),
            metadata=first.metadata | {"path": path.to_dict()},
            path_log_probs=self._log_probs,
            extra={"error": self.error, "points": self._points},
        )


def _sure(
    rows: EligibleRows,
    counts: NDArray[np.int64],
    strategy: Strategy,
    gamma: float,
    score_column: str,
    error: NDArray[np.float32],
    factor: float,
) -> NDArray[np.bool_]:
    """Return for each row (N,) whether its score is `factor` errors away from its group's cut."""
    hard = rows.hardness(score_column)
    sizes = rows.group_sizes
    easier = {
        "easy": counts,
        "hard": sizes - counts,
        "flexrand": easy_pool_sizes(sizes, gamma),
    }[strategy]
    order = np.split(argsort_within_groups(hard, rows.groups), np.cumsum(sizes)[:-1])
    cut, median = np.full(len(sizes), np.inf), np.zeros(len(sizes))
    for g, (members, below) in enumerate(zip(order, easier, strict=True)):
        if 0 < below < sizes[g]:  # else all its rows are on one side
            cut[g] = (float(hard[members[below - 1]]) + float(hard[members[below]])) / 2
            median[g] = np.median(error[rows.indices[members]])
    std = np.maximum(error[rows.indices], median[rows.groups])
    sure: NDArray[np.bool_] = np.abs(hard - cut[rows.groups]) >= factor * std
    return sure
