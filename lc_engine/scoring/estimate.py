"""Estimate what a job takes in time, memory and disk, and its batch size, from a few rows."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lc_engine.data.protocols import HasMaskAccount
from lc_engine.data.table import ScoreTable
from lc_engine.data.wrap.mixture import decodes_rows
from lc_engine.data.wrap.subset import Subset, whole_of
from lc_engine.masking import MaskingWarning
from lc_engine.scoring.cut import cut_of
from lc_engine.scoring.progress import duration, peak_bytes, speed
from lc_engine.scoring.score import CACHE_BYTES, SHARD_ROWS, default_batch, score, score_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import RowScorer
    from lc_engine.masking import MaskAccount
    from lc_engine.scoring.cut import Cut

_now = time.perf_counter

# Rows of a batch of the first try, and seconds that all tries of a batch size take, about.
_FIRST_ROWS = 8
_BUDGET_SECONDS = 5.0
# Batches of a try at least: the first has what is paid once, and is not counted.
_LEAST_BATCHES = 2
_LEAST_TRIES, _MOST_TRIES = 2, 5
# Batches of a try at most: more say no more about a batch.
_MOST_BATCHES = 50
# Where rows of a larger batch take less than this share of the time, batches cost more than rows.
_CHEAPER = 0.7
# Times further apart are given as a range.
_AGREEING = 1.25


@dataclass(frozen=True)
class Plan:
    """The estimate of a job.

    Attributes:
        rows: N.
        probed_rows: rows of the largest try.
        probed_batch: rows that went through the model at a time there.
        batch_size: that of a run, unless another was clearly faster.
        sub_models: K of the path.
        start_seconds: spent once, after the model is loaded.
        learning_seconds: of a head that learns from the data; every worker spends them. Where the
            run has one part, which workers cannot share, all sub-models run meanwhile.
        scoring_seconds: of the rest, shared by the workers.
        range_seconds: of one worker, by the 10th and the 90th percentile of the batches.
        peak_bytes: resident memory of a worker.
        disk_bytes: of the score table.
        feature_bytes: of the features beside it; 0 where none are kept unless they are asked for.
        masks: what the masks reach; None where no weight is masked.
    """

    rows: int
    probed_rows: int
    probed_batch: int
    batch_size: int
    sub_models: int
    start_seconds: float
    learning_seconds: float
    scoring_seconds: float
    range_seconds: tuple[float, float]
    peak_bytes: int
    disk_bytes: int
    feature_bytes: int = 0
    masks: MaskAccount | None = None

    def seconds(self, workers: int) -> float:
        """Return the wall time with so many workers like the measured one."""
        return self.start_seconds + self.learning_seconds + self.scoring_seconds / workers

    def to_dict(self, workers: int) -> dict[str, Any]:
        """Return the fields, and the time with one worker and with several, as JSON values."""
        masks = {} if self.masks is None else self.masks.recorded()
        return asdict(replace(self, masks=None)) | {
            "masks": masks,
            "workers": workers,
            "seconds": self.seconds(1),
            "seconds_with_workers": self.seconds(workers),
        }

    def in_words(self, workers: int, worker: str) -> str:
        """Return the estimate as text; `worker` names what the probe ran on."""
        several = ""
        if workers > 1:
            several = f"; with {workers} workers like this one {duration(self.seconds(workers))}"
        features = ""
        if self.feature_bytes:
            features = f", {self.feature_bytes / 2**20:,.1f} MiB of features (--no-features)"
        plural = "" if self.sub_models == 1 else "s"
        rate = speed(self.rows / self.seconds(1))
        least, most = self.range_seconds
        differ = ""
        if most > _AGREEING * least:
            differ = (
                f"\n          {duration(least)} to {duration(most)}, as batches took different "
                "times: is the machine busy?"
            )
        if self.probed_batch < min(self.batch_size, self.rows):
            differ += (
                f"\n          timed {self.probed_batch} rows at a time, which can be slower per "
                f"row than {self.batch_size}"
            )
        masks = "" if self.masks is None else f"\n{self.masks.line()}"
        return (
            f"{self.rows:,} rows, judged by the first {self.probed_rows:,} on {worker}:\n"
            f"  path    {self.sub_models} sub-model{plural} (--path; that of prune is explicit:1)\n"
            f"  time    {duration(self.seconds(1))} at {rate}{several}{differ}\n"
            f"  memory  {self.peak_bytes / 2**20:,.0f} MiB per worker\n"
            f"  disk    {self.disk_bytes / 2**20:,.1f} MiB of scores{features}\n"
            f"  batch   {self.batch_size} rows (--batch-size {self.batch_size}){masks}"
        )


def plan(
    scorer: RowScorer, source: Source, *, batch_size: int | None = None, return_path: bool = False
) -> Plan:
    """Estimate what scoring a data set takes, by scoring its first rows.

    A first try pays for what is paid once. Then batches grow to those of the run, or as far as a
    few fit in some seconds, and are repeated; the median of their times is that of a batch.

    Args:
        scorer: it is not changed.
        source: the data.
        batch_size: rows at a time; None takes that of a run, and tries a quarter and four times
            that where the rows suffice.
        return_path: whether the table gets `path_log_probs`.

    Raises:
        ValueError: no rows, or data that do not fit the scorer.
    """
    if not len(source):
        raise ValueError("data: there are no rows to plan for")
    account = scorer.mask_account if isinstance(scorer, HasMaskAccount) else None
    cut = _cut(scorer, source, batch_size)
    one_part = len(source) <= cut.part_rows
    probe = _Probe(scorer, source, return_path, one_reading=one_part)
    first = probe.run(min(_FIRST_ROWS, len(source)), cut.batch_rows)
    found = probe.measure(cut.batch_rows)
    best = cut.batch_rows
    if batch_size is None and found.batch_rows == cut.batch_rows:
        for size in (best // 4, 4 * best):
            seconds = _LEAST_BATCHES * size * found.per_row
            if 0 < size <= len(source) // _LEAST_BATCHES and seconds <= _BUDGET_SECONDS:
                other = probe.repeat(size)
                if other.per_row_at(0.9) < found.per_row_at(0.1):
                    found, best = other, size
    start = max(0.0, first.seconds - found.per_row * first.rows)
    return Plan(
        rows=len(source),
        probed_rows=probe.most_rows,
        probed_batch=min(found.batch_rows, probe.most_rows),
        batch_size=best,
        sub_models=len(scorer.path),
        start_seconds=start,
        learning_seconds=found.learning(0.5) * len(source),
        scoring_seconds=found.scoring(0.5) * len(source),
        range_seconds=(
            start + found.per_row_at(0.1) * len(source),
            start + found.per_row_at(0.9) * len(source),
        ),
        peak_bytes=peak_bytes() + probe.further_bytes(best),
        disk_bytes=probe.disk_bytes(_parts(scorer, source, best)),
        feature_bytes=_feature_bytes(scorer, source),
        masks=account,
    )


def _cut(scorer: RowScorer, source: Source, batch_size: int | None) -> Cut:
    """Return how a run is cut."""
    most = getattr(whole_of(source), "shard_rows", SHARD_ROWS)
    rows = default_batch(source) if batch_size is None else batch_size
    return cut_of(scorer, source, rows, most, batch_is_given=batch_size is not None)


def _parts(scorer: RowScorer, source: Source, batch_rows: int) -> int:
    """Return how many files a run has."""
    return -(-len(source) // _cut(scorer, source, batch_rows).part_rows)


def _feature_bytes(scorer: RowScorer, source: Source) -> int:
    """Return the size of the features that a run keeps unless it is told otherwise."""
    if scorer.features_forwards() != 0:
        return 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MaskingWarning)  # the probes have given it
        few = Subset.first(source, min(_FIRST_ROWS, len(source)))
        features = score(scorer, few, folder, progress=False).features()
        return len(source) * features.shape[1] * features.dtype.itemsize


class _Try(NamedTuple):
    """A run over the first rows.

    Attributes:
        rows: how many.
        seconds: of all of it.
        learning: seconds per row of each batch that a head learnt from, the first one only where
            there is no other; empty where it learns nothing.
        scoring: likewise, of each batch that was scored.
    """

    rows: int
    seconds: float
    learning: list[float]
    scoring: list[float]


class _Steady:
    """Seconds per row of tries with one batch size, without what is paid once."""

    def __init__(self, batch_rows: int, tries: Sequence[_Try]) -> None:
        self.batch_rows = batch_rows
        self._learning = [each for one in tries for each in one.learning]
        self._scoring = [each for one in tries for each in one.scoring]

    def learning(self, share: float) -> float:
        """Return a quantile of the seconds per row of learning."""
        return float(np.quantile(self._learning, share)) if self._learning else 0.0

    def scoring(self, share: float) -> float:
        """Return a quantile of the seconds per row of scoring."""
        return float(np.quantile(self._scoring, share))

    def per_row_at(self, share: float) -> float:
        """Return a quantile of the seconds per row."""
        return self.learning(share) + self.scoring(share)

    @property
    def per_row(self) -> float:
        return self.per_row_at(0.5)


def _per_row(marks: list[tuple[int, float]], began: float) -> list[float]:
    """Return the seconds per row between marks, (rows done, time) each."""
    if len(marks) == 1:
        marks = [(0, began), *marks]
    return [
        (after[1] - before[1]) / (after[0] - before[0])
        for before, after in pairwise(marks)
        if after[0] > before[0]
    ]


class _Probe:
    """Scores the first rows, as a job would, into memory."""

    def __init__(
        self, scorer: RowScorer, source: Source, return_path: bool, *, one_reading: bool = False
    ) -> None:
        self._scorer, self._source, self._return_path = scorer, source, return_path
        self._one_reading = one_reading
        self._learns = self._has_run = False
        self.most_rows = 0

    def measure(self, batch_size: int) -> _Steady:
        """Time batches of this size, or of as many rows as a few batches fit in the budget.

        A row of a small batch is dearer: weights are masked once per sub-model and batch, and
        threads wait for each other once per layer, which is long where a processor is shared. So
        the fastest batch decides how far they grow. A slow first size is doubled all the same, and
        one that made rows much cheaper than the size before is grown further.
        """
        spent = before = 0.0
        rows = min(_FIRST_ROWS, batch_size, len(self._source))
        while True:
            tried = self.run(min(_LEAST_BATCHES * rows, len(self._source)), rows)
            spent += tried.seconds
            per_row = max(_Steady(rows, [tried]).per_row_at(0.0), 1e-9)
            fitting = int(_BUDGET_SECONDS / (_LEAST_BATCHES * per_row))
            if per_row < _CHEAPER * before and spent <= 6 * _BUDGET_SECONDS:
                fitting = max(fitting, 4 * rows)
            elif spent <= 3 * _BUDGET_SECONDS:
                fitting = max(fitting, 2 * rows)
            fitting, before = min(fitting, batch_size), per_row
            if rows == batch_size or tried.rows == len(self._source):
                break
            if fitting < min(2 * rows, batch_size):
                break
            rows = fitting if fitting == batch_size else 1 << fitting.bit_length() - 1
        if rows != batch_size and len(self._source) <= fitting:
            return self.repeat(batch_size)  # all rows at once, as in the run
        return self.repeat(rows, tried)

    def repeat(self, batch_size: int, tried: _Try | None = None) -> _Steady:
        """Time batches of this size until the budget is spent."""
        tries = [self.run(_LEAST_BATCHES * batch_size, batch_size)] if tried is None else [tried]
        per_row = max(_Steady(batch_size, tries).per_row, 1e-9)
        batches = int(_BUDGET_SECONDS / (_LEAST_BATCHES * per_row * batch_size))
        rows = batch_size * min(max(batches, _LEAST_BATCHES), _MOST_BATCHES)
        spent = tries[0].seconds
        while len(tries) < _LEAST_TRIES or (spent < _BUDGET_SECONDS and len(tries) < _MOST_TRIES):
            tries.append(self.run(rows, batch_size))
            spent += tries[-1].seconds
        return _Steady(batch_size, tries)

    def run(self, rows: int, batch_size: int) -> _Try:
        """Score some rows, as many as there are."""
        rows = min(rows, len(self._source))
        began = learnt = _now()
        marks: dict[bool, list[tuple[int, float]]] = {True: [], False: []}

        def note(phase: str, done: int, total: int) -> None:
            nonlocal learnt
            learning = phase != "scores"
            now = _now()
            if learning:
                self._learns, learnt = True, now
            if done % batch_size == 0 or done == total:  # the end of a batch, not within it
                marks[learning].append((done, now))

        with warnings.catch_warnings():
            if self._has_run:
                warnings.simplefilter("ignore", MaskingWarning)  # the first probe has given it
            table = score_source(
                self._scorer,
                Subset.first(self._source, rows),
                None,
                ids=None,
                batch_size=batch_size,
                shard_rows=None,
                return_path=self._return_path,
                features=None,
                cache_bytes=CACHE_BYTES,
                progress=note,
                one_reading=self._one_reading,
            )
        self._has_run = True
        if rows >= self.most_rows:
            self._table, self.most_rows = table, rows
        seconds = _now() - began
        return _Try(rows, seconds, _per_row(marks[True], began), _per_row(marks[False], learnt))

    def further_bytes(self, batch_rows: int) -> int:
        """Return the memory that decoded rows of the job take beside those of the last probe.

        A row that is decoded is kept for the second reading, as many as fit; others are decoded
        while those before go through the model.
        """
        if not decodes_rows(self._source):
            return 0
        rows, probed = len(self._source), len(self._table)
        first = next(Subset.first(self._source, min(_FIRST_ROWS, rows)).batches(_FIRST_ROWS))
        if not len(first.inputs):
            return 0
        row_bytes = int(first.inputs.nbytes) // len(first.inputs)
        kept = CACHE_BYTES // row_bytes if self._learns else 0
        ahead = 3 * batch_rows  # two batches being decoded, one in the model
        held = [min(rows, kept) + min(rows, ahead) for rows in (rows, probed)]
        return row_bytes * (held[0] - held[1])

    def disk_bytes(self, parts: int) -> int:
        """Return the size of so many files, extrapolated from the tables of two numbers of rows."""
        table, rows = self._table.table, len(self._table)
        with tempfile.TemporaryDirectory() as folder:
            sizes = []
            for count in (rows // 2, rows):
                path = Path(folder) / f"{count}.parquet"
                ScoreTable(table.slice(0, count)).write(path)
                sizes.append(path.stat().st_size)
        per_row = (sizes[1] - sizes[0]) / (rows - rows // 2)
        per_file = sizes[1] - per_row * rows
        return round(per_row * len(self._source) + per_file * parts)
