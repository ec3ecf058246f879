"""The job: a data set in, a score table out, shard by shard where there is an output folder."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import torch

from lc_engine._util.digests import config_digest
from lc_engine.data.protocols import HasInputDevice, TracksWaiting
from lc_engine.data.wrap.prefetch import prefetch_to_device
from lc_engine.scoring.oom_retry import Backoff, with_fewer_rows
from lc_engine.scoring.progress import reporting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from lc_engine.data.batch import Batch, Source
    from lc_engine.data.open import Opening
    from lc_engine.data.protocols import Progress, RowScorer, RowScores
    from lc_engine.data.run.ledger import Ledger, Shard
    from lc_engine.data.table import ScoreTable

# Where the source does not say: rows of a model that decodes and computes a lot for each, and whose
# weights are masked once per sub-model and batch.
BATCH_ROWS = 128
SHARD_ROWS = 1 << 16
# 1,700 pictures of 224 px: small beside what a machine that scores them has.
CACHE_BYTES = 1 << 30


def score(
    scorer: RowScorer,
    data: Any,
    out: str | Path | None = None,
    *,
    ids: Sequence[str] | Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    shard_rows: int | None = None,
    return_path: bool = False,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress | Literal[False] | None = None,
    **opening: Unpack[Opening],
) -> ScoreTable:
    """Score every row of a data set.

    A row that cannot be scored stays in the table with its status and never stops the job. A
    head that learns from the data and has not is fitted on them first (the scorer passed in is
    not changed), so the data are read twice, but for decoded rows that fit `cache_bytes`.

    Args:
        scorer: what to score with.
        data: what `lc_engine.data.open.open_source` takes.
        out: a folder. Shards of the table are written there as they are done, and a run that was
            killed continues where it was; processes that are given the same folder share the
            shards, and each returns when all are done. None keeps the table in memory.
        ids: N distinct strings or integers for the column `id`; None takes those of the data: paths
            relative to their folder, else row numbers.
        batch_size: rows that go through the model at a time; None takes what suits the data.
            Where memory runs out the rest goes on with half as many.
        num_workers: threads that decode pictures; None takes one per processor.
        shard_rows: rows per shard in `out`; None takes what suits the data.
        return_path: whether the table gets the column `path_log_probs`.
        cache_bytes: decoded pictures of the first reading that are kept for the second.
        progress: called after each batch, and within one that takes long, as progress(phase, rows
            done, rows in all), phase "prototypes" or "scores"; one that has a method `waited` is
            told the seconds that each batch was waited for. None prints a bar or lines on stderr
            in a terminal and in a notebook, and nothing elsewhere; False prints nothing anywhere.
        **opening: `labels`, `feature_column`, `label_column` and `form`, as in `open_source`.

    Returns:
        The table, rows in the order of the data; that of an `out` is read as it is used.

    Raises:
        ValueError: data or model do not fit, or `out` holds another run; the text says what to do.
    """
    from lc_engine.data.open import open_source

    with reporting(progress) as report:
        transform = getattr(scorer, "transform", None)
        source = open_source(data, transform=transform, num_workers=num_workers, **opening)
        return _score(
            scorer,
            source,
            out,
            ids=None if ids is None else _checked_ids(ids, len(source)),
            batch_size=batch_size,
            shard_rows=shard_rows,
            return_path=return_path,
            cache_bytes=cache_bytes,
            progress=report,
        )


def _checked_ids(ids: Sequence[str] | Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    found = np.asarray(ids)
    if found.shape != (rows,) or found.dtype.kind not in "iuUO":
        raise ValueError(
            f"ids must be {rows} strings or integers, one per row; got shape {found.shape} of "
            f"{found.dtype}"
        )
    if len(np.unique(found)) < rows:
        raise ValueError("ids must be distinct, but some rows have the same")
    return found.astype(np.int64) if found.dtype.kind in "iu" else found.astype(str)


def _score(
    scorer: RowScorer,
    source: Source,
    out: str | Path | None,
    *,
    ids: np.ndarray | None,
    batch_size: int | None,
    shard_rows: int | None,
    return_path: bool,
    cache_bytes: int,
    progress: Progress | None,
) -> ScoreTable:
    from lc_engine.data.readers.rows import RowSource
    from lc_engine.data.wrap.cache import CachedSource
    from lc_engine.data.wrap.subset import whole_of

    scorer.check(source)
    whole = whole_of(source)
    at_a_time = getattr(whole, "batch_rows", BATCH_ROWS) if batch_size is None else batch_size

    def begin(keep_in: Path | None) -> _Run:
        read: Source = source
        if isinstance(whole, RowSource):  # these decode; blocks of features are as they are
            read = CachedSource(source, cache_bytes)
        ready = with_fewer_rows(
            lambda rows: scorer.fitted(read, keep_in, rows, progress), at_a_time
        )
        if isinstance(read, CachedSource):
            read.freeze()
        metadata = ready.describe() | {"data_digest": source.digest()}
        return _Run(ready, read, ids, metadata, at_a_time, return_path, progress)

    if out is None:
        return begin(None).rows(0, len(source)).table()
    from lc_engine.data.run.ledger import Ledger

    if shard_rows is None:
        shard_rows = getattr(whole, "shard_rows", SHARD_ROWS)
    manifest = scorer.describe() | {
        "data_digest": source.digest(),
        "data": source.describe(),
        "path_log_probs": return_path,
        "lc_engine": version("lc_engine"),
    }
    if ids is not None:
        manifest["ids_digest"] = config_digest({"ids": ids.tolist()})
    ledger = Ledger(out, manifest, len(source), shard_rows)
    _work_off(ledger, begin)
    return ledger.table()


def _work_off(ledger: Ledger, begin: Callable[[Path], _Run]) -> None:
    """Score this process's share of the shards; one is written while the next is scored."""
    run: _Run | None = None
    writing: Future[None] | None = None
    with (
        ThreadPoolExecutor(1, thread_name_prefix="lc-write") as writer,
        closing(ledger.work()) as shards,
    ):
        for shard in shards:
            if run is None:
                run = begin(ledger.out_dir)
                run.done = ledger.rows_done()
            rows = run.rows(shard.start, shard.stop)
            if writing is not None:
                writing.result()
            writing = writer.submit(_commit, ledger, shard, rows)
    if writing is not None:
        writing.result()


def _commit(ledger: Ledger, shard: Shard, rows: _ScoredRows) -> None:
    ledger.commit(shard, rows.table())


@dataclass
class _Run:
    """What stays the same over the shards of a run, and how many rows are done."""

    scorer: RowScorer
    source: Source
    ids: np.ndarray | None
    metadata: dict[str, Any]
    batch_size: int
    return_path: bool
    progress: Progress | None
    done: int = 0
    reported: int = 0

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.scorer)

    def rows(self, start: int, stop: int) -> _ScoredRows:
        """Score rows [start, stop)."""
        points = len(self.scorer.path) if self.return_path else None
        ids = None if self.ids is None else self.ids[start:stop]
        found = _ScoredRows(self.metadata, ids, stop - start, points)
        for batch in self._arriving(start, stop):
            for piece, scores in self.backoff.score(batch, self._report):
                found.add(piece, scores)
            self._report(len(batch))
            self.done += len(batch)
        return found

    def _report(self, rows: int) -> None:
        """Report that so many rows of the batch at hand are done; a retry reports none twice."""
        if self.progress is not None and self.done + rows > self.reported:
            self.reported = self.done + rows
            self.progress("scores", self.reported, len(self.source))

    def _arriving(self, start: int, stop: int) -> Iterator[Batch]:
        """Read batches, and tell how long each was waited for."""
        batches = self.source.batches(self.batch_size, start, stop)
        if isinstance(self.scorer, HasInputDevice):
            batches = prefetch_to_device(batches, self.scorer.input_device)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            if isinstance(self.progress, TracksWaiting):
                self.progress.waited(time.perf_counter() - began)
            if batch is None:
                return
            yield batch


class _ScoredRows:
    """Columns of the rows of a shard, filled batch by batch."""

    def __init__(
        self, metadata: dict[str, Any], ids: np.ndarray | None, rows: int, points: int | None
    ) -> None:
        self._metadata = metadata
        self._given_ids = ids
        self._filled = 0
        self._ids: list[np.ndarray] = []
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
        """Make the table, once every row is there."""
        from lc_engine.data.batch import OK
        from lc_engine.data.mostly import Mostly
        from lc_engine.data.table import ScoreTable

        lc, loss, lc_std = self._scores
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int64)
        return ScoreTable.from_arrays(
            ids=ids if self._given_ids is None else self._given_ids,
            labels=self._labels,
            lc=lc,
            loss=loss,
            lc_std=lc_std,
            status=Mostly.concat(self._status, OK),
            detail=Mostly.concat(self._detail, ""),
            metadata=self._metadata,
            extra={name: torch.cat(values).numpy() for name, values in self._extra.items()},
            path_log_probs=self._log_probs,
        )
