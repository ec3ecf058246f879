"""The measurement: parity first, then every way in turns on the same rows."""

from __future__ import annotations

import logging
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lc_engine._util.turns import in_turns
from lc_engine.bench.memory import PeakMemory
from lc_engine.bench.parity import Parity, compare, refuse_disagreement
from lc_engine.bench.rows import some_rows
from lc_engine.bench.ways import ENGINE, NAIVE
from lc_engine.path.learning_path import LearningPath

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from lc_engine.bench.machine import Work
    from lc_engine.bench.ways import Job
    from lc_engine.data.batch import Source

_log = logging.getLogger(__name__)

# Rows of the batches that only read.
_READ_ROWS = 64


@dataclass(frozen=True)
class Measured:
    """One way: its agreement and, if it agrees, its time.

    Attributes:
        name: of the way.
        parity: with the naive loop; None for the naive loop itself, and where it did not run.
        seconds: median over the rounds; None where it did not run or disagrees.
        memory: bytes at the peak above the start, the most of any round; None where not known.
        reason: why there are no seconds.
    """

    name: str
    parity: Parity | None
    seconds: float | None = None
    memory: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Cost:
    """Seconds of the engine and of the naive loop at one size.

    Attributes:
        sub_models: K.
        rows: N.
        engine: seconds, median over the rounds.
        naive: likewise.
    """

    sub_models: int
    rows: int
    engine: float
    naive: float


@dataclass(frozen=True)
class Outcome:
    """What one job measured.

    Attributes:
        title: model and head.
        data: `Source.describe`.
        rows: N.
        scored: rows that have a score.
        path: the sub-models, as a dictionary.
        sub_models: K.
        keep: fraction that the comparison of kept rows keeps.
        rounds: of the measurement.
        ways: in the order of the job.
        reading: seconds to read and decode all rows once and do nothing else.
        passes: times the engine reads them.
        forwards: dense forwards over the rows that the naive loop makes.
        work: of one of them.
        costs: by K and by N.
    """

    title: str
    data: dict[str, object]
    rows: int
    scored: int
    path: dict[str, object]
    sub_models: int
    keep: float
    rounds: int
    ways: list[Measured]
    reading: float
    passes: int
    forwards: int
    work: Work
    costs: list[Cost]

    def seconds(self, name: str) -> float | None:
        """Return the seconds of a way, None if it has none."""
        return next(way.seconds for way in self.ways if way.name == name)


def measure(
    job: Job, *, rounds: int = 3, keep: float = 0.1, say: Callable[[str], None] = _log.info
) -> Outcome:
    """Compare the scores of all ways, then time those that agree, in turns.

    Args:
        job: what is scored.
        rounds: times that each way runs; each round begins with another one.
        keep: fraction of the rows whose choice is compared.
        say: called with a sentence before every step.

    Raises:
        DisagreementError: the engine's scores are not those of the naive loop.
        ValueError: no round, or a path or data too small to compare.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    ways = {way.name: way for way in job.ways}
    say(f"{job.title}: {len(job.source):,} rows, {len(job.path)} sub-models: comparing the scores")
    found, failed = _scores(job)
    if len(found[NAIVE]) < 2:
        raise ValueError(f"data: {len(found[NAIVE])} rows have a score; a comparison needs two")
    parities = {
        name: compare(found[NAIVE], lc, keep, ways[name].tolerance)
        for name, lc in found.items()
        if name != NAIVE
    }
    refuse_disagreement(parities, ENGINE, NAIVE)

    say(f"{job.title}: the scores agree; timing, rounds: {rounds}")
    timed = [name for name in found if name == NAIVE or parities[name].agrees]
    differ = {name: p.disagreement for name, p in parities.items() if not p.agrees}
    reasons = {**failed, **differ}
    sizes = _sizes(job)
    runs: dict[object, Callable[[], object]] = {
        name: partial(ways[name].run, job.source, job.path) for name in timed
    }
    for size, (source, path) in sizes.items():
        for name in (NAIVE, ENGINE):
            runs[name, size] = partial(ways[name].run, source, path)
    runs[None] = partial(_read, job.source)
    seconds, memory = _in_turns(runs, rounds)
    return Outcome(
        title=job.title,
        data=job.source.describe(),
        rows=len(job.source),
        scored=len(found[NAIVE]),
        path=job.path.to_dict(),
        sub_models=len(job.path),
        keep=keep,
        rounds=rounds,
        ways=[
            Measured(
                name,
                parities.get(name),
                seconds.get(name),
                memory.get(name),
                reasons.get(name, ""),
            )
            for name in ways
        ],
        reading=seconds[None],
        passes=job.passes,
        forwards=len(job.path) + job.forwards,
        work=job.work,
        costs=[
            Cost(*size, engine=seconds[ENGINE, size], naive=seconds[NAIVE, size]) for size in sizes
        ]
        + [Cost(len(job.path), len(job.source), seconds[ENGINE], seconds[NAIVE])],
    )


def _scores(job: Job) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Run every way once; return lc by way, and the reasons of those that did not run."""
    found, failed = {}, {}
    for way in job.ways:
        try:
            found[way.name] = way.run(job.source, job.path)
        except Exception as error:  # a compiler may raise anything
            if not way.optional:
                raise
            failed[way.name] = f"did not run: {type(error).__name__}: {_first_line(error)}"
    return found, failed


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")


def _sizes(job: Job) -> dict[tuple[int, int], tuple[Source, LearningPath]]:
    """Return a quarter and a half of the job's sub-models and of its rows, by (K, N)."""
    points, rows = len(job.path), len(job.source)
    sizes: dict[tuple[int, int], tuple[Source, LearningPath]] = {}
    for part in (4, 2):
        if points >= part > 1:
            fewer = LearningPath.explicit(job.path.capacities[:: points // (points // part)])
            sizes[len(fewer), rows] = (job.source, fewer)
        if rows >= 8 * part:
            sizes[points, rows // part] = (some_rows(job.source, rows // part), job.path)
    return sizes


def _in_turns(
    runs: Mapping[object, Callable[[], object]], rounds: int
) -> tuple[dict[object, float], dict[object, int | None]]:
    """Run everything once per round; return medians and peaks."""
    seconds: dict[object, list[float]] = {name: [] for name in runs}
    peaks: dict[object, list[int]] = {name: [] for name in runs}
    with PeakMemory() as memory:
        for name in in_turns(runs, rounds):
            start = memory.settle()
            began = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - began)
            peak = memory.above(start)
            if peak is not None:
                peaks[name].append(peak)
    return (
        {name: statistics.median(times) for name, times in seconds.items()},
        {name: max(found, default=None) for name, found in peaks.items()},
    )


def _read(source: Source) -> None:
    for _ in source.batches(_READ_ROWS):
        pass
