"""Retry batches that do not fit in memory in smaller pieces."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import torch

from lc_engine.data.faults import out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lc_engine.data.batch import Batch
    from lc_engine.data.protocols import BatchProgress, RowScorer, RowScores

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class Backoff:
    """Scores batches, in halves where one does not fit in memory.

    Scores do not depend on how rows are cut, so this shows in the time only.

    Args:
        scorer: what scores.

    Attributes:
        rows: largest number of rows at a time, None as long as every batch has fitted.
    """

    def __init__(self, scorer: RowScorer) -> None:
        self._scorer = scorer
        self.rows: int | None = None

    def score(
        self, batch: Batch, progress: BatchProgress | None = None, *, features: bool = False
    ) -> Iterator[tuple[Batch, RowScores]]:
        """Score a batch: its pieces, in order.

        Args:
            batch: B rows.
            progress: see `RowScorer.score_rows`.
            features: likewise.

        Raises:
            MemoryError: a single row does not fit.
        """
        start = 0
        while start < len(batch):
            stop = len(batch) if self.rows is None else min(start + self.rows, len(batch))
            piece = batch.rows(start, stop)
            found = self._try(piece, _shifted(progress, start), features)
            if found is None:
                self.rows = smaller(len(piece))
                continue
            yield piece, found
            start = stop

    def _try(
        self, piece: Batch, progress: BatchProgress | None, features: bool
    ) -> RowScores | None:
        try:
            return self._scorer.score_rows(piece, progress, features=features)
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
