"""Retry batches that do not fit in memory in smaller pieces."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import torch

from lc_engine.data.failing_rows import Isolation
from lc_engine.data.faults import out_of_memory
from lc_engine.data.protocols import HasInputDevice, StartsRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.protocols import BatchProgress, RowScorer, RowScores

    # Waits for the scores of a piece.
    Started = Callable[[], RowScores]

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class Backoff:
    """Scores batches, in halves where one does not fit in memory; rows that fail are isolated.

    Scores do not depend on how rows are cut, so this shows in the time only.

    Args:
        scorer: what scores.
        source: where the batches come from.

    Attributes:
        rows: largest number of rows at a time, None as long as every batch has fitted.
        runs_ahead: whether a batch is only begun by `score`, on a device.
    """

    def __init__(self, scorer: RowScorer, source: Source) -> None:
        self._scorer = scorer
        on_device = isinstance(scorer, HasInputDevice) and scorer.input_device.type != "cpu"
        self.runs_ahead = on_device and isinstance(scorer, StartsRows)
        self._isolation = Isolation(self._score_rows, source)
        self._progress: BatchProgress | None = None
        self._features = False
        self.rows: int | None = None

    @property
    def example(self) -> RowScores:
        """Scores of a row that went through where another failed."""
        assert self._isolation.example is not None
        return self._isolation.example()

    def score(
        self, batch: Batch, progress: BatchProgress | None = None, *, features: bool = False
    ) -> Iterator[tuple[Batch, Started | Exception]]:
        """Begin to score a batch: its pieces, in order, and the error of each row that failed.

        What waits for the scores of a piece also raises what only shows then, such as the failure
        of a device, which is that of the run.

        Args:
            batch: B rows.
            progress: see `RowScorer.score_rows`.
            features: likewise.

        Raises:
            MemoryError: a single row does not fit.
            Exception: that of every row.
        """
        start = 0
        while start < len(batch):
            stop = len(batch) if self.rows is None else min(start + self.rows, len(batch))
            piece = batch.rows(start, stop)
            found = self._try(piece, _shifted(progress, start), features)
            if found is None:
                self.rows = smaller(len(piece))
                continue
            yield from found
            start = stop

    def _score_rows(self, piece: Batch) -> Started:
        if self.runs_ahead:
            assert isinstance(self._scorer, StartsRows)
            return self._scorer.start_rows(piece, features=self._features)
        # Only the first attempt reports: where rows are isolated, it would go back.
        progress, self._progress = self._progress, None
        found = self._scorer.score_rows(piece, progress, features=self._features)
        return lambda: found

    def _try(
        self, piece: Batch, progress: BatchProgress | None, features: bool
    ) -> list[tuple[Batch, Started | Exception]] | None:
        self._progress, self._features = progress, features
        try:
            return list(self._isolation.each(piece))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        return None


def _shifted(progress: BatchProgress | None, start: int) -> BatchProgress | None:
    """Return the progress of a piece that begins at a row of its batch."""
    return None if progress is None else lambda done: progress(start + done)


def smaller(rows: int) -> int:
    """Return how many rows to try after `rows` did not fit.

    Raises:
        MemoryError: there is nothing smaller than one row.
    """
    if rows <= 1:
        raise MemoryError("a single row does not fit in memory: use a smaller model or input")
    torch.cuda.empty_cache()  # does nothing where there is no GPU in use
    _log.warning("memory ran out with %d rows at a time; going on with %d", rows, rows // 2)
    return rows // 2


def with_fewer_rows(run: Callable[[int], _Result], rows: int) -> _Result:
    """Call `run` with a number of rows at a time, with fewer where memory runs out."""
    while True:
        try:
            return run(rows)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        rows = smaller(rows)
