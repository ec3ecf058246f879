"""Estimate what a job takes in time, memory and disk, and its batch size, from a few rows."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lc_engine.data.protocols import HasMaskAccount
from lc_engine.data.table import ScoreTable
from lc_engine.data.wrap.mixture import decodes_rows
from lc_engine.data.wrap.subset import Subset, whole_of
from lc_engine.masking import MaskingWarning
from lc_engine.scoring.cut import cut_of
from lc_engine.scoring.progress import duration, peak_bytes
from lc_engine.scoring.score import CACHE_BYTES, SHARD_ROWS, default_batch, score, score_source

if TYPE_CHECKING:
    from lc_engine.data.batch import Source
    from lc_engine.data.protocols import RowScorer
    from lc_engine.masking import MaskAccount

# Rows of the first try, and seconds that the longest one takes at least.
_FIRST_ROWS = 8
_PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """The estimate of a job.

    Attributes:
        rows: N.
        probed_rows: rows that were scored to find out.
        batch_size: the fastest of the sizes tried.
        start_seconds: spent once, after the model is loaded.
        learning_seconds: of a head that learns from the data; every worker spends them.
        scoring_seconds: of the rest, shared by the workers.
        peak_bytes: resident memory of a worker.
        disk_bytes: of the score table.
        feature_bytes: of the features beside it; 0 where none are kept unless they are asked for.
        masks: what the masks reach; None where no weight is masked.
    """

    rows: int
    probed_rows: int
    batch_size: int
    start_seconds: float
    learning_seconds: float
    scoring_seconds: float
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
        speed = self.rows / self.seconds(1)
        masks = "" if self.masks is None else f"\n{self.masks.line()}"
        return (
            f"{self.rows:,} rows, judged by the first {self.probed_rows:,} on {worker}:\n"
            f"  time    {duration(self.seconds(1))} at {speed:,.0f} rows/s{several}\n"
            f"  memory  {self.peak_bytes / 2**20:,.0f} MiB per worker\n"
            f"  disk    {self.disk_bytes / 2**20:,.1f} MiB of scores{features}\n"
            f"  batch   {self.batch_size} rows (--batch-size {self.batch_size}){masks}"
        )


def plan(
    scorer: RowScorer, source: Source, *, batch_size: int | None = None, return_path: bool = False
) -> Plan:
    """Estimate what scoring a data set takes, by scoring its first rows.

    The probe is repeated with twice the rows until it takes a few seconds; the difference between
    the last two is the time of their rows.

    Args:
        scorer: it is not changed.
        source: the data.
        batch_size: rows at a time; None tries the default, a quarter and four times that.
        return_path: whether the table gets `path_log_probs`.

    Raises:
        ValueError: no rows, or data that do not fit the scorer.
    """
    if not len(source):
        raise ValueError("data: there are no rows to plan for")
    default = default_batch(source) if batch_size is None else batch_size
    probe = _Probe(scorer, source, return_path)
    account = scorer.mask_account if isinstance(scorer, HasMaskAccount) else None
    rows = min(_FIRST_ROWS, len(source))
    probe.run(rows, default)  # loads the model
    before = after = probe.run(rows, default)
    while after.seconds < _PROBE_SECONDS and rows < len(source):
        rows = min(2 * rows, len(source))
        before, after = after, probe.run(rows, default)
    sizes = (
        []
        if batch_size is not None
        else [size for size in (default // 4, 4 * default) if 0 < size <= rows]
    )
    tried = {default: after} | {size: probe.run(rows, size) for size in sizes}
    best = min(tried, key=lambda size: tried[size].seconds)
    learning, scoring = (
        _extrapolated(first, last, len(source)) * tried[best].seconds / after.seconds
        for first, last in (
            ((before.rows, before.learning), (after.rows, after.learning)),
            ((before.rows, before.scoring), (after.rows, after.scoring)),
        )
    )
    probed = (learning + scoring) / len(source) * rows
    return Plan(
        rows=len(source),
        probed_rows=rows,
        batch_size=best,
        start_seconds=max(0.0, tried[best].seconds - probed),
        learning_seconds=learning,
        scoring_seconds=scoring,
        peak_bytes=peak_bytes() + probe.further_bytes(best),
        disk_bytes=probe.disk_bytes(_parts(scorer, source, best)),
        feature_bytes=_feature_bytes(scorer, source),
        masks=account,
    )


def _parts(scorer: RowScorer, source: Source, batch_rows: int) -> int:
    """Return how many files a run has."""
    most = getattr(whole_of(source), "shard_rows", SHARD_ROWS)
    cut = cut_of(scorer, source, batch_rows, most, batch_is_given=True)
    return -(-len(source) // cut.part_rows)


def _feature_bytes(scorer: RowScorer, source: Source) -> int:
    """Return the size of the features that a run keeps unless it is told otherwise."""
    if scorer.features_forwards() != 0:
        return 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MaskingWarning)  # the probes have given it
        few = Subset.first(source, min(_FIRST_ROWS, len(source)))
        features = score(scorer, few, folder, progress=False).features()
        return len(source) * features.shape[1] * features.dtype.itemsize


def _extrapolated(first: tuple[int, float], last: tuple[int, float], rows: int) -> float:
    """Return the time of all rows by the slope between two probes, (rows, seconds) each."""
    more = last[1] - first[1]
    if last[0] == first[0] or more <= 0:  # one probe only, or noise
        return last[1] / last[0] * rows
    return more / (last[0] - first[0]) * rows


class _Times(NamedTuple):
    """Seconds that a probe of so many rows took."""

    rows: int
    learning: float
    scoring: float

    @property
    def seconds(self) -> float:
        return self.learning + self.scoring


class _Probe:
    """Scores the first rows, as a job would, into memory."""

    def __init__(self, scorer: RowScorer, source: Source, return_path: bool) -> None:
        self._scorer, self._source, self._return_path = scorer, source, return_path
        self._learns = self._has_run = False

    def run(self, rows: int, batch_size: int) -> _Times:
        """Score some rows."""
        began = learnt = time.perf_counter()

        def note(phase: str, done: int, total: int) -> None:
            nonlocal learnt
            if phase != "scores":
                self._learns = True
                learnt = time.perf_counter()

        with warnings.catch_warnings():
            if self._has_run:
                warnings.simplefilter("ignore", MaskingWarning)  # the first probe has given it
            self._table = score_source(
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
                one_reading=False,  # learning, which every worker does, and the rest apart
            )
        self._has_run = True
        return _Times(rows, learnt - began, time.perf_counter() - learnt)

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
