"""A run: rows of a source through a scorer, into the columns of a score table."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lc_engine._util.read_ahead import one_late
from lc_engine.data.batch import FAILED, OK
from lc_engine.data.faults import describe_error
from lc_engine.data.identity import unchanged
from lc_engine.data.protocols import HasInputDevice, RowScores, TracksWaiting
from lc_engine.data.sparse_texts import SparseTexts
from lc_engine.data.table import ScoreTable
from lc_engine.data.wrap.prefetch import may_read_in_thread, prefetch_to_device
from lc_engine.ops import PathScores
from lc_engine.scoring.oom_retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.features import FeatureFile
    from lc_engine.data.protocols import Progress, RowScorer


@dataclass
class Run:
    """The settings of a run, the same for all shards, and the number of rows that are done.

    Attributes:
        scorer: fitted.
        source: the data.
        metadata: of the table.
        batch_size: rows at a time.
        return_path: whether the table gets `path_log_probs`.
        progress: see `score`.
        done: rows of shards and batches that are scored.
        reported: rows that `progress` was told of.
    """

    scorer: RowScorer
    source: Source
    metadata: dict[str, Any]
    batch_size: int
    return_path: bool
    progress: Progress | None
    done: int = 0
    reported: int = 0

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.scorer, self.source)

    def rows(self, start: int, stop: int, features: FeatureFile | None = None) -> ScoredRows:
        """Score rows [start, stop).

        Args:
            start: the first row.
            stop: the row after the last.
            features: gets the whole model's features of the rows.

        Raises:
            DataChangedError: the files of these rows are not what they were.
        """
        points = len(self.scorer.path) if self.return_path else None
        found = ScoredRows(self.metadata, stop - start, points)
        with (
            unchanged(self.source, range(start, stop)),
            # An error's traceback would hold the reading, and so its threads.
            closing(self._arriving(start, stop)) as arriving,
        ):
            begun = (
                list(self.backoff.score(batch, self._report, features=features is not None))
                for batch in arriving
            )
            # A device computes the next batch while the host takes in this one's scores.
            for pieces in one_late(begun) if self.backoff.runs_ahead else begun:
                for piece, started in pieces:
                    if isinstance(started, Exception):
                        scores = _failed(piece, started, self.backoff.example)
                    else:
                        scores = started()
                    found.add(piece, scores)
                    if features is not None:
                        features.add(scores.features, len(piece))
                rows = sum(len(piece) for piece, _ in pieces)
                self._report(rows)
                self.done += rows
        return found

    def _report(self, rows: int) -> None:
        """Report rows of the current batch; a retry reports none twice."""
        if self.progress is not None and self.done + rows > self.reported:
            self.reported = self.done + rows
            self.progress("scores", self.reported, len(self.source))

    def _arriving(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Read batches, and report how long each was waited for."""
        batches = self.source.batches(self.batch_size, start, stop)
        if isinstance(self.scorer, HasInputDevice):
            batches = prefetch_to_device(
                batches, self.scorer.input_device, in_thread=may_read_in_thread(self.source)
            )
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            if isinstance(self.progress, TracksWaiting):
                self.progress.waited(time.perf_counter() - began)
            if batch is None:
                return
            yield batch


def _failed(batch: Batch, error: Exception, example: RowScores) -> RowScores:
    """Return the scores of one row that the model failed on, shaped as those of another row."""
    lc, loss, log_probs = example.scores
    return RowScores(
        PathScores(
            _missing(lc), _missing(loss), None if log_probs is None else _missing(log_probs)
        ),
        _missing(example.lc_std),
        [FAILED] * len(batch),
        [describe_error(error)] * len(batch),
        {name: _missing(values) for name, values in example.extra.items()},
    )


def _missing(values: Tensor) -> Tensor:
    """Return what stands where there is no value: NaN, or 0 for integers."""
    return torch.full_like(values, torch.nan if values.is_floating_point() else 0)


class ScoredRows:
    """Columns of the rows of a shard, filled batch by batch."""

    def __init__(self, metadata: dict[str, Any], rows: int, points: int | None) -> None:
        self._metadata = metadata
        self._filled = 0
        self._ids: list[np.ndarray] = []
        self._sources: list[np.ndarray] = []
        self._labels = np.empty(rows, np.int64)
        self._scores = np.empty((3, rows), np.float32)
        self._log_probs = None if points is None else np.empty((rows, points), np.float32)
        self._status: list[Sequence[str]] = []
        self._detail: list[Sequence[str]] = []
        self._extra: dict[str, list[Tensor]] = {}

    def add(self, batch: Batch, found: RowScores) -> None:
        """Append a batch."""
        here = slice(self._filled, self._filled + len(batch))
        self._filled += len(batch)
        self._ids.append(batch.ids)
        self._labels[here] = batch.labels.numpy()
        if batch.sources is not None:
            self._sources.append(batch.sources)
        parts = (found.scores.lc, found.scores.loss, found.lc_std)
        for column, values in zip(self._scores, parts, strict=True):
            column[here] = values.numpy()
        if self._log_probs is not None:
            assert found.scores.log_probs is not None
            self._log_probs[here] = found.scores.log_probs.T.numpy()
        for name, values in found.extra.items():
            self._extra.setdefault(name, []).append(values)
        self._status.append(found.status)
        self._detail.append(found.detail)

    def table(self) -> ScoreTable:
        """Return the table, once every row is there."""
        lc, loss, lc_std = self._scores
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int64)
        return ScoreTable.from_arrays(
            ids=ids,
            sources=np.concatenate(self._sources) if self._sources else None,
            labels=self._labels,
            lc=lc,
            loss=loss,
            lc_std=lc_std,
            status=SparseTexts.concat(self._status, OK),
            detail=SparseTexts.concat(self._detail, ""),
            metadata=self._metadata,
            extra={name: torch.cat(values).numpy() for name, values in self._extra.items()},
            path_log_probs=self._log_probs,
        )
